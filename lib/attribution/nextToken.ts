/** What a language model's next token is to be scored by, and the scores of texts by it. */

import { requireModel } from "../analysis/checkPair.js";
import { quotedText } from "../analysis/visibleText.js";
import { checkOneOf, checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import type { Tokenizer } from "../models/tokenizer.js";

/** Of the next token after the last one; logarithms are natural. */
export type NextTokenMeasure =
  | { readonly kind: "logit-difference"; readonly token: number; readonly against: number }
  | { readonly kind: "probability" | "log-probability"; readonly token: number };

/** @internal */
export const measureKinds: Readonly<Record<NextTokenMeasure["kind"], true>> = {
  "logit-difference": true,
  probability: true,
  "log-probability": true,
};

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is no object or of no kind that is known */
export function checkMeasure(what: string, measure: unknown, kinds: Readonly<Record<string, true>>): void {
  if (typeof measure !== "object" || measure === null) refuseArgument(what, "an object with a kind", measure);
  checkOneOf(`${what}: kind`, (measure as { readonly kind?: unknown }).kind, kinds);
}

export interface TextScoreOptions {
  /** Run with the model on every text. */
  readonly hooks?: readonly NamedHook[];
  /** Begin each text with BOS; by default done where the model has one. */
  readonly prependBos?: boolean;
}

/**
 * The id of a text that is one token, as it stands within a text: most words begin with their space.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a text of no or several tokens
 */
export function singleToken(tokenizer: Tokenizer, text: string): number {
  const ids = idsWithin(tokenizer, text);
  if (ids.length === 1) return ids[0]!;
  const pieces = tokenizer.tokenTexts(ids).map((piece) => quotedText(piece));
  const asWord = ` ${text}`;
  const hint =
    idsWithin(tokenizer, asWord).length === 1
      ? `; as a word within a text, ${JSON.stringify(asWord)}, it is one`
      : "; to score how such a text begins, give the first of these";
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `${JSON.stringify(text)} is ${ids.length} tokens (${pieces.join(", ")}), but a next token is one${ids.length === 0 ? "" : hint}`,
  );
}

/** Ids of a text without the space that some tokenizers put in front of every text, where it is a token of its own. */
function idsWithin(tokenizer: Tokenizer, text: string): readonly number[] {
  const ids = tokenizer.encode(text);
  const [first, ...rest] = ids.map((id) => tokenizer.tokenBytes(id));
  const spaceAdded = first?.length === 1 && first[0] === 0x20 && Buffer.concat(rest).equals(Buffer.from(text));
  return spaceAdded ? ids.slice(1) : ids;
}

/** The token that the model finds likeliest after these, the lowest id among equals. */
export async function likeliestToken(
  model: HookedTransformer,
  tokens: readonly number[],
  signal?: AbortSignal,
): Promise<number> {
  using logits = await model.forward([tokens], { lastPositionOnly: true, ...(signal === undefined ? {} : { signal }) });
  const values = await logits.readFloat32();
  return values.reduce((best, value, token) => (value > values[best]! ? token : best), 0);
}

const optionNames: OptionNames<TextScoreOptions> = {
  hooks: true,
  prependBos: "boolean",
};

/**
 * A function of texts for LIME and SHAP (`WordPlayers.game`), or anything else: how likely the model finds a token next.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for what is no model and a measure of no kind that is known
 * @returns the scores of texts; it throws MonosemError ERR_INVALID_ARGUMENT for a text without a single token, and what
 *   the model's `forward` throws
 */
export function textScores(
  model: HookedTransformer,
  measure: NextTokenMeasure,
  options: TextScoreOptions = {},
): (texts: readonly string[], signal?: AbortSignal) => Promise<Float64Array> {
  checkOptions("textScores", options, optionNames);
  requireModel(model);
  checkMeasure("measure", measure, measureKinds);
  const { bosTokenId } = model.config;
  const { hooks = [], prependBos = bosTokenId !== undefined } = options;
  if (prependBos && bosTokenId === undefined) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `prependBos: the model ${model.config.name} has no BOS token`);
  }
  return (texts, signal) => {
    const sequences = texts.map((text) => {
      const ids = model.tokenizer.encode(text);
      return prependBos ? [bosTokenId!, ...ids] : ids;
    });
    return sequenceScores(model, sequences, measure, { hooks, signal });
  };
}

/** Rows of logits that are on the device at a time. */
const MOST_ROWS = 512;

/** The scores of token sequences of any lengths: those of one length run together. */
export async function sequenceScores(
  model: HookedTransformer,
  sequences: readonly (readonly number[])[],
  measure: NextTokenMeasure,
  { hooks, signal }: { readonly hooks: readonly NamedHook[]; readonly signal: AbortSignal | undefined },
): Promise<Float64Array> {
  const byLength = new Map<number, number[]>();
  sequences.forEach(({ length }, index) => {
    byLength.set(length, [...(byLength.get(length) ?? []), index]);
  });
  const scores = new Float64Array(sequences.length);
  for (const [length, indices] of byLength) {
    if (length === 0) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the model ${model.config.name} cannot say what follows a text of no tokens: begin texts with BOS, or replace what is removed`,
      );
    }
    const most = sequencesAtOnce(length);
    for (let first = 0; first < indices.length; first += most) {
      const batch = indices.slice(first, first + most);
      const found = await batchScores(
        model,
        batch.map((index) => sequences[index]!),
        measure,
        { hooks, signal },
      );
      batch.forEach((index, i) => {
        scores[index] = found[i]!;
      });
    }
  }
  return scores;
}

/** Sequences of that length that run together. */
export function sequencesAtOnce(length: number): number {
  return Math.max(1, Math.floor(MOST_ROWS / length));
}

/** The scores of sequences of one length, in one run. */
export async function batchScores(
  model: HookedTransformer,
  sequences: readonly (readonly number[])[],
  measure: NextTokenMeasure,
  { hooks, signal }: { readonly hooks: readonly NamedHook[]; readonly signal: AbortSignal | undefined },
): Promise<Float64Array> {
  throwIfAborted(signal, "the attribution");
  const lastPositionOnly = true;
  using logits = await model.forward(sequences, {
    hooks,
    lastPositionOnly,
    ...(signal === undefined ? {} : { signal }),
  });
  using rows = rowsOfLast(logits);
  return await measured(rows, measure);
}

/** Logits of last positions only, [batch, 1, vocabulary], as rows [batch, vocabulary]; the caller's to dispose. */
export function rowsOfLast(logits: Tensor): Tensor {
  const [batch = 0, , vocabulary = 0] = logits.shape;
  return logits.reshape([batch, vocabulary]);
}

/**
 * The measure of each row of logits [rows, vocabulary].
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a measure of no kind that is known and a token that is not in the vocabulary
 */
export async function measured(logits: Tensor, measure: NextTokenMeasure): Promise<Float64Array> {
  checkMeasure("measure", measure, measureKinds);
  const { kernels } = logits.device;
  const vocabulary = logits.shape[1]!;
  const column = async (values: Tensor, token: number): Promise<Float64Array> => {
    if (!(Number.isInteger(token) && token >= 0 && token < vocabulary)) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `token ${String(token)} is not in the vocabulary of ${vocabulary}`,
      );
    }
    using part = kernels.sliceColumns(values, token, 1);
    return Float64Array.from(await part.readFloat32());
  };
  if (measure.kind === "logit-difference") {
    const [target, against] = [await column(logits, measure.token), await column(logits, measure.against)];
    return target.map((logit, i) => logit - against[i]!);
  }
  using logProbabilities = kernels.logSoftmax(logits);
  const found = await column(logProbabilities, measure.token);
  return measure.kind === "probability" ? found.map(Math.exp) : found;
}

/** What is measured, in words; tokens stand in quotes. */
export function measureText(tokenizer: Tokenizer, measure: NextTokenMeasure): string {
  const name = (token: number): string => quotedText(tokenizer.tokenText(token));
  if (measure.kind !== "logit-difference") return `${measure.kind} of ${name(measure.token)}`;
  return `logit of ${name(measure.token)} minus logit of ${name(measure.against)}`;
}
