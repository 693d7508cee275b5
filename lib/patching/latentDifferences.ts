import { activationsByLatent, outputScales } from "../analysis/latentWriting.js";
import type { PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import type { OptionNames } from "../checkArguments.js";
import type { Sae } from "../sae/sae.js";
import { type PatchingOptions, type PatchingSetting, patchingOptions } from "./patchedRuns.js";

export interface LatentPatchingOptions extends PatchingOptions, PairingOptions {
  readonly sae: Sae;
  /** The hook point (of a crosscoder all of them) that the SAE reads; by default that of its metadata. */
  readonly hook?: HookChoice | undefined;
}

/** @internal */
export const latentPatchingOptions: OptionNames<LatentPatchingOptions> = {
  ...patchingOptions,
  sae: true,
  hook: true,
  allowMismatch: "boolean",
};

/** How the latents of an SAE differ between the two prompts. */
export interface LatentDifferences {
  /** Where the SAE writes. */
  readonly output: readonly string[];
  /**
   * Of every latent that differs somewhere: by position of the clean prompt, its activation in the source run less that
   * in the base run, times what its decoder row is multiplied by there (1, but for SAEs with layer norm). Positions
   * where it does not differ are not there.
   */
  readonly differences: ReadonlyMap<number, ReadonlyMap<number, number>>;
}

/** Reads the latents of both prompts, two forward passes; those at special tokens do not count. */
export async function latentDifferences(
  { model, directed: { base, source, places } }: PatchingSetting,
  { sae, hook, allowMismatch }: LatentPatchingOptions,
): Promise<LatentDifferences> {
  const { input, output } = hooksForSae(model, sae, hook, { allowMismatch });
  const special = model.tokenizer.specialTokenIds;
  using sourceInput = await model.activations([source], input);
  using baseInput = await model.activations([base], input);
  const given = await activationsByLatent(sae, sourceInput, source, special);
  const own = await activationsByLatent(sae, baseInput, base, special);
  const scales = await outputScales(sae, baseInput);
  const differences = new Map<number, Map<number, number>>();
  for (const latent of [...new Set([...given.keys(), ...own.keys()])].sort((a, b) => a - b)) {
    const found = new Map<number, number>();
    for (const [position, place] of places) {
      const difference = (given.get(latent)?.[place.source] ?? 0) - (own.get(latent)?.[place.base] ?? 0);
      if (difference !== 0) found.set(position, difference * scales[place.base]!);
    }
    if (found.size > 0) differences.set(latent, found);
  }
  return { output, differences };
}

/** Latents by how much what they write differs, Σ |difference| times the norm of the decoder's row, largest first. */
export async function latentsByDifference(sae: Sae, { differences }: LatentDifferences): Promise<readonly number[]> {
  using norms = sae.device.kernels.rowNorms(sae.parameters.decoder);
  const norm = await norms.readFloat32();
  const strength = new Map(
    Array.from(differences, ([latent, at]) => [
      latent,
      norm[latent]! * [...at.values()].reduce((sum, value) => sum + Math.abs(value), 0),
    ]),
  );
  return [...strength.keys()].sort((a, b) => strength.get(b)! - strength.get(a)! || a - b);
}
