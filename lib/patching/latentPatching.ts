import { requirePair } from "../analysis/checkPair.js";
import { checkLatents } from "../analysis/latentWriting.js";
import { checkOptions } from "../checkArguments.js";
import { type Addition, directionHooks } from "./directionHooks.js";
import {
  type LatentDifferences,
  type LatentPatchingOptions,
  latentDifferences,
  latentPatchingOptions,
} from "./latentDifferences.js";
import {
  checkNotEmpty,
  type PatchHooks,
  type PatchingResult,
  type PatchingSetting,
  patchedScores,
  resultOf,
  withSetting,
} from "./patchedRuns.js";
import { checkPositions } from "./patchRows.js";

/** Latents of an SAE that are exchanged together. */
export interface LatentPatch {
  readonly latents: readonly number[];
  /** Of the clean prompt; by default all that are aligned. */
  readonly positions?: readonly number[] | undefined;
}

/**
 * Activation patching of latents (Marks et al. 2024, arXiv:2403.19647): the latents named take the values that they have
 * in the source run. All else stays, the SAE's error too, so that a patch that changes nothing leaves the run as it was.
 *
 * @param patches - a list, or a function that makes it from how the latents differ
 * @returns scores and effects in the order of the patches, and these; 4 + patches forward passes
 * @throws MonosemError as `activationPatching` and `hooksForSae`; ERR_INVALID_ARGUMENT for a latent that the SAE does not
 *   have, for one named twice in a patch, and for none
 */
export async function latentPatching(
  patches:
    | readonly LatentPatch[]
    | ((differences: LatentDifferences) => readonly LatentPatch[] | Promise<readonly LatentPatch[]>),
  options: LatentPatchingOptions,
): Promise<PatchingResult & { readonly patches: readonly LatentPatch[] }> {
  checkOptions("latentPatching", options, latentPatchingOptions);
  const { model, sae } = options;
  requirePair(model, sae);
  return await withSetting(options, async (setting) => {
    const found = await latentDifferences(setting, options);
    const list = typeof patches === "function" ? await patches(found) : patches;
    checkNotEmpty(list);
    for (const { latents, positions } of list) {
      checkLatents(latents, sae.config.dSae);
      checkPositions(positions, setting.directed.places);
    }
    const hooksFor = (first: number, count: number): PatchHooks =>
      directionHooks(setting.model, found.output, {
        table: sae.parameters.decoder,
        additions: list.slice(first, first + count).map((patch) => additionsOf(patch, found, setting)),
        positions: setting.directed.base.length,
      });
    const scores = await patchedScores(setting, list.length, hooksFor, options);
    return { ...resultOf(setting, scores), patches: list };
  });
}

function additionsOf(
  { latents, positions }: LatentPatch,
  { differences }: LatentDifferences,
  { directed: { places } }: PatchingSetting,
): readonly Addition[] {
  return latents.flatMap((latent) =>
    Array.from(differences.get(latent) ?? [])
      .filter(([position]) => positions === undefined || positions.includes(position))
      .map(([position, amount]) => ({ position: places.get(position)!.base, direction: latent, amount })),
  );
}
