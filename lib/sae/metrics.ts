/**
 * How well an SAE reconstructs and how sparse it is, cheaply enough for a training step that is logged: sums run on the
 * device in float64, and nothing is read until asked. What else there is to say of an SAE is in evaluation.ts.
 */
import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";

/** Latents by the logarithm of their density, the fraction of tokens on which they fire. */
export interface DensityHistogram {
  /** Latents that never fired. */
  readonly never: number;
  /** log10 of the densities between which the bins lie: bin i counts log10Edges[i] <= log10(density) < log10Edges[i + 1]. */
  readonly log10Edges: readonly number[];
  /** The first bin also holds everything below its lower edge, the last one density 1. */
  readonly counts: readonly number[];
}

export interface Metrics {
  readonly tokens: number;
  /** Mean number of latents that fire (value other than 0) per token. */
  readonly l0: number;
  /** Mean over tokens of |y - x̂|², summed over dOut. y is what is reconstructed: the input, of a transcoder its target. */
  readonly mse: number;
  /** Fraction of variance unexplained: E|y - x̂|² / (E|y|² - |E y|²). NaN where y does not vary. */
  readonly fvu: number;
  /** 1 - fvu */
  readonly explainedVariance: number;
  /** Mean over tokens of the cosine between y and x̂; 0 where one of them is 0. */
  readonly cosine: number;
  /** Fraction of the latents that fired on none of the tokens. */
  readonly deadFraction: number;
  readonly densityHistogram: DensityHistogram;
}

const lowestLog10 = -8;
const binsPerDecade = 2;

/** A variance below this part of E|y|² is rounding: the difference of two sums in float64 that should be equal. */
const roundingOfVariance = 1e-12;

type Sums = [squaredError: Tensor, squaredNorm: Tensor, cosines: Tensor, columnSums: Tensor, fired: Tensor];

/** Collects batches; `read` gives the metrics of all of them together. */
export class MetricsAccumulator {
  readonly #device: Device;
  readonly #dSae: number;
  #squaredError: Tensor;
  #squaredNorm: Tensor;
  #cosines: Tensor;
  #columnSums: Tensor;
  #fired: Tensor;
  #tokens = 0;

  constructor(device: Device, dOut: number, dSae: number) {
    this.#device = device;
    this.#dSae = dSae;
    this.#squaredError = device.zeros([1], "f64");
    this.#squaredNorm = device.zeros([1], "f64");
    this.#cosines = device.zeros([1], "f64");
    this.#columnSums = device.zeros([dOut], "f64");
    this.#fired = device.zeros([dSae], "f64");
  }

  /**
   * @param target what was to be reconstructed, [tokens, dOut]
   * @param residual x̂ - target, [tokens, dOut]
   */
  add(target: Tensor, residual: Tensor, codes: Codes): void {
    const { kernels } = this.#device;
    kernels.dot(residual, residual, this.#squaredError);
    kernels.dot(target, target, this.#squaredNorm);
    kernels.accumulateColumnSums(target, this.#columnSums);
    using reconstruction = kernels.add(residual, target);
    kernels.sumOfRowCosines(target, reconstruction, this.#cosines);
    using counts = kernels.featureCounts(codes);
    using row = counts.reshape([1, this.#dSae]);
    kernels.accumulateColumnSums(row, this.#fired);
    this.#tokens += codes.rows;
  }

  async read(): Promise<Metrics> {
    const tokens = this.#tokens;
    if (tokens === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "metrics of no tokens at all were asked for");
    const [squaredError, squaredNorm, cosines, columnSums, fired] = await Promise.all([
      this.#squaredError.readScalar(),
      this.#squaredNorm.readScalar(),
      this.#cosines.readScalar(),
      this.#columnSums.read() as Promise<Float64Array>,
      this.#fired.read() as Promise<Float64Array>,
    ]);
    const squaredMean = columnSums.reduce((sum, value) => sum + (value / tokens) ** 2, 0);
    const meanSquare = squaredNorm / tokens;
    const variance = meanSquare - squaredMean;
    const mse = squaredError / tokens;
    const fvu = variance > roundingOfVariance * meanSquare ? mse / variance : Number.NaN;
    const densityHistogram = histogram(Array.from(fired, (count) => count / tokens));
    return {
      tokens,
      l0: fired.reduce((sum, count) => sum + count, 0) / tokens,
      mse,
      fvu,
      explainedVariance: 1 - fvu,
      cosine: cosines / tokens,
      deadFraction: densityHistogram.never / this.#dSae,
      densityHistogram,
    };
  }

  /** The sums so far, to be restored in an accumulator for the same widths. */
  async saveState(): Promise<Float64Array> {
    const sums = await Promise.all(this.#sums.map((sum) => sum.read() as Promise<Float64Array>));
    return Float64Array.of(this.#tokens, ...sums.flatMap((values) => Array.from(values)));
  }

  /** @throws MonosemError ERR_SHAPE_MISMATCH for the sums of other widths */
  restoreState(saved: Float64Array): void {
    const expected = 1 + this.#sums.reduce((length, { shape }) => length + shape[0]!, 0);
    if (saved.length !== expected) {
      throw new MonosemError("ERR_SHAPE_MISMATCH", `saved metrics have ${saved.length} sums, expected ${expected}`);
    }
    let first = 1;
    const part = ({ shape }: Tensor): Tensor => {
      const length = shape[0]!;
      first += length;
      return this.#device.tensor(saved.slice(first - length, first), [length], "f64");
    };
    const restored = this.#sums.map(part);
    for (const sum of this.#sums) sum.dispose();
    [this.#squaredError, this.#squaredNorm, this.#cosines, this.#columnSums, this.#fired] = restored as Sums;
    this.#tokens = saved[0]!;
  }

  get #sums(): Sums {
    return [this.#squaredError, this.#squaredNorm, this.#cosines, this.#columnSums, this.#fired];
  }

  [Symbol.dispose](): void {
    for (const sum of this.#sums) sum.dispose();
  }
}

function histogram(densities: readonly number[]): DensityHistogram {
  const bins = -lowestLog10 * binsPerDecade;
  const counts = new Array<number>(bins).fill(0);
  let never = 0;
  for (const density of densities) {
    if (density === 0) {
      never++;
      continue;
    }
    const bin = Math.floor((Math.log10(density) - lowestLog10) * binsPerDecade);
    counts[Math.min(Math.max(bin, 0), bins - 1)]!++;
  }
  return { never, log10Edges: Array.from({ length: bins + 1 }, (_, i) => lowestLog10 + i / binsPerDecade), counts };
}
