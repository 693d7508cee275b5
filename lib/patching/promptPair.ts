import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";

/**
 * Two prompts that differ in what is to be traced: the clean one makes the model do something, the corrupted one does
 * not. Token ids, BOS included where there is one.
 */
export interface PromptPair {
  readonly clean: readonly number[];
  readonly corrupted: readonly number[];
  /**
   * Positions that correspond to each other, [of the clean prompt, of the corrupted one]; by default, in prompts of one
   * length, each to itself. Activations at other positions are not exchanged.
   */
  readonly aligned?: readonly (readonly [clean: number, corrupted: number])[] | undefined;
}

/**
 * Which position of the corrupted prompt belongs to each of the clean one.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for an empty prompt, prompts of different lengths without `aligned`, and
 *   positions that do not exist or are named twice
 */
export function alignment(pair: PromptPair): ReadonlyMap<number, number> {
  checkOptions("pair", pair, { clean: true, corrupted: true, aligned: true } satisfies OptionNames<PromptPair>);
  const { clean, corrupted, aligned } = pair;
  for (const [name, ids] of [
    ["clean", clean],
    ["corrupted", corrupted],
  ] as const) {
    if (!Array.isArray(ids)) refuseArgument(`pair: ${name}`, "a list of token ids", ids);
    if (ids.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", `the ${name} prompt has no tokens`);
  }
  if (aligned === undefined) {
    if (clean.length !== corrupted.length) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the clean prompt has ${clean.length} tokens, the corrupted one ${corrupted.length}: activations are exchanged ` +
          "position by position, so choose prompts of one length, or say which positions are aligned (on the command line with --align)",
      );
    }
    return new Map(clean.map((_, position) => [position, position]));
  }
  if (aligned.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no positions are aligned");
  for (const side of [0, 1] as const) {
    const [name, { length }] = side === 0 ? ["clean", clean] : ["corrupted", corrupted];
    const seen = new Set<number>();
    for (const pair of aligned) {
      const position = pair[side];
      if (!Number.isInteger(position) || position < 0 || position >= length) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `aligned: the ${name} prompt has positions 0 to ${length - 1}, found ${position}`,
        );
      }
      if (seen.has(position)) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `aligned: position ${position} of the ${name} prompt is named twice`,
        );
      }
      seen.add(position);
    }
  }
  return new Map(aligned);
}

/**
 * What goes where: `denoising` puts activations of the clean prompt into the run of the corrupted one (is it enough to
 * restore the behaviour?), `noising` those of the corrupted prompt into the run of the clean one (is it needed?).
 */
export type PatchingDirection = "denoising" | "noising";

/** A pair seen from a direction: the run that is patched, and the one that activations come from. */
export interface DirectedPair {
  readonly base: readonly number[];
  readonly source: readonly number[];
  /** By position of the clean prompt. */
  readonly places: ReadonlyMap<number, { readonly base: number; readonly source: number }>;
}

/** @throws MonosemError as `alignment` */
export function directed(pair: PromptPair, direction: PatchingDirection): DirectedPair {
  const denoising = direction === "denoising";
  const places = new Map(
    Array.from(alignment(pair), ([clean, corrupted]) => [
      clean,
      denoising ? { base: corrupted, source: clean } : { base: clean, source: corrupted },
    ]),
  );
  return {
    base: denoising ? pair.corrupted : pair.clean,
    source: denoising ? pair.clean : pair.corrupted,
    places,
  };
}
