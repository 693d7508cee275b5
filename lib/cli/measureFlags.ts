import { likeliestToken, type NextTokenMeasure, singleToken } from "../attribution/nextToken.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";

/** Texts of single tokens. */
export interface MeasureFlags {
  readonly target?: string;
  readonly against?: string;
}

/**
 * What `--target` and `--against` ask for: the difference of their logits, or the probability of the one, by default of
 * the token that is the likeliest after `tokens`.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a text that is not one token
 */
export async function measureOf(
  model: HookedTransformer,
  tokens: readonly number[],
  { target, against }: MeasureFlags,
  signal: AbortSignal,
): Promise<NextTokenMeasure> {
  const token =
    target === undefined ? await likeliestToken(model, tokens, signal) : singleToken(model.tokenizer, target);
  if (against === undefined) return { kind: "probability", token };
  return { kind: "logit-difference", token, against: singleToken(model.tokenizer, against) };
}
