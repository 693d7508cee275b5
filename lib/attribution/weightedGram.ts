/**
 * Weighted linear regression with an intercept, for many subsets of the same features: everything that a fit needs of
 * rows and weights are their centred products, taken once.
 */
import { CholeskyDecomposition, Matrix, pseudoInverse } from "ml-matrix";

export interface WeightedGram {
  readonly players: number;
  /** Weighted means of the features, [players], and of the scores. */
  readonly means: Float64Array;
  readonly mean: number;
  /** Σ w (z_i - z̄_i) (z_j - z̄_j), row after row. */
  readonly gram: Float64Array;
  /** Σ w (z_i - z̄_i) (y - ȳ). */
  readonly products: Float64Array;
  /** Σ w (y - ȳ)². */
  readonly square: number;
}

/**
 * @param present - [rows, players], 0 or 1
 * @param weights - [rows], not negative
 */
export function weightedGram(
  players: number,
  present: ArrayLike<number>,
  weights: ArrayLike<number>,
  scores: ArrayLike<number>,
): WeightedGram {
  const rows = scores.length;
  let total = 0;
  let mean = 0;
  for (let row = 0; row < rows; row++) {
    total += weights[row]!;
    // Relative to the first, so that scores which are all the same have no variance by rounding.
    mean += weights[row]! * (scores[row]! - scores[0]!);
  }
  mean = scores[0]! + mean / total;
  const sums = new Float64Array(players);
  const products = new Float64Array(players);
  const gram = new Float64Array(players * players);
  let square = 0;
  for (let row = 0; row < rows; row++) {
    const [weight, score] = [weights[row]!, scores[row]! - mean];
    square += weight * score ** 2;
    const members: number[] = [];
    for (let i = 0; i < players; i++) if (present[row * players + i] === 1) members.push(i);
    for (const i of members) {
      sums[i]! += weight;
      products[i]! += weight * score;
      for (const j of members) gram[i * players + j]! += weight;
    }
  }
  for (let i = 0; i < players; i++) {
    for (let j = 0; j < players; j++) gram[i * players + j]! -= (sums[i]! * sums[j]!) / total;
  }
  return { players, means: sums.map((sum) => sum / total), mean, gram, products, square };
}

export interface WeightedFit {
  /** Of the chosen features, in their order. */
  readonly coefficients: readonly number[];
  readonly intercept: number;
  /** Weighted R²; 1 where the scores are all the same. */
  readonly rSquared: number;
}

/** Σ w (y - c z - b)² + ridge |c|² over the chosen features, the smallest of the best coefficients where several are. */
export function ridgeFit(
  { players, means, mean, gram, products, square }: WeightedGram,
  chosen: readonly number[],
  ridge: number,
): WeightedFit {
  const normal = submatrix({ players, gram }, chosen);
  const coefficients = solveSymmetric(
    Matrix.add(normal, Matrix.eye(chosen.length).mul(ridge)),
    chosen.map((i) => products[i]!),
  );
  const fitted = normal.mmul(Matrix.columnVector(coefficients)).to1DArray();
  const explained = coefficients.reduce((sum, c, i) => sum + c * (2 * products[chosen[i]!]! - fitted[i]!), 0);
  return {
    coefficients,
    intercept: mean - coefficients.reduce((sum, c, i) => sum + c * means[chosen[i]!]!, 0),
    rSquared: square === 0 ? 1 : explained / square,
  };
}

export function submatrix(
  { players, gram }: Pick<WeightedGram, "players" | "gram">,
  chosen: readonly number[],
): Matrix {
  return new Matrix(chosen.map((i) => chosen.map((j) => gram[i * players + j]!)));
}

/** The solution of A x = b for a symmetric A without negative eigenvalues; where A is singular the shortest one. */
export function solveSymmetric(matrix: Matrix, right: readonly number[]): number[] {
  if (right.length === 0) return [];
  const column = Matrix.columnVector(right);
  const cholesky = new CholeskyDecomposition(matrix);
  const scale = Math.max(...matrix.diagonal());
  // A pivot of rounding errors would give a solution of rounding errors.
  const regular =
    cholesky.isPositiveDefinite() && cholesky.lowerTriangularMatrix.diagonal().every((p) => p * p > 1e-12 * scale);
  return (regular ? cholesky.solve(column) : pseudoInverse(matrix, 1e-12).mmul(column)).to1DArray();
}
