import { setImmediate as otherWork } from "node:timers/promises";
import { checkOptions, kindOf, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { conjugateGradients, dot, norm } from "./conjugateGradients.js";
import type { FeatureMatrix } from "./featureMatrix.js";
import { type Products, Standardised } from "./standardised.js";

/** A direction in the space of the features, and where the classes part along it: positive where w x + b > 0. */
export interface LinearProbe {
  /** w [columns], in the units of the features: standardisation is undone. */
  readonly weights: Float64Array;
  /** b */
  readonly bias: number;
}

export type ProbeKind = "logistic" | "ridge";

export interface FitOptions {
  /**
   * λ, of which λ/2 |w|² is added to the summed log loss (scikit-learn's 1 / C), or λ |w|² to the summed squared error
   * (its alpha). The bias is free, unless `penaliseBias` is set.
   */
  readonly penalty: number;
  /** Fit to features of mean 0 and deviation 1, so that the penalty means the same for all of them; by default done. */
  readonly standardise?: boolean;
  /** Penalise a logistic probe's bias like a weight, as weight decay does that spares none. Default false. */
  readonly penaliseBias?: boolean | undefined;
  /** How much each row counts in a logistic probe's loss, above 0; by default 1 each. See `balancedWeights`. */
  readonly rowWeights?: Float64Array | undefined;
  /** Where the search for a logistic probe begins, such as at that for a similar penalty; it changes the time alone. */
  readonly start?: LinearProbe | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * w x + b of every row.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH for a probe of another number of features; ERR_INVALID_ARGUMENT for one without a bias
 */
export function probeScores({ weights, bias }: LinearProbe, features: FeatureMatrix): Float64Array {
  if (!Number.isFinite(bias)) refuseArgument("probeScores: the probe's bias", "a finite number", bias);
  if (weights.length !== features.columns) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `the probe was fitted to ${weights.length} features, but there are ${features.columns}`,
    );
  }
  return features.times(weights).map((value) => value + bias);
}

/**
 * Weights by which both classes count alike, and all rows together as without: scikit-learn's class_weight="balanced".
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for labels that are not 0 and 1
 */
export function balancedWeights(labels: ArrayLike<number>): Float64Array {
  checkZerosAndOnes(labels);
  const positives = countPositives(labels);
  const rows = labels.length;
  return Float64Array.from(
    { length: rows },
    (_, row) => rows / (2 * (labels[row] === 1 ? positives : rows - positives)),
  );
}

const optionNames: OptionNames<FitOptions> = {
  penalty: true,
  standardise: "boolean",
  penaliseBias: "boolean",
  rowWeights: true,
  start: true,
  signal: "signal",
};

/**
 * Logistic regression with an L2 penalty, c_r being the rows' weights:
 *
 *   Σ_r c_r log(1 + exp(-y_r (w x_r + b))) + λ/2 |w|²,  y_r = ±1
 *
 * by Newton's method with conjugate gradients, until the gradient is a 1e-10th of what it was at w = 0.
 *
 * @param labels - 1 for the positive class, 0 for the other; both must occur
 * @throws MonosemError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_ABORTED; ERR_NOT_COMPUTED where it does not converge
 */
export async function fitLogisticProbe(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  options: FitOptions,
): Promise<LinearProbe> {
  checkOptions("fitLogisticProbe", options, optionNames);
  checkLabels(labels, features.rows);
  checkPenalty(options.penalty);
  const { penalty, start, signal } = options;
  const weights = checkedWeights(options.rowWeights, features.rows);
  const biasPenalty = options.penaliseBias ? penalty : 0;
  return await fitted(features, options.standardise ?? true, async (z) => {
    const gradientAt = (parameters: Float64Array, probabilities: Float64Array): Float64Array => {
      const errors = probabilities.map((p, row) => weights[row]! * (p - labels[row]!));
      const gradient = transposedWithBias(z, errors);
      for (let i = 0; i < z.columns; i++) gradient[i]! += penalty * parameters[i]!;
      gradient[z.columns]! += biasPenalty * parameters[z.columns]!;
      return gradient;
    };
    const lossAt = (parameters: Float64Array, margins: Float64Array): number =>
      logisticLoss(margins, labels, weights, parameters, penalty) + (biasPenalty / 2) * parameters[z.columns]! ** 2;
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const positives = weights.reduce((sum, weight, row) => sum + weight * labels[row]!, 0);
    // The last parameter is b; its best value without features is what a gradient is small or large beside.
    const zero = new Float64Array(z.columns + 1);
    zero[z.columns] = Math.log(positives / (total - positives));
    const first = norm(gradientAt(zero, marginsOf(z, zero).map(sigmoid)));
    let parameters = start === undefined ? zero : inSpaceOf(z, start);
    let margins = marginsOf(z, parameters);
    let loss = lossAt(parameters, margins);
    for (let step = 0; step < MOST_STEPS; step++) {
      await otherWork();
      throwIfAborted(signal, "the fit of the probe");
      const probabilities = margins.map(sigmoid);
      const gradient = gradientAt(parameters, probabilities);
      const size = norm(gradient);
      if (size <= 1e-10 * first) return parameters;
      const curvature = probabilities.map((p, row) => weights[row]! * p * (1 - p));
      const direction = newtonStep(
        z,
        curvature,
        { penalty, biasPenalty },
        gradient,
        Math.min(0.1, Math.sqrt(size / first)),
      );
      const slope = -dot(gradient, direction);
      // Rounding of the loss must not stop a step that the gradient still asks for.
      const slack = 1e-12 * Math.abs(loss);
      let length = 1;
      for (;;) {
        const tried = parameters.map((value, i) => value - length * direction[i]!);
        const triedMargins = marginsOf(z, tried);
        const triedLoss = lossAt(tried, triedMargins);
        if (triedLoss <= loss + 1e-4 * length * slope + slack) {
          [parameters, margins, loss] = [tried, triedMargins, triedLoss];
          break;
        }
        length /= 2;
        if (length < 1e-10) refuseConvergence(size / first);
      }
    }
    throw refuseConvergence(undefined);
  });
}

const MOST_STEPS = 200;

function refuseConvergence(gradient: number | undefined): never {
  const state =
    gradient === undefined ? `after ${MOST_STEPS} steps` : `at ${gradient.toExponential(1)} of the gradient`;
  throw new MonosemError(
    "ERR_NOT_COMPUTED",
    `the logistic probe did not converge (${state}): use a larger penalty or standardised features`,
  );
}

/**
 * Ridge regression: Σ_r (y_r - w x_r - b)² + λ |w|², by conjugate gradients to rounding.
 *
 * @param targets - for two classes -1 and 1, as scikit-learn's RidgeClassifier has it; or any numbers
 * @throws MonosemError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_ABORTED
 */
export async function fitRidgeProbe(
  features: FeatureMatrix,
  targets: ArrayLike<number>,
  options: FitOptions,
): Promise<LinearProbe> {
  checkOptions("fitRidgeProbe", options, optionNames);
  checkCount(targets, features.rows);
  checkPenalty(options.penalty);
  throwIfAborted(options.signal, "the fit of the probe");
  const y = Float64Array.from(targets);
  const ones = new Float64Array(features.rows).fill(1);
  return await fitted(features, options.standardise ?? true, async (z) => {
    const right = transposedWithBias(z, y);
    return newtonStep(z, ones, { penalty: options.penalty, biasPenalty: 0 }, right, 1e-14);
  });
}

/** ±1, as ridge probes want it. */
export function signedLabels(labels: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: labels.length }, (_, row) => (labels[row] === 1 ? 1 : -1));
}

/** @throws MonosemError ERR_SHAPE_MISMATCH, ERR_INVALID_ARGUMENT for labels that are not 0 and 1, or all the same */
export function checkLabels(labels: ArrayLike<number>, rows: number): void {
  checkCount(labels, rows);
  checkZerosAndOnes(labels);
  const positives = countPositives(labels);
  if (positives === 0 || positives === rows) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `a probe tells two classes apart, but all ${rows} labels are ${positives === 0 ? 0 : 1}`,
    );
  }
}

function checkZerosAndOnes(labels: ArrayLike<number>): void {
  for (let row = 0; row < labels.length; row++) {
    if (labels[row] !== 0 && labels[row] !== 1) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `labels are 0 and 1, found ${kindOf(labels[row])} in row ${row}`);
    }
  }
}

export function countPositives(labels: ArrayLike<number>): number {
  let positives = 0;
  for (let row = 0; row < labels.length; row++) positives += labels[row]!;
  return positives;
}

function checkCount(values: ArrayLike<number>, rows: number): void {
  if (values.length !== rows) {
    throw new MonosemError("ERR_SHAPE_MISMATCH", `there are ${rows} rows of features, but ${values.length} labels`);
  }
}

export function checkedWeights(weights: Float64Array | undefined, rows: number): Float64Array {
  if (weights === undefined) return new Float64Array(rows).fill(1);
  if (weights.length === rows && weights.every((weight) => Number.isFinite(weight) && weight > 0)) return weights;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `rowWeights must be ${rows} numbers above 0, one for each row of features, found ${weights.length}`,
  );
}

function checkPenalty(penalty: number): void {
  if (Number.isFinite(penalty) && penalty > 0) return;
  throw new MonosemError("ERR_INVALID_ARGUMENT", `the penalty of a probe must be a number above 0, found ${penalty}`);
}

/** Fits in the space of the standardised features, or of the features themselves, and says what that is in the latter. */
async function fitted(
  features: FeatureMatrix,
  standardise: boolean,
  solve: (z: Products) => Promise<Float64Array>,
): Promise<LinearProbe> {
  if (!standardise) {
    const parameters = await solve(features);
    return { weights: parameters.slice(0, -1), bias: parameters.at(-1)! };
  }
  const z = new Standardised(features);
  const parameters = await solve(z);
  return z.unstandardised({ weights: parameters.subarray(0, -1), bias: parameters.at(-1)! });
}

/** A probe's parameters for z. */
function inSpaceOf(z: Products, probe: LinearProbe): Float64Array {
  const { weights, bias } = z instanceof Standardised ? z.standardised(probe) : probe;
  const parameters = new Float64Array(z.columns + 1).fill(bias);
  parameters.set(weights);
  return parameters;
}

/** (ZᵀDZ + λ on the weights)⁻¹ right, Z with a column of ones for b and D = diag(curvature). */
function newtonStep(
  z: Products,
  curvature: Float64Array,
  { penalty, biasPenalty }: { readonly penalty: number; readonly biasPenalty: number },
  right: Float64Array,
  tolerance: number,
): Float64Array {
  const diagonal = new Float64Array(z.columns + 1);
  diagonal.set(z.weightedSquares(curvature).map((square) => square + penalty));
  diagonal[z.columns] = curvature.reduce((sum, value) => sum + value, biasPenalty);
  const product = (vector: Float64Array): Float64Array => {
    const image = transposedWithBias(
      z,
      marginsOf(z, vector).map((value, row) => value * curvature[row]!),
    );
    for (let i = 0; i < z.columns; i++) image[i]! += penalty * vector[i]!;
    image[z.columns]! += biasPenalty * vector[z.columns]!;
    return image;
  };
  return conjugateGradients({ product, diagonal, right, tolerance });
}

/** Z w + b. */
function marginsOf(z: Products, parameters: Float64Array): Float64Array {
  const bias = parameters[z.columns]!;
  return z.times(parameters.subarray(0, z.columns)).map((value) => value + bias);
}

function transposedWithBias(z: Products, vector: Float64Array): Float64Array {
  const result = new Float64Array(z.columns + 1);
  result.set(z.transposedTimes(vector));
  result[z.columns] = vector.reduce((sum, value) => sum + value, 0);
  return result;
}

function logisticLoss(
  margins: Float64Array,
  labels: ArrayLike<number>,
  rowWeights: Float64Array,
  parameters: Float64Array,
  penalty: number,
): number {
  const weights = parameters.subarray(0, -1);
  return margins.reduce(
    (sum, margin, row) => sum + rowWeights[row]! * logLoss(margin, labels[row]!),
    (penalty / 2) * dot(weights, weights),
  );
}

/** -log of the probability that a logistic probe gives to the label, from its w x + b. */
export function logLoss(margin: number, label: number): number {
  const signed = label === 1 ? margin : -margin;
  return Math.max(0, -signed) + Math.log1p(Math.exp(-Math.abs(signed)));
}

export function sigmoid(margin: number): number {
  return margin >= 0 ? 1 / (1 + Math.exp(-margin)) : Math.exp(margin) / (1 + Math.exp(margin));
}
