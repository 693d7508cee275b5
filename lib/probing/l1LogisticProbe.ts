import { setImmediate as otherWork } from "node:timers/promises";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { FeatureMatrix } from "./featureMatrix.js";
import { checkedWeights, checkLabels, type LinearProbe, sigmoid } from "./linearProbe.js";

export interface L1FitOptions {
  /** λ of the penalty λ |w|₁ that is added to the mean loss. */
  readonly penalty: number;
  /** How much each row counts, above 0; by default 1 each. */
  readonly rowWeights?: Float64Array | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Of λ, how far the gradient may be from what it is at the minimum. */
const TOLERANCE = 1e-3;
const MOST_STEPS = 20_000;
const STEPS_PER_TURN = 16;

const optionNames: OptionNames<L1FitOptions> = {
  penalty: true,
  rowWeights: true,
  signal: "signal",
};

/**
 * Logistic regression with an L1 penalty, which leaves few weights other than 0: those of the features that tell most,
 * c_r being the rows' weights:
 *
 *   1/n Σ_r c_r log(1 + exp(-y_r (w x_r + b))) + λ |w|₁,  y_r = ±1
 *
 * by FISTA (Beck and Teboulle 2009) with restarts (O'Donoghue and Candès 2015), each feature scaled by its root mean
 * square, until the optimality conditions hold to a thousandth of λ. The bias is free.
 *
 * @param labels - 1 for the positive class, 0 for the other; both must occur
 * @throws MonosemError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_ABORTED; ERR_NOT_COMPUTED where it does not converge
 */
export async function fitL1LogisticProbe(
  features: FeatureMatrix,
  labels: ArrayLike<number>,
  options: L1FitOptions,
): Promise<LinearProbe> {
  checkOptions("fitL1LogisticProbe", options, optionNames);
  const { penalty, rowWeights, signal } = options;
  checkLabels(labels, features.rows);
  if (!(Number.isFinite(penalty) && penalty > 0)) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `the penalty of a probe must be a number above 0, found ${penalty}`);
  }
  const { rows, columns } = features;
  const weights = checkedWeights(rowWeights, rows).map((weight) => weight / rows);
  // In place of w the unknowns are v = scale * w, so that all features weigh alike in the step's length. The last is b.
  const scale = new Float64Array(columns + 1).fill(1);
  scale.set(features.weightedSquares(weights).map((square) => (square > 0 ? Math.sqrt(square) : 1)));
  const margins = (v: Float64Array): Float64Array => {
    const bias = v[columns]!;
    return features.times(v.subarray(0, columns).map((value, i) => value / scale[i]!)).map((value) => value + bias);
  };
  const transposed = (u: Float64Array): Float64Array => {
    const result = new Float64Array(columns + 1);
    result.set(features.transposedTimes(u).map((value, i) => value / scale[i]!));
    result[columns] = u.reduce((sum, value) => sum + value, 0);
    return result;
  };
  const gradientAt = (v: Float64Array): Float64Array =>
    transposed(margins(v).map((margin, row) => weights[row]! * (sigmoid(margin) - labels[row]!)));

  const length = 1 / greatestCurvature(margins, transposed, weights);
  let v: Float64Array = new Float64Array(columns + 1);
  let ahead = v;
  let momentum = 1;
  for (let step = 0; step < MOST_STEPS; step++) {
    if (step % STEPS_PER_TURN === 0) {
      await otherWork();
      throwIfAborted(signal, "the fit of the probe");
    }
    const gradient = gradientAt(ahead);
    const next = ahead.map((value, i) => {
      const moved = value - length * gradient[i]!;
      return i === columns ? moved : shrunk(moved, (length * penalty) / scale[i]!);
    });
    const turned = next.reduce((sum, value, i) => sum + (ahead[i]! - value) * (value - v[i]!), 0) > 0;
    const following = turned ? 1 : (1 + Math.sqrt(1 + 4 * momentum ** 2)) / 2;
    const share = turned ? 0 : (momentum - 1) / following;
    ahead = next.map((value, i) => value + share * (value - v[i]!));
    [v, momentum] = [next, following];
    if (step % STEPS_PER_TURN === STEPS_PER_TURN - 1 && violation(v, gradientAt(v), scale, penalty) <= TOLERANCE) {
      return { weights: v.subarray(0, columns).map((value, i) => value / scale[i]!), bias: v[columns]! };
    }
  }
  throw new MonosemError(
    "ERR_NOT_COMPUTED",
    `the sparse logistic probe did not converge in ${MOST_STEPS} steps: use a larger penalty`,
  );
}

function shrunk(value: number, by: number): number {
  return Math.sign(value) * Math.max(0, Math.abs(value) - by);
}

/** How far v is from fulfilling the conditions of a minimum, in units of the penalty. */
function violation(v: Float64Array, gradient: Float64Array, scale: Float64Array, penalty: number): number {
  const bias = v.length - 1;
  return v.reduce((most, value, i) => {
    if (i === bias) return Math.max(most, Math.abs(gradient[i]!) / penalty);
    const slope = (gradient[i]! * scale[i]!) / penalty; // with respect to w
    return Math.max(most, value === 0 ? Math.abs(slope) - 1 : Math.abs(slope + Math.sign(value)));
  }, 0);
}

/** An upper bound of the largest eigenvalue of the loss's second derivative: 1/4 Zᵀ diag(weights) Z, by power iteration. */
function greatestCurvature(
  margins: (v: Float64Array) => Float64Array,
  transposed: (u: Float64Array) => Float64Array,
  weights: Float64Array,
): number {
  const columns = transposed(weights).length;
  // No start of equal entries: those could be at right angles to what is sought.
  let v: Float64Array = Float64Array.from({ length: columns }, (_, i) => 1 + ((i * 0.618_033_988_749_895) % 1));
  let largest = 0;
  for (let step = 0; step < 50; step++) {
    const size = Math.sqrt(v.reduce((sum, value) => sum + value ** 2, 0));
    v = v.map((value) => value / size);
    v = transposed(margins(v).map((value, row) => value * weights[row]!));
    const found = Math.sqrt(v.reduce((sum, value) => sum + value ** 2, 0));
    if (Math.abs(found - largest) < 1e-3 * found) {
      largest = found;
      break;
    }
    largest = found;
  }
  // The iteration comes from below.
  return (1.05 * largest) / 4;
}
