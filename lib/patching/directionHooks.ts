import { addingHooks } from "../analysis/latentWriting.js";
import type { Tensor } from "../engine/tensor.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { PatchHooks } from "./patchedRuns.js";

/** `amount` times a direction, added to the activations at a position. */
export interface Addition {
  readonly position: number;
  /** A row of the table of directions. */
  readonly direction: number;
  readonly amount: number;
}

/**
 * Hooks that add to sequence i of a batch what `additions[i]` says.
 *
 * @param output - the hook points; their widths side by side are those of a direction
 * @param table - directions, [directions, width]
 * @param positions - of each sequence
 */
export function directionHooks(
  model: HookedTransformer,
  output: readonly string[],
  {
    table,
    additions,
    positions,
  }: {
    readonly table: Tensor;
    readonly additions: readonly (readonly Addition[])[];
    readonly positions: number;
  },
): PatchHooks {
  const { device } = model;
  const { kernels } = device;
  const used = [...new Set(additions.flat().map(({ direction }) => direction))];
  if (used.length === 0) return { hooks: [], [Symbol.dispose]: () => {} };
  const columnOf = new Map(used.map((direction, column) => [direction, column]));
  const amounts = new Float32Array(additions.length * positions * used.length);
  for (const [sequence, list] of additions.entries()) {
    for (const { position, direction, amount } of list) {
      amounts[(sequence * positions + position) * used.length + columnOf.get(direction)!]! += amount;
    }
  }
  using chosen = device.tensor(Int32Array.from(used), [used.length]);
  using directions = kernels.gatherRows(table, chosen);
  using weights = kernels.transpose(directions); // [width, used]
  using amountsOnDevice = device.tensor(amounts, [additions.length * positions, used.length]);
  const change = kernels.linear(amountsOnDevice, weights); // [sequences * positions, width]
  return { hooks: addingHooks(model, output, change), [Symbol.dispose]: () => change.dispose() };
}
