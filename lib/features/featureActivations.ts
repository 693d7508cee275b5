import { checkContexts, type PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

export interface FeatureActivationOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly text: string;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
}

/** A text, and the latents that are active on it. */
export interface FeatureActivations {
  /** Ids, special tokens left out. */
  readonly tokens: Int32Array;
  readonly texts: readonly string[];
  /** In ascending order. */
  readonly latents: readonly LatentOnText[];
}

export interface LatentOnText {
  readonly latent: number;
  /** On each of `tokens`; 0 where it is not active. */
  readonly activations: Float32Array;
  /** The token on which its activation is the strongest, of equals the first. */
  readonly peak: number;
  /** There; negative where the architecture lets it be. */
  readonly activation: number;
}

/**
 * The activations of all latents of an SAE on a text. The text begins with BOS as in the SAE's training, or where that is
 * not known if the model has one; special tokens are left out of the result.
 *
 * @throws MonosemError ERR_CONFIG if model, hook, SAE and text do not belong together; ERR_INVALID_ARGUMENT for a text
 * without tokens or one longer than the model's context; ERR_NON_FINITE
 */
export async function featureActivations(options: FeatureActivationOptions): Promise<FeatureActivations> {
  const { model } = options;
  const { prependBos = true } = options.sae.metadata;
  const encoded = model.tokenizer.encode(options.text);
  if (prependBos && model.config.bosTokenId !== undefined) encoded.unshift(model.config.bosTokenId);
  return await tokenActivations({ ...options, tokens: Int32Array.from(encoded) });
}

/** As `featureActivations`, of tokens. */
export async function tokenActivations(
  options: Omit<FeatureActivationOptions, "text"> & { readonly tokens: Int32Array },
): Promise<FeatureActivations> {
  const { sae, model, tokens: all } = options;
  const { tokenizer } = model;
  const { input } = hooksForSae(model, sae, options.hook, options);
  if (!options.allowMismatch && all.length > 0) checkContexts(model, sae, [all]);
  using x = await model.activations([all], input);
  using codes = sae.encode(x);
  const { rowOffsets, features, values } = await codes.read();
  const rows = Array.from(all.keys()).filter((row) => !tokenizer.specialTokenIds.has(all[row]!));
  const found = new Map<number, Float32Array>();
  for (const [index, row] of rows.entries()) {
    for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
      const [latent, value] = [features[entry]!, values[entry]!];
      if (value === 0) continue; // selected, but not active
      if (!Number.isFinite(value)) {
        throw new MonosemError("ERR_NON_FINITE", `latent ${latent} has activation ${value} at token ${row}`);
      }
      const activations = found.get(latent) ?? new Float32Array(rows.length);
      activations[index] = value;
      found.set(latent, activations);
    }
  }
  const latents = [...found].map(([latent, activations]) => {
    const peak = activations.reduce(
      (best, value, index) => (Math.abs(value) > Math.abs(activations[best]!) ? index : best),
      0,
    );
    return { latent, activations, peak, activation: activations[peak]! };
  });
  const tokens = Int32Array.from(rows, (row) => all[row]!);
  return { tokens, texts: tokenizer.tokenTexts(tokens), latents: latents.sort((a, b) => a.latent - b.latent) };
}
