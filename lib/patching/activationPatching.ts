/**
 * Activation patching (Meng et al. 2022, arXiv:2202.05262; Heimersheim and Nanda 2024, arXiv:2404.15255): activations of
 * one prompt are put into the model's run on another, and what that does to its output tells where the difference
 * between the prompts is carried.
 */
import { checkOptions } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import type { NamedHook } from "../models/hookedTransformer.js";
import {
  checkNotEmpty,
  type PatchHooks,
  type PatchingOptions,
  type PatchingResult,
  type PatchingSetting,
  patchedScores,
  patchingOptions,
  resultOf,
  withSetting,
} from "./patchedRuns.js";
import { checkPatch, type Patch, rowLayout } from "./patchRows.js";

/**
 * Tries patches one by one; many of them go through the model as one batch, at whatever hook points they are.
 *
 * @returns scores and effects in the order of `patches`; the source run, the base run and the patched ones are
 *   3 + patches forward passes
 * @throws MonosemError as `withSetting` and `checkPatch`; ERR_INVALID_ARGUMENT for no patches; ERR_NON_FINITE for a metric
 *   that is NaN or infinite; ERR_ABORTED
 */
export async function activationPatching(patches: readonly Patch[], options: PatchingOptions): Promise<PatchingResult> {
  checkOptions("activationPatching", options, patchingOptions);
  const { model, pair, signal } = options;
  checkNotEmpty(patches);
  return await withSetting(options, async (setting) => {
    const { source, places } = setting.directed;
    const lengths = { clean: pair.clean.length, corrupted: pair.corrupted.length };
    for (const patch of patches) checkPatch(model, patch, places, lengths);
    const names = [...new Set(patches.map(({ hook }) => hook))];
    const { output, cache } = await model.runWithCache([source], {
      names,
      ...(signal === undefined ? {} : { signal }),
    });
    output.dispose();
    try {
      const hooksFor = (first: number, count: number): PatchHooks =>
        exchangingHooks(setting, cache, patches.slice(first, first + count));
      return resultOf(setting, await patchedScores(setting, patches.length, hooksFor, options));
    } finally {
      for (const activation of cache.values()) activation.dispose();
    }
  });
}

/** Hooks that put into sequence i of a batch what `patches[i]` says. */
function exchangingHooks(
  { model, directed: { places } }: PatchingSetting,
  source: ReadonlyMap<string, Tensor>,
  patches: readonly Patch[],
): PatchHooks {
  const { device } = model;
  const { kernels } = device;
  const hooks = [...new Set(patches.map(({ hook }) => hook))].map((name): NamedHook => {
    const given = source.get(name)!;
    return {
      name,
      hook: (activation) => {
        const [from, to] = [rowLayout(model, name, given.shape), rowLayout(model, name, activation.shape)];
        const [fromRows, toRows]: [number[], number[]] = [[], []];
        for (const [sequence, { hook, positions = places.keys(), heads }] of patches.entries()) {
          if (hook !== name) continue;
          for (const position of positions) {
            const place = places.get(position)!;
            for (const head of heads ?? Array.from({ length: to.heads }, (_, index) => index)) {
              fromRows.push(from.row(place.source, head));
              toRows.push(sequence * to.rows + to.row(place.base, head));
            }
          }
        }
        using table = given.reshape([from.rows, from.width]);
        using chosen = device.tensor(Int32Array.from(fromRows), [fromRows.length]);
        using moved = kernels.gatherRows(table, chosen);
        using target = device.tensor(Int32Array.from(toRows), [toRows.length]);
        using rows = activation.reshape([activation.size / to.width, to.width]);
        using patched = kernels.scale(rows, 1);
        kernels.scatterRows(moved, target, patched);
        return patched.reshape(activation.shape);
      },
    };
  });
  return { hooks, [Symbol.dispose]: () => {} };
}
