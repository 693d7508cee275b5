/**
 * A probing experiment: does a linear direction in these features tell two classes apart on examples that it has not
 * seen, and better than it could learn any other labelling of them?
 */

import { keyedPermutation } from "../activations/permutation.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { FeatureMatrix } from "./featureMatrix.js";
import {
  checkLabels,
  countPositives,
  type FitOptions,
  fitLogisticProbe,
  fitRidgeProbe,
  type LinearProbe,
  logLoss,
  type ProbeKind,
  probeScores,
  signedLabels,
} from "./linearProbe.js";
import { type ProbeMetrics, probeMetrics } from "./probeMetrics.js";
import { type Split, stratifiedFolds, stratifiedSplit } from "./stratified.js";

export interface ProbeOptions {
  readonly kind?: ProbeKind;
  /** The penalties among which cross-validation chooses; one is taken as it is. */
  readonly penalties?: readonly number[];
  readonly folds?: number;
  readonly testFraction?: number;
  /** Of the split, the folds and the control tasks. */
  readonly seed?: number;
  /**
   * What an example is an instance of, such as its word: in a control task all of a type's examples have one label
   * (Hewitt and Liang 2019, arXiv:1909.03368). By default each example is a type of its own.
   */
  readonly types?: readonly string[];
  /** Control tasks that selectivity is averaged over; 0 leaves it out. */
  readonly controlTasks?: number;
  readonly signal?: AbortSignal | undefined;
}

export const DEFAULT_PENALTIES: readonly number[] = [1e-3, 1e-2, 1e-1, 1, 10, 100, 1000];

export interface ProbeOutcome {
  readonly kind: ProbeKind;
  readonly probe: LinearProbe;
  readonly penalty: number;
  /** Mean held-out loss of each penalty: log loss, or the squared error of ±1. Empty where there was no choice. */
  readonly crossValidation: readonly { readonly penalty: number; readonly loss: number }[];
  readonly train: ProbeMetrics;
  readonly test: ProbeMetrics;
  /**
   * Test accuracy on labels that were permuted among the types, and how far the true labels' lies above it; undefined
   * where none was asked for, or the types have one label only.
   */
  readonly control: { readonly accuracy: number; readonly selectivity: number } | undefined;
}

/** @internal */
export const probeOptions: OptionNames<ProbeOptions> = {
  kind: { logistic: true, ridge: true },
  penalties: true,
  folds: true,
  testFraction: true,
  seed: true,
  types: true,
  controlTasks: true,
  signal: "signal",
};

/**
 * Splits, chooses a penalty by cross-validation within the training part, fits to all of that and measures on the test
 * part. Means and deviations for standardising, too, are those of what is fitted to, never of what is measured on.
 *
 * @param labels - 1 for the positive class, 0 for the other
 * @throws MonosemError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_NOT_COMPUTED, ERR_ABORTED
 */
export async function probe(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  options: ProbeOptions = {},
): Promise<ProbeOutcome> {
  checkOptions("probe", options, probeOptions);
  checkLabels(labels, features.rows);
  const { testFraction = 0.2, seed = 0 } = options;
  return await probeSplit(features, labels, await stratifiedSplit(labels, testFraction, seed), options);
}

/** As `probe`, on a split that is given. */
export async function probeSplit(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  split: Split,
  options: ProbeOptions,
): Promise<ProbeOutcome> {
  const { kind = "logistic", penalties = DEFAULT_PENALTIES, folds = 5, seed = 0, signal } = options;
  const [trainFeatures, trainLabels] = [features.selectRows(split.train), pick(labels, split.train)];
  const crossValidation =
    penalties.length === 1
      ? []
      : await crossValidate(trainFeatures, trainLabels, await stratifiedFolds(trainLabels, folds, seed), {
          kind,
          penalties,
          signal,
        });
  const best = crossValidation.reduce<(typeof crossValidation)[number] | undefined>(
    (least, tried) => (least === undefined || tried.loss < least.loss ? tried : least),
    undefined,
  );
  const penalty = best?.penalty ?? penalties[0];
  if (penalty === undefined) throw new MonosemError("ERR_INVALID_ARGUMENT", "no penalties to choose from");
  const fitted = await fitKind(kind, trainFeatures, trainLabels, { penalty, signal });
  const test = probeMetrics(probeScores(fitted, features.selectRows(split.test)), pick(labels, split.test));
  return {
    kind,
    probe: fitted,
    penalty,
    crossValidation,
    train: probeMetrics(probeScores(fitted, trainFeatures), trainLabels),
    test,
    control: await controlTask(features, labels, { kind, penalty, accuracy: test.accuracy }, options),
  };
}

/**
 * The mean held-out loss of each penalty over the folds, every row counting once.
 *
 * @throws MonosemError as `probe`
 */
export async function crossValidate(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  folds: readonly Split[],
  {
    kind,
    penalties,
    signal,
  }: { readonly kind: ProbeKind; readonly penalties: readonly number[]; readonly signal?: AbortSignal | undefined },
): Promise<readonly { readonly penalty: number; readonly loss: number }[]> {
  const losses = new Float64Array(penalties.length);
  let rows = 0;
  for (const { train, test } of folds) {
    const [trainFeatures, trainLabels] = [features.selectRows(train), pick(labels, train)];
    const [testFeatures, testLabels] = [features.selectRows(test), pick(labels, test)];
    rows += test.length;
    const targets = signedLabels(testLabels);
    // From the largest down: each probe is not far from the one before.
    const order = Array.from(penalties.keys()).sort((a, b) => penalties[b]! - penalties[a]!);
    let fitted: LinearProbe | undefined;
    for (const index of order) {
      fitted = await fitKind(kind, trainFeatures, trainLabels, { penalty: penalties[index]!, start: fitted, signal });
      const scores = probeScores(fitted, testFeatures);
      losses[index]! += scores.reduce(
        (sum, score, row) =>
          sum + (kind === "logistic" ? logLoss(score, testLabels[row]!) : (score - targets[row]!) ** 2),
        0,
      );
    }
  }
  return penalties.map((penalty, index) => ({ penalty, loss: losses[index]! / rows }));
}

async function fitKind(
  kind: ProbeKind,
  features: FeatureMatrix,
  labels: Uint8Array,
  options: FitOptions,
): Promise<LinearProbe> {
  if (kind === "logistic") return await fitLogisticProbe(features, labels, options);
  return await fitRidgeProbe(features, signedLabels(labels), options);
}

async function controlTask(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  { kind, penalty, accuracy }: { readonly kind: ProbeKind; readonly penalty: number; readonly accuracy: number },
  { types, controlTasks = 5, testFraction = 0.2, seed = 0, signal }: ProbeOptions,
): Promise<ProbeOutcome["control"]> {
  let total = 0;
  let tasks = 0;
  for (let task = 0; task < controlTasks; task++) {
    const control = await controlLabels(labels, types, [seed, task, 1]);
    const positives = countPositives(control);
    if (Math.min(positives, control.length - positives) < 2) continue;
    const { train, test } = await stratifiedSplit(control, testFraction, seed);
    const fitted = await fitKind(kind, features.selectRows(train), pick(control, train), { penalty, signal });
    total += probeMetrics(probeScores(fitted, features.selectRows(test)), pick(control, test)).accuracy;
    tasks += 1;
  }
  return tasks === 0 ? undefined : { accuracy: total / tasks, selectivity: accuracy - total / tasks };
}

/**
 * Labels that have nothing to do with the examples: those of the types, permuted among them. A type's label is that of
 * most of its examples, positive if there are as many of both.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH for types of another number than labels
 */
export async function controlLabels(
  labels: ArrayLike<number>,
  types: readonly string[] | undefined,
  keys: readonly number[],
): Promise<Uint8Array> {
  if (types === undefined) {
    const order = await keyedPermutation(labels.length, keys);
    return pick(labels, order);
  }
  if (types.length !== labels.length) {
    throw new MonosemError("ERR_SHAPE_MISMATCH", `there are ${labels.length} labels, but ${types.length} types`);
  }
  const balance = new Map<string, number>();
  types.forEach((type, row) => {
    balance.set(type, (balance.get(type) ?? 0) + (labels[row] === 1 ? 1 : -1));
  });
  const names = [...balance.keys()];
  const order = await keyedPermutation(names.length, keys);
  const labelOf = new Map(names.map((name, i) => [name, balance.get(names[order[i]!]!)! >= 0 ? 1 : 0]));
  return Uint8Array.from(types, (type) => labelOf.get(type)!);
}

function pick(values: ArrayLike<number>, rows: Uint32Array): Uint8Array {
  return Uint8Array.from(rows, (row) => values[row]!);
}
