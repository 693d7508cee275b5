/** Runs of a prompt with something put into each of them: the part that all kinds of patching share. */
import { requireModel } from "../analysis/checkPair.js";
import { sequencesAtOnce } from "../attribution/nextToken.js";
import { type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import { checkMetric, looksAtLastPosition, type PatchMetric, type Scorer, scorerOf } from "./patchMetric.js";
import { type DirectedPair, directed, type PatchingDirection, type PromptPair } from "./promptPair.js";

export interface PatchingOptions {
  readonly model: HookedTransformer;
  readonly pair: PromptPair;
  readonly metric: PatchMetric;
  /** By default `denoising`. */
  readonly direction?: PatchingDirection | undefined;
  /** Patched runs that go through the model together; by default as many as make 512 tokens. */
  readonly batchSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly patches: number; readonly of: number }) => void) | undefined;
}

/** @internal */
export const patchingOptions: OptionNames<PatchingOptions> = {
  model: true,
  pair: true,
  metric: true,
  direction: { denoising: true, noising: true },
  batchSize: true,
  signal: "signal",
  onProgress: "function",
};

export interface PatchingResult {
  /** The metric of the clean and of the corrupted prompt. */
  readonly clean: number;
  readonly corrupted: number;
  readonly direction: PatchingDirection;
  /** The metric of each patched run. */
  readonly scores: Float64Array;
  /**
   * How far each patch takes the metric from that of the run it is put into (0) to that of the run it comes from (1). It
   * may lie below 0 and above 1.
   */
  readonly effects: Float64Array;
  /** Sequences that went through the model, those of the two prompts included. */
  readonly forwardPasses: number;
}

/** The two runs that patching starts from. */
export interface PatchingSetting {
  readonly model: HookedTransformer;
  readonly direction: PatchingDirection;
  readonly directed: DirectedPair;
  readonly score: Scorer;
  readonly clean: number;
  readonly corrupted: number;
}

/**
 * Scores the two prompts and hands over to `work`.
 *
 * @throws MonosemError as `alignment`; ERR_INVALID_ARGUMENT for what is no model or no metric, where both prompts score the same, so that no effect can be
 *   told, and for an impossible batch size; what the metric and `forward` throw
 */
export async function withSetting<Result>(
  { model, pair, metric, direction = "denoising", batchSize = 1, signal }: PatchingOptions,
  work: (setting: PatchingSetting) => Promise<Result>,
): Promise<Result & { readonly forwardPasses: number }> {
  requireModel(model);
  checkMetric(metric);
  if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `batchSize must be a positive integer, found ${batchSize}`);
  }
  const before = model.forwardPasses.sequences;
  const pairSeen = directed(pair, direction);
  const options = { lastPositionOnly: looksAtLastPosition(metric), ...(signal === undefined ? {} : { signal }) };
  using cleanLogits = await model.forward([pair.clean], options);
  using corruptedLogits = await model.forward([pair.corrupted], options);
  const score = scorerOf(metric, cleanLogits);
  const [clean] = await score(cleanLogits);
  const [corrupted] = await score(corruptedLogits);
  if (clean === corrupted) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `the metric is ${Number(clean!.toPrecision(4))} for the clean and for the corrupted prompt: with no difference there is nothing to trace`,
    );
  }
  const setting = { model, direction, directed: pairSeen, score, clean: clean!, corrupted: corrupted! };
  const result = await work(setting);
  return { ...result, forwardPasses: model.forwardPasses.sequences - before };
}

/**
 * The metric of runs of the base prompt, each with its own change.
 *
 * @param hooksFor - of the runs [first, first + count), which are the sequences 0 ... count - 1 of a batch; they are used
 *   once and disposed with the result's `dispose`
 */
export async function patchedScores(
  { model, directed: { base }, score }: PatchingSetting,
  count: number,
  hooksFor: (first: number, count: number) => PatchHooks,
  { metric, batchSize = sequencesAtOnce(base.length), signal, onProgress }: PatchingOptions,
): Promise<Float64Array> {
  const scores = new Float64Array(count);
  for (let first = 0; first < count; first += batchSize) {
    throwIfAborted(signal, "the patching");
    const runs = Math.min(batchSize, count - first);
    using patch = hooksFor(first, runs);
    using logits = await model.forward(
      Array.from({ length: runs }, () => base),
      {
        hooks: patch.hooks,
        lastPositionOnly: looksAtLastPosition(metric),
        ...(signal === undefined ? {} : { signal }),
      },
    );
    scores.set(await score(logits), first);
    onProgress?.({ patches: first + runs, of: count });
  }
  return scores;
}

/** Hooks, and the tensors that they hold. */
export interface PatchHooks extends Disposable {
  readonly hooks: readonly NamedHook[];
}

/** @throws MonosemError ERR_INVALID_ARGUMENT */
export function checkNotEmpty(patches: readonly unknown[]): void {
  if (!Array.isArray(patches)) refuseArgument("patches", "a list", patches);
  if (patches.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "there is nothing to patch: no patches");
}

/** Scores with what they mean. */
export function resultOf(
  { clean, corrupted, direction }: PatchingSetting,
  scores: Float64Array,
): Omit<PatchingResult, "forwardPasses"> {
  const [base, source] = direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
  const effects = scores.map((score) => (score - base) / (source - base));
  return { clean, corrupted, direction, scores, effects };
}
