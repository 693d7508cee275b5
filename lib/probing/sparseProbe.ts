import { checkOptions } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { FeatureMatrix } from "./featureMatrix.js";
import { checkLabels, countPositives } from "./linearProbe.js";
import { type ProbeOptions, type ProbeOutcome, probeOptions, probeSplit } from "./probe.js";
import { stratifiedSplit } from "./stratified.js";

/** A probe that sees k features only. */
export interface SparseProbeOutcome extends ProbeOutcome {
  /** Those features, the most different between the classes first; `probe.weights` are theirs, in this order. */
  readonly features: readonly number[];
}

/**
 * k-sparse probing (Gurnee et al. 2023, arXiv:2305.01610; sparse probing in SAEBench): for each k, the k features whose
 * means differ most between the classes of the training part, and a probe on these alone. How soon it becomes as good as
 * one on all features tells whether single latents stand for the concept.
 *
 * @param ks - integers from 1 to the number of features
 * @throws MonosemError as `probe`
 */
export async function sparseProbes(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  ks: readonly number[],
  options: ProbeOptions = {},
): Promise<readonly SparseProbeOutcome[]> {
  checkOptions("sparseProbes", options, probeOptions);
  checkLabels(labels, features.rows);
  for (const k of ks) {
    if (Number.isInteger(k) && k >= 1 && k <= features.columns) continue;
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `k must be an integer from 1 to the ${features.columns} features, found ${k}`,
    );
  }
  const { testFraction = 0.2, seed = 0 } = options;
  const split = await stratifiedSplit(labels, testFraction, seed);
  const ranked = rankByMeanDifference(
    features.selectRows(split.train),
    Array.from(split.train, (row) => labels[row]!),
  );
  const outcomes: SparseProbeOutcome[] = [];
  for (const k of ks) {
    const chosen = ranked.slice(0, k);
    outcomes.push({ features: chosen, ...(await probeSplit(features.selectColumns(chosen), labels, split, options)) });
  }
  return outcomes;
}

/** All features by |mean of the positives - mean of the negatives|, largest first, of equals the lower number first. */
export function rankByMeanDifference(features: FeatureMatrix, labels: ArrayLike<number>): number[] {
  const positives = countPositives(labels);
  const weights = Float64Array.from({ length: features.rows }, (_, row) =>
    labels[row] === 1 ? 1 / positives : -1 / (features.rows - positives),
  );
  const difference = features.transposedTimes(weights).map(Math.abs);
  return Array.from(difference.keys()).sort((a, b) => difference[b]! - difference[a]! || a - b);
}
