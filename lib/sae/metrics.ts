/** How well an SAE reconstructs and how sparse it is. Sums run on the device in float64; nothing is read until asked. */
import type { ActivationSource } from "../activations/source.js";
import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Sae } from "./sae.js";

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
  /** Mean number of latents that fire (value > 0) per token. */
  readonly l0: number;
  /** Mean over tokens of |x - x̂|², summed over dIn. */
  readonly mse: number;
  /** Fraction of variance unexplained: E|x - x̂|² / (E|x|² - |E x|²). */
  readonly fvu: number;
  /** 1 - fvu */
  readonly explainedVariance: number;
  /** Mean over tokens of the cosine between x and x̂. */
  readonly cosine: number;
  /** Fraction of the latents that fired on none of the tokens. */
  readonly deadFraction: number;
  readonly densityHistogram: DensityHistogram;
}

const lowestLog10 = -8;
const binsPerDecade = 2;

/** Collects batches; `read` gives the metrics of all of them together. */
export class MetricsAccumulator {
  readonly #device: Device;
  readonly #dSae: number;
  readonly #squaredError: Tensor;
  readonly #squaredNorm: Tensor;
  readonly #cosines: Tensor;
  readonly #columnSums: Tensor;
  readonly #fired: Tensor;
  #tokens = 0;

  constructor(device: Device, dIn: number, dSae: number) {
    this.#device = device;
    this.#dSae = dSae;
    this.#squaredError = device.zeros([1], "f64");
    this.#squaredNorm = device.zeros([1], "f64");
    this.#cosines = device.zeros([1], "f64");
    this.#columnSums = device.zeros([dIn], "f64");
    this.#fired = device.zeros([dSae], "f64");
  }

  /** @param residual x̂ - x, [tokens, dIn] */
  add(x: Tensor, residual: Tensor, codes: Codes): void {
    const { kernels } = this.#device;
    kernels.dot(residual, residual, this.#squaredError);
    kernels.dot(x, x, this.#squaredNorm);
    kernels.accumulateColumnSums(x, this.#columnSums);
    using reconstruction = kernels.add(residual, x);
    kernels.sumOfRowCosines(x, reconstruction, this.#cosines);
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
    const mse = squaredError / tokens;
    const fvu = mse / (squaredNorm / tokens - squaredMean);
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

  [Symbol.dispose](): void {
    for (const sum of [this.#squaredError, this.#squaredNorm, this.#cosines, this.#columnSums, this.#fired]) {
      sum.dispose();
    }
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

/**
 * Runs the SAE over the next `tokens` activations of a source, or until it ends. Stored activations and activation
 * buffers never end: `tokens: source.rows` is one pass over stored ones.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH when the source has another width than the SAE, ERR_ABORTED by the signal,
 *   ERR_NON_FINITE for NaN or infinity among the activations.
 */
export async function evaluate(
  sae: Sae,
  source: ActivationSource,
  options: { tokens: number; batchSize?: number; signal?: AbortSignal },
): Promise<Metrics> {
  const { tokens, batchSize = 4096, signal } = options;
  const { dIn, dSae } = sae.config;
  if (source.dIn !== dIn) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `the activations are ${source.dIn} wide, but the SAE was made for ${dIn}: they are of another model or hook`,
    );
  }
  using metrics = new MetricsAccumulator(sae.device, dIn, dSae);
  for (let seen = 0; seen < tokens; ) {
    if (signal?.aborted) throw new MonosemError("ERR_ABORTED", "the evaluation was aborted", { cause: signal.reason });
    using x = await source.next(Math.min(batchSize, tokens - seen), signal);
    if (x === undefined) break;
    using codes = sae.encode(x);
    const { decoder, decoderBias } = sae.parameters;
    using residual = sae.device.kernels.decode(codes, decoder, { bias: decoderBias, target: x });
    metrics.add(x, residual, codes);
    seen += codes.rows;
    await sae.device.synchronize(); // no more than one batch on the device
  }
  return await metrics.read();
}
