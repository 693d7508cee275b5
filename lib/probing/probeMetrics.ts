import { MonosemError } from "../errors.js";
import { checkLabels, countPositives } from "./linearProbe.js";

/** How well scores tell two classes apart; those above 0 say "positive". */
export interface ProbeMetrics {
  readonly rows: number;
  readonly positives: number;
  readonly accuracy: number;
  /** The probability that a positive's score is above a negative's, ties counting half. */
  readonly auroc: number;
  /** Harmonic mean of precision and recall; 0 where nothing positive was found. */
  readonly f1: number;
  /** Of what was called positive, the share that is; 0 where nothing was. */
  readonly precision: number;
  readonly recall: number;
}

/** @throws MonosemError ERR_SHAPE_MISMATCH; ERR_INVALID_ARGUMENT for labels of one class; ERR_NON_FINITE for a score that is NaN */
export function probeMetrics(scores: Float64Array, labels: ArrayLike<number>): ProbeMetrics {
  checkLabels(labels, scores.length);
  const wrong = scores.findIndex((score) => Number.isNaN(score));
  if (wrong !== -1) throw new MonosemError("ERR_NON_FINITE", `the score of row ${wrong} is NaN`);
  const rows = scores.length;
  const positives = countPositives(labels);
  let [hits, called] = [0, 0];
  scores.forEach((score, row) => {
    if (score <= 0) return;
    called += 1;
    hits += labels[row]!;
  });
  const right = hits + (rows - positives - (called - hits));
  return {
    rows,
    positives,
    accuracy: right / rows,
    auroc: areaUnderCurve(scores, labels, positives),
    f1: (2 * hits) / (called + positives),
    precision: called === 0 ? 0 : hits / called,
    recall: hits / positives,
  };
}

/** From the sum of the positives' ranks (Mann and Whitney 1947); equal scores share the mean of their ranks. */
function areaUnderCurve(scores: Float64Array, labels: ArrayLike<number>, positives: number): number {
  const order = Array.from(scores.keys()).sort((a, b) => scores[a]! - scores[b]!);
  let rankSum = 0;
  for (let first = 0; first < order.length; ) {
    let end = first + 1;
    while (end < order.length && scores[order[end]!] === scores[order[first]!]) end += 1;
    const meanRank = (first + 1 + end) / 2;
    for (let i = first; i < end; i++) rankSum += labels[order[i]!] === 1 ? meanRank : 0;
    first = end;
  }
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * (scores.length - positives));
}
