/**
 * The rows of an activation that a patch replaces. Whatever a hook point's shape, what belongs to one position (of one
 * head) is a row of numbers that lie side by side, so that exchanging activations is copying rows:
 *
 *   [batch, pos, width]              a row for each position
 *   [batch, pos, head, dHead]        one for each position and head
 *   [batch, head, queryPos, keyPos]  one for each head and query
 */
import { refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";

/** What is exchanged at a hook point. */
export interface Patch {
  readonly hook: string;
  /** Of the clean prompt; by default all that are aligned. */
  readonly positions?: readonly number[] | undefined;
  /** By default all, and the only choice where a hook point has none. */
  readonly heads?: readonly number[] | undefined;
}

/** How the rows of one sequence lie at a hook point. */
export interface RowLayout {
  readonly rows: number;
  readonly width: number;
  readonly heads: number;
  row(position: number, head: number): number;
}

/** @param shape - of an activation there, batch first */
export function rowLayout(model: HookedTransformer, hook: string, shape: readonly number[]): RowLayout {
  const width = shape.at(-1)!;
  if (model.hookShape(hook)[1] === "pos") {
    const [, positions, heads] = shape.length === 4 ? shape : [1, shape[1]!, 1];
    return { rows: positions! * heads!, width, heads: heads!, row: (position, head) => position * heads! + head };
  }
  const [, heads, positions] = shape;
  return {
    rows: heads! * positions!,
    width,
    heads: heads!,
    row: (position, head) => head * positions! + position,
  };
}

/**
 * @param aligned - positions of the clean prompt that have a counterpart
 * @param prompts - lengths of the clean and the corrupted prompt
 * @throws MonosemError ERR_NOT_FOUND for an unknown hook point; ERR_INVALID_ARGUMENT for positions that are not aligned,
 *   for heads that do not exist, for an empty list, and for patterns and scores of prompts of different lengths
 */
export function checkPatch(
  model: HookedTransformer,
  { hook, positions, heads }: Patch,
  aligned: ReadonlyMap<number, unknown>,
  prompts: { readonly clean: number; readonly corrupted: number },
): void {
  const shape = model.hookShape(hook);
  checkPositions(positions, aligned);
  if (shape.includes("keyPos") && prompts.clean !== prompts.corrupted) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `hook point ${hook} relates all positions to each other, so it can be patched between prompts of one length only, ` +
        `found ${prompts.clean} and ${prompts.corrupted} tokens`,
    );
  }
  if (heads === undefined) return;
  const count = headsOf(model, hook);
  if (count === undefined) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `hook point ${hook} has shape [${shape.join(", ")}], and no heads`);
  }
  if (!Array.isArray(heads)) refuseArgument("heads", "a list of numbers of heads", heads);
  if (heads.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", `a patch at ${hook} names no heads`);
  const unknown = heads.findIndex((head) => !Number.isInteger(head) || head < 0 || head >= count);
  if (unknown !== -1) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `hook point ${hook} has ${count} heads, numbered 0 to ${count - 1}, found ${heads[unknown]}`,
    );
  }
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for positions that are not aligned, and for an empty list */
export function checkPositions(positions: readonly number[] | undefined, aligned: ReadonlyMap<number, unknown>): void {
  if (positions === undefined) return;
  if (!Array.isArray(positions)) refuseArgument("positions", "a list of positions of the clean prompt", positions);
  if (positions.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "a patch names no positions");
  const unknown = positions.findIndex((position) => !aligned.has(position));
  if (unknown !== -1) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `position ${positions[unknown]} of the clean prompt cannot be patched; those that can: ${[...aligned.keys()].join(", ")}`,
    );
  }
}

/** The number of heads at a hook point; undefined where it has none. */
export function headsOf(model: HookedTransformer, hook: string): number | undefined {
  const shape = model.hookShape(hook);
  if (shape.includes("head")) return model.config.nHeads;
  return shape.includes("keyHead") ? model.config.nKeyValueHeads : undefined;
}
