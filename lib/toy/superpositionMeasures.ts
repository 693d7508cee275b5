/** What a matrix of feature directions does: Elhage et al. 2022, arXiv:2209.10652, sections 2 and 4. */
import { MonosemError } from "../errors.js";

/** Directions of features: row i of `weights` [features, dimensions] is W_i. */
export interface FeatureDirections {
  readonly features: number;
  readonly dimensions: number;
  readonly weights: ArrayLike<number>;
}

export interface SuperpositionMeasures {
  /** [features], |W_i|, about 1 when the feature is represented and 0 when it is not. */
  readonly norms: Float64Array;
  /**
   * [features], the sum over j ≠ i of (Ŵ_i · W_j)², where Ŵ_i = W_i / |W_i|: 0 when feature i is orthogonal to all
   * others, from 1 on when others activate its direction as strongly as itself. 0 where |W_i| = 0.
   */
  readonly superposition: Float64Array;
  /**
   * [features], D_i = |W_i|² / sum over j of (Ŵ_i · W_j)², the share of a dimension that the feature has: 1 when it is
   * alone, 1/2 in an antipodal pair, 0 where |W_i| = 0. See {@link superpositionGeometries}.
   */
  readonly dimensionality: Float64Array;
  /** [features, features], W_i · W_j; the paper's WᵀW. */
  readonly interference: Float64Array;
  /** |W|², the squared Frobenius norm: about the number of features represented. */
  readonly squaredNorm: number;
  /** D* = dimensions / |W|²; Infinity when W = 0. */
  readonly dimensionsPerFeature: number;
  /** Features with |W_i| > 1/2. */
  readonly represented: number;
}

/** A feature counts as represented when its norm is larger. */
const REPRESENTED_NORM = 0.5;

/**
 * The measures of a model's feature directions, in double precision.
 *
 * @throws {MonosemError} ERR_SHAPE_MISMATCH when `weights` has not features * dimensions elements, ERR_NON_FINITE when
 * one of them is NaN or infinite.
 */
export function measureSuperposition(directions: FeatureDirections): SuperpositionMeasures {
  const { features, dimensions, weights } = directions;
  requireDirections(directions);
  const interference = new Float64Array(features * features);
  for (let i = 0; i < features; i++) {
    for (let j = 0; j <= i; j++) {
      let product = 0;
      for (let d = 0; d < dimensions; d++) product += weights[i * dimensions + d]! * weights[j * dimensions + d]!;
      interference[i * features + j] = product;
      interference[j * features + i] = product;
    }
  }

  const norms = new Float64Array(features);
  const superposition = new Float64Array(features);
  const dimensionality = new Float64Array(features);
  let squaredNorm = 0;
  let represented = 0;
  for (let i = 0; i < features; i++) {
    const own = interference[i * features + i]!;
    squaredNorm += own;
    norms[i] = Math.sqrt(own);
    if (norms[i]! > REPRESENTED_NORM) represented += 1;
    if (own === 0) continue;
    let others = 0;
    for (let j = 0; j < features; j++) if (j !== i) others += interference[i * features + j]! ** 2;
    superposition[i] = others / own;
    dimensionality[i] = own / (own + others / own);
  }
  return {
    norms,
    superposition,
    dimensionality,
    interference,
    squaredNorm,
    dimensionsPerFeature: dimensions / squaredNorm,
    represented,
  };
}

/** A regular arrangement of feature directions, known by the dimensionality that each of its features has. */
export interface SuperpositionGeometry {
  readonly dimensionality: number;
  /** The dimensionality as it is written, such as "2/5". */
  readonly fraction: string;
  readonly name: string;
}

/** The arrangements that the paper finds (section 4), from a dimension of its own down to nothing. */
export const superpositionGeometries: readonly SuperpositionGeometry[] = [
  { dimensionality: 1, fraction: "1", name: "dedicated dimension" },
  { dimensionality: 3 / 4, fraction: "3/4", name: "tetrahedron" },
  { dimensionality: 2 / 3, fraction: "2/3", name: "triangle" },
  { dimensionality: 1 / 2, fraction: "1/2", name: "antipodal pair" },
  { dimensionality: 2 / 5, fraction: "2/5", name: "pentagon" },
  { dimensionality: 3 / 8, fraction: "3/8", name: "square antiprism" },
  { dimensionality: 0, fraction: "0", name: "not represented" },
];

/** How far a trained feature may be from an arrangement's dimensionality and still be said to be part of it. */
const GEOMETRY_TOLERANCE = 0.05;

/** The arrangement whose dimensionality is the nearest, or undefined when none is within 0.05. */
export function nearestGeometry(dimensionality: number): SuperpositionGeometry | undefined {
  let nearest: SuperpositionGeometry | undefined;
  let distance = GEOMETRY_TOLERANCE;
  for (const geometry of superpositionGeometries) {
    const found = Math.abs(geometry.dimensionality - dimensionality);
    if (found <= distance) [nearest, distance] = [geometry, found];
  }
  return nearest;
}

function requireDirections({ features, dimensions, weights }: FeatureDirections): void {
  if (weights.length !== features * dimensions) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `measureSuperposition: ${features} features in ${dimensions} dimensions have ${features * dimensions} weights, found ${weights.length}`,
    );
  }
  for (let index = 0; index < weights.length; index++) {
    if (!Number.isFinite(weights[index])) {
      throw new MonosemError(
        "ERR_NON_FINITE",
        `measureSuperposition: the weight of feature ${Math.floor(index / dimensions)} in dimension ${index % dimensions} is ${weights[index]}`,
      );
    }
  }
}
