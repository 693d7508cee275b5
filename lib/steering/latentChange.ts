import { checkLatents } from "../analysis/latentWriting.js";
import { checkOptions, kindOf, refuseArgument } from "../checkArguments.js";
import type { Kernels } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";

/**
 * What becomes of one latent, or of several: its value v becomes `scale` v; `set`; the nearest number within `clamp`; or
 * v + `add`, which adds so much of its decoder direction whether it fires or not. `scale: 0` ablates.
 */
export type LatentChange = { readonly latent: number | readonly number[] } & (
  | { readonly scale: number }
  | { readonly set: number }
  | { readonly clamp: readonly [lowest: number, highest: number] }
  | { readonly add: number }
);

const ways = { scale: true, set: true, clamp: true, add: true } as const;

/** The latents that changes touch, each once, in order of appearance. */
export function changedLatents(changes: readonly LatentChange[]): readonly number[] {
  return [...new Set(changes.flatMap(({ latent }) => latent))];
}

/**
 * @throws MonosemError ERR_INVALID_ARGUMENT for a latent that the SAE does not have, for one named twice in a change and
 *   for none; for a change of none or several of the ways; for numbers that are not finite (a clamp may be open: ±Infinity) and a clamp whose ends are swapped
 */
export function checkChanges(changes: readonly LatentChange[], dSae: number): void {
  if (!Array.isArray(changes)) refuseArgument("changes", "a list of changes of latents", changes);
  if (changes.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no changes of latents were given");
  for (const change of changes) {
    checkOptions("a change of latents", change, { latent: true, ...ways });
    checkLatents([change.latent].flat(), dSae);
    const [way, second] = Object.keys(ways).filter((name) => name in change);
    if (way === undefined || second !== undefined) {
      const found = way === undefined ? "none of them" : `${way} and ${second}`;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `a change has one of scale, set, clamp and add, found ${found}`);
    }
    if ("clamp" in change) {
      if (!Array.isArray(change.clamp)) refuseArgument("clamp", "two numbers, the lower one first", change.clamp);
      const [lowest, highest] = change.clamp;
      const areNumbers = change.clamp.length === 2 && typeof lowest === "number" && typeof highest === "number";
      if (areNumbers && lowest <= highest && lowest < Number.POSITIVE_INFINITY && highest > Number.NEGATIVE_INFINITY)
        continue;
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `a clamp is two numbers, the lower one first, found ${areNumbers ? `${lowest} and ${highest}` : `${kindOf(lowest)} and ${kindOf(highest)}`}`,
      );
    }
    const [name, value] =
      "scale" in change ? ["scale", change.scale] : "set" in change ? ["set", change.set] : ["add", change.add];
    if (!Number.isFinite(value)) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be a finite number, found ${kindOf(value)}`);
    }
  }
}

/**
 * Applies changes, one after the other.
 *
 * @param columns - values of latents, [rows, latents.length]
 * @returns the same, changed; the caller's to dispose
 */
export function changeColumns(
  kernels: Kernels,
  columns: Tensor,
  latents: readonly number[],
  changes: readonly LatentChange[],
): Tensor {
  const changed = kernels.scale(columns, 1);
  for (const change of changes) {
    for (const latent of [change.latent].flat()) {
      const place = latents.indexOf(latent);
      using column = kernels.sliceColumns(changed, place, 1);
      changeInPlace(kernels, column, change);
      kernels.copyColumns(column, changed, place);
    }
  }
  return changed;
}

function changeInPlace(kernels: Kernels, column: Tensor, change: LatentChange): void {
  if ("scale" in change) kernels.scale(column, change.scale, { out: column });
  else if ("set" in change) kernels.fill(column, change.set);
  else if ("add" in change) addConstant(kernels, column, change.add);
  else {
    const [lowest, highest] = change.clamp;
    if (lowest !== Number.NEGATIVE_INFINITY) raiseTo(kernels, column, lowest, 1);
    if (highest !== Number.POSITIVE_INFINITY) raiseTo(kernels, column, highest, -1);
  }
}

/** max(x, bound), or with sign -1 min(x, bound): each number is one of the two, without a sum that would round. */
function raiseTo(kernels: Kernels, column: Tensor, bound: number, sign: 1 | -1): void {
  using gap = kernels.scale(column, -sign);
  addConstant(kernels, gap, sign * bound);
  using isBeyond = kernels.activation(gap, "heaviside");
  using ones = kernels.scale(isBeyond, 0);
  addConstant(kernels, ones, 1);
  using isWithin = kernels.add(ones, isBeyond, { scale: -1 });
  kernels.multiply(column, isWithin, { out: column });
  kernels.add(column, isBeyond, { scale: bound, out: column });
}

function addConstant(kernels: Kernels, column: Tensor, value: number): void {
  using row = column.device.tensor(Float32Array.of(value), [1]);
  kernels.addRow(column, row, { out: column });
}
