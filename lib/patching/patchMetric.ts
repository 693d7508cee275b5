import {
  checkMeasure,
  measured,
  measureKinds,
  measureText,
  type NextTokenMeasure,
  rowsOfLast,
} from "../attribution/nextToken.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Tokenizer } from "../models/tokenizer.js";

/**
 * What is looked at in a run: a measure of the next token after the prompt; `kl-divergence`, how far the distribution of
 * the next token is from that of the clean run, KL(clean || run) in nats; or any function of the logits [batch,
 * positions, vocabulary], which gives a number for each sequence and leaves the tensor to its owner.
 */
export type PatchMetric =
  | NextTokenMeasure
  | { readonly kind: "kl-divergence" }
  | ((logits: Tensor) => ArrayLike<number> | Promise<ArrayLike<number>>);

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is no metric */
export function checkMetric(metric: unknown): asserts metric is PatchMetric {
  if (typeof metric === "function") return;
  checkMeasure("metric", metric, { ...measureKinds, "kl-divergence": true });
}

/** Whether the metric looks at the next token after the prompt alone. */
export function looksAtLastPosition(metric: PatchMetric): boolean {
  return typeof metric !== "function";
}

/** The metric of each sequence of logits [batch, positions, vocabulary], [batch, 1, vocabulary] if it `looksAtLastPosition`. */
export type Scorer = (logits: Tensor) => Promise<Float64Array>;

/**
 * @param clean - logits of the clean prompt, as those to score, which must outlive the scorer
 * @returns a scorer that throws MonosemError ERR_SHAPE_MISMATCH for a function that gives another number of scores,
 *   ERR_NON_FINITE for a score that is NaN or infinite, ERR_INVALID_ARGUMENT for a token that is not in the vocabulary
 */
export function scorerOf(metric: PatchMetric, clean: Tensor): Scorer {
  return async (logits) => {
    const scores = Float64Array.from(await scoresOf(metric, clean, logits));
    if (scores.length !== logits.shape[0]) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `the metric was asked for the scores of ${logits.shape[0]} sequences, but gave ${scores.length}`,
      );
    }
    const wrong = scores.find((score) => !Number.isFinite(score));
    if (wrong !== undefined) throw new MonosemError("ERR_NON_FINITE", `the metric of a patched run is ${wrong}`);
    return scores;
  };
}

async function scoresOf(metric: PatchMetric, clean: Tensor, logits: Tensor): Promise<ArrayLike<number>> {
  if (typeof metric === "function") return await metric(logits);
  using last = rowsOfLast(logits);
  if (metric.kind !== "kl-divergence") return await measured(last, metric);
  const { device } = logits;
  using cleanLast = rowsOfLast(clean);
  using zeros = device.tensor(new Int32Array(last.shape[0]!), [last.shape[0]!]);
  using repeated = device.kernels.gatherRows(cleanLast, zeros);
  using divergences = device.kernels.klDivergence(repeated, last);
  return await divergences.readFloat32();
}

/** The metric in words. */
export function metricText(tokenizer: Tokenizer, metric: PatchMetric): string {
  if (typeof metric === "function") return metric.name === "" ? "a function of the logits" : metric.name;
  if (metric.kind === "kl-divergence") return "KL divergence of the next token from the clean run";
  return measureText(tokenizer, metric);
}
