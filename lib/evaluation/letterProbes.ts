import type { FeatureMatrix } from "../probing/featureMatrix.js";
import { fitL1LogisticProbe } from "../probing/l1LogisticProbe.js";
import { balancedWeights, fitLogisticProbe, type LinearProbe, probeScores } from "../probing/linearProbe.js";
import { probeMetrics } from "../probing/probeMetrics.js";

/** Examples of several classes, split. */
export interface ClassSplit {
  readonly train: FeatureMatrix;
  readonly test: FeatureMatrix;
  /** Class of each row, 0 to `classes` - 1. */
  readonly trainClasses: ArrayLike<number>;
  readonly testClasses: ArrayLike<number>;
}

export interface ClassProbe {
  readonly probe: LinearProbe;
  /** Of the test rows; above 0 the probe says that the row is of the class. */
  readonly testScores: Float64Array;
  readonly f1: number;
}

/** The weights by which rows of a class count as much as all others together, which count 1 each. */
function positiveWeights(labels: Uint8Array): Float64Array {
  const positives = labels.reduce((sum, label) => sum + label, 0);
  return Float64Array.from(labels, (label) => (label === 1 ? (labels.length - positives) / positives : 1));
}

/** Weight decay of SAEBench's probes, which minimise the mean loss over all rows and classes. */
const PROBE_WEIGHT_DECAY = 1e-4;

/**
 * A logistic probe that tells one class from the others: the one that SAEBench's gradient descent goes towards.
 *
 * @returns undefined where the class lacks examples to train on or to test on
 * @throws MonosemError as `fitLogisticProbe`
 */
export async function classProbe(
  split: ClassSplit,
  index: number,
  { classes, signal }: { readonly classes: number; readonly signal?: AbortSignal | undefined },
): Promise<ClassProbe | undefined> {
  const labels = labelsOf(split, index);
  if (labels === undefined) return undefined;
  const probe = await fitLogisticProbe(split.train, labels.train, {
    penalty: PROBE_WEIGHT_DECAY * classes * split.train.rows,
    penaliseBias: true,
    rowWeights: positiveWeights(labels.train),
    standardise: false,
    signal,
  });
  const testScores = probeScores(probe, split.test);
  return { probe, testScores, f1: probeMetrics(testScores, labels.test).f1 };
}

export interface SplitOptions {
  /** Of the sparse probe that ranks the latents, on the mean loss. SAEBench's is 0.01. */
  readonly l1Penalty: number;
  /** By how much F1 must grow for a further latent to count as a split of the concept. SAEBench's is 0.03. */
  readonly f1Jump: number;
  /** Most latents that a concept may be split into. SAEBench's is 10. */
  readonly mostLatents: number;
  readonly signal?: AbortSignal | undefined;
}

/** The latents that a class is split into. */
export interface SplitLatents {
  /** What tells most first. */
  readonly latents: readonly number[];
  /** F1 of probes on the first 1, 2, ... of them, and at last on one more, which brought too little. */
  readonly f1: readonly number[];
}

/**
 * The main latents of a class: those of the largest weights in a sparse probe of all latents, as many as make a probe of
 * these alone better by `f1Jump` each.
 *
 * @param split - of latents
 * @returns undefined where the class lacks examples
 * @throws MonosemError as `fitL1LogisticProbe` and `fitLogisticProbe`
 */
export async function splitLatents(
  split: ClassSplit,
  index: number,
  { l1Penalty, f1Jump, mostLatents, signal }: SplitOptions,
): Promise<SplitLatents | undefined> {
  const labels = labelsOf(split, index);
  if (labels === undefined) return undefined;
  const { weights } = await fitL1LogisticProbe(split.train, labels.train, {
    penalty: l1Penalty,
    rowWeights: positiveWeights(labels.train),
    signal,
  });
  const ranked = Array.from(weights.keys()).sort((a, b) => weights[b]! - weights[a]! || a - b);
  const f1: number[] = [];
  let latents: readonly number[] = [];
  for (let k = 1; k <= Math.min(mostLatents, ranked.length); k++) {
    const tried = ranked.slice(0, k);
    const probe = await fitLogisticProbe(split.train.selectColumns(tried), labels.train, {
      penalty: 1,
      rowWeights: balancedWeights(labels.train),
      standardise: false,
      signal,
    });
    f1.push(probeMetrics(probeScores(probe, split.test.selectColumns(tried)), labels.test).f1);
    if (k > 1 && f1[k - 1]! <= f1[k - 2]! + f1Jump) break;
    latents = tried;
  }
  return { latents, f1 };
}

function labelsOf(
  { trainClasses, testClasses }: ClassSplit,
  index: number,
): { readonly train: Uint8Array; readonly test: Uint8Array } | undefined {
  const [train, test] = [trainClasses, testClasses].map((classes) =>
    Uint8Array.from(classes, (found) => (found === index ? 1 : 0)),
  );
  const enough = [train!, test!].every((labels) => labels.includes(1) && labels.includes(0));
  return enough ? { train: train!, test: test! } : undefined;
}
