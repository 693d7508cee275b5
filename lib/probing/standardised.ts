import { dot } from "./conjugateGradients.js";
import type { FeatureMatrix } from "./featureMatrix.js";
import type { LinearProbe } from "./linearProbe.js";

/** What a fit needs of its matrix: products. */
export type Products = Pick<FeatureMatrix, "rows" | "columns" | "times" | "transposedTimes" | "weightedSquares">;

/**
 * Z = (X - mean) / deviation, column by column, without being computed: products with Z are products with X and with the
 * means, so that a sparse X stays sparse. Of a dense X the means are taken away first: where they are many times the
 * deviation, little would be left of such products. A column that is constant is 0 in Z.
 */
export class Standardised implements Products {
  readonly rows: number;
  readonly columns: number;
  /** X less the offsets. */
  readonly #features: FeatureMatrix;
  readonly #offsets: Float64Array;
  /** Of X less the offsets. */
  readonly #mean: Float64Array;
  /** 1 / deviation. */
  readonly #scale: Float64Array;

  constructor(features: FeatureMatrix) {
    this.rows = features.rows;
    this.columns = features.columns;
    const { mean, standardDeviation } = features.moments();
    const centred = features.less(mean);
    this.#features = centred ?? features;
    this.#offsets = centred === undefined ? new Float64Array(this.columns) : mean;
    this.#mean = centred?.moments().mean ?? mean;
    // A constant's deviation is rounding; 1 / it would blow that up.
    this.#scale = standardDeviation.map((deviation, column) =>
      deviation > 1e-12 * Math.abs(mean[column]!) ? 1 / deviation : 0,
    );
  }

  times(vector: Float64Array): Float64Array {
    const scaled = this.#scaled(vector);
    const offset = dot(this.#mean, scaled);
    return this.#features.times(scaled).map((value) => value - offset);
  }

  transposedTimes(vector: Float64Array): Float64Array {
    const total = sum(vector);
    return this.#features
      .transposedTimes(vector)
      .map((value, column) => (value - total * this.#mean[column]!) * this.#scale[column]!);
  }

  weightedSquares(weights: Float64Array): Float64Array {
    const total = sum(weights);
    const products = this.#features.transposedTimes(weights);
    return this.#features.weightedSquares(weights).map((square, column) => {
      const mean = this.#mean[column]!;
      return (square - 2 * mean * products[column]! + mean ** 2 * total) * this.#scale[column]! ** 2;
    });
  }

  /** The probe of X that gives the scores that `probe` gives of Z. */
  unstandardised({ weights, bias }: LinearProbe): LinearProbe {
    const scaled = this.#scaled(weights);
    return { weights: scaled, bias: bias - dot(this.#mean, scaled) - dot(this.#offsets, scaled) };
  }

  /** The probe of Z that gives the scores that `probe` gives of X, where constant columns have no weight. */
  standardised({ weights, bias }: LinearProbe): LinearProbe {
    return {
      weights: weights.map((weight, column) => (this.#scale[column] === 0 ? 0 : weight / this.#scale[column]!)),
      bias: bias + dot(this.#mean, weights) + dot(this.#offsets, weights),
    };
  }

  #scaled(weights: Float64Array): Float64Array {
    return weights.map((weight, column) => weight * this.#scale[column]!);
  }
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}
