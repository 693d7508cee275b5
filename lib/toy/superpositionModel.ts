/**
 * The toy models of Elhage et al. 2022 ("Toy Models of Superposition", arXiv:2209.10652, section 2): n features are
 * squeezed into m dimensions and read back by the transpose of the same matrix.
 *
 *     x̂ = ReLU(Wᵀ W x + b)      the ReLU output model
 *     x̂ = Wᵀ W x + b            the linear model, the baseline that never uses superposition
 */
import { refuseArgument } from "../checkArguments.js";

/** "relu" is the paper's ReLU output model, "linear" the same without the ReLU. */
export type SuperpositionOutput = "relu" | "linear";

/** What all models of one training run share. */
export interface SuperpositionShape {
  /** n */
  readonly features: number;
  /** m */
  readonly dimensions: number;
  readonly output: SuperpositionOutput;
}

/** The data and the loss of one model. */
export interface SuperpositionTask {
  /** S, in [0, 1): each feature is 0 with probability S, else uniform in [0, 1), independently of the others. */
  readonly sparsity: number;
  /** I, [features], >= 0: the loss is the mean over inputs of the sum over features of I_i (x_i - x̂_i)². */
  readonly importance: readonly number[];
}

/** A trained model. */
export interface SuperpositionModel extends SuperpositionShape, SuperpositionTask {
  /** [features, dimensions], row i is W_i, the direction of feature i (a column of the paper's W). */
  readonly weights: Float32Array;
  /** b, [features] */
  readonly bias: Float32Array;
  /** The expected loss, measured for each number of active features by itself: right for the rarest features, too. */
  readonly loss: number;
}

/**
 * The importance of features that matter less and less: ratio^i for i = 0 ... features - 1.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for impossible numbers
 */
export function geometricImportance(features: number, ratio: number): readonly number[] {
  if (!Number.isSafeInteger(features) || features < 1) {
    refuseArgument("geometricImportance: features", "a positive integer", features);
  }
  if (!(Number.isFinite(ratio) && ratio >= 0))
    refuseArgument("geometricImportance: ratio", "a number of at least 0", ratio);
  return Array.from({ length: features }, (_, feature) => ratio ** feature);
}
