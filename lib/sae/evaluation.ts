/**
 * Everything that reconstructing activations tells about an SAE. Definitions are those of SAELens 6.54 (`evals.py`) and
 * SAEBench where they are right; explained variance and mean squared error are not what SAEBench 0.6 computes, which
 * subtracts the mean of squares for the one and divides by the number of tokens twice for the other.
 */

import type { ActivationSource } from "../activations/source.js";
import { requireSae } from "../analysis/checkPair.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { CodesContent } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type Metrics, MetricsAccumulator } from "./metrics.js";
import { type ReconstructedBatch, type ReconstructionOptions, reconstructions } from "./reconstructions.js";
import type { Sae } from "./sae.js";

/** All means are over tokens and float64 sums; y is what is reconstructed (the input, of a transcoder its target). */
export interface Evaluation extends Metrics {
  /** Mean of the sum of the latents' absolute values. */
  readonly l1: number;
  /**
   * Mean of 1 - |y - x̂|² / |y - ȳ|², ȳ the mean of the batch that the token came in: what SAEBench has published as
   * explained variance. For comparison with old numbers only: it depends on the size of the batches, and tokens near the
   * mean dominate it. null where no token differs from the mean of its batch.
   */
  readonly explainedVarianceLegacy: number | null;
  /** Mean of |y|. */
  readonly targetNorm: number;
  /** Mean of |x̂|. */
  readonly reconstructionNorm: number;
  /** Mean of |x̂| / |y|, with 1 in place of a |y| below 1e-4. Below 1: reconstructions are shrunk. */
  readonly l2Ratio: number;
  /** E|x̂|² / E[y · x̂] (Rajamanoharan et al. 2024, arXiv:2404.16014, equation 10); null where E[y · x̂] is 0. */
  readonly relativeReconstructionBias: number | null;
  /** Mean of `latents.consistency` over the latents that fired; null where none did or no prompts were told. */
  readonly consistency: number | null;
  readonly latents: LatentEvaluation;
}

/** One number for each latent. */
export interface LatentEvaluation {
  /** [dSae], the fraction of the tokens on which it fires. */
  readonly density: Float64Array;
  /**
   * [dSae], on how many tokens it fires in a prompt in which it fires at all, on average (SAEBench's
   * `consistent_activation_heuristic`); NaN for a latent that never fires. Undefined where no prompts were told.
   */
  readonly consistency: Float64Array | undefined;
}

/** Tokens that were encoded together. */
export interface EvaluatedBatch extends ReconstructedBatch {
  /** How many of the rows belong to each prompt, in order. Prompts do not span batches. */
  readonly promptRows?: readonly number[];
}

/** A |y| below this does not divide (SAELens, `l2_norm_in_for_div`). */
const smallestNorm = 1e-4;

/** Collects batches; `read` evaluates all of them together. */
export class EvaluationAccumulator {
  readonly #device: Device;
  readonly #metrics: MetricsAccumulator;
  readonly #squaredReconstruction: Tensor;
  readonly #product: Tensor;
  readonly #tokensFired: Float64Array;
  readonly #promptsFired: Float64Array;
  /** Per latent the last prompt in which it fired, counted from 1. */
  readonly #lastPrompt: Float64Array;
  #prompts = 0;
  #promptsKnown = true;
  #tokens = 0;
  #absoluteLatents = 0;
  #targetNorms = 0;
  #reconstructionNorms = 0;
  #normRatios = 0;
  #legacyTerms = 0;
  #legacyTokens = 0;

  constructor(device: Device, dOut: number, dSae: number) {
    this.#device = device;
    this.#metrics = new MetricsAccumulator(device, dOut, dSae);
    this.#squaredReconstruction = device.zeros([1], "f64");
    this.#product = device.zeros([1], "f64");
    this.#tokensFired = new Float64Array(dSae);
    this.#promptsFired = new Float64Array(dSae);
    this.#lastPrompt = new Float64Array(dSae);
  }

  /**
   * Resolves when the batch has been read; its tensors and codes may then be disposed.
   *
   * @throws MonosemError ERR_NON_FINITE for NaN or infinity among activations or latents, ERR_SHAPE_MISMATCH for
   *   `promptRows` that do not add up to the batch.
   */
  async add({ target, reconstruction, codes, promptRows }: EvaluatedBatch): Promise<void> {
    if (codes.rows === 0) return;
    const rows = promptRows?.reduce((sum, count) => sum + count, 0) ?? codes.rows;
    if (rows !== codes.rows) {
      throw new MonosemError("ERR_SHAPE_MISMATCH", `the prompts have ${rows} rows, but the batch has ${codes.rows}`);
    }
    const { kernels } = this.#device;
    using residual = kernels.add(reconstruction, target, { scale: -1 });
    this.#metrics.add(target, residual, codes);
    kernels.dot(reconstruction, reconstruction, this.#squaredReconstruction);
    kernels.dot(target, reconstruction, this.#product);
    using mean = kernels.columnSums(target, { scale: 1 / rows });
    using centred = kernels.addRow(target, mean, { scale: -1 });
    using targetNorms = kernels.rowNorms(target);
    using reconstructionNorms = kernels.rowNorms(reconstruction);
    using residualNorms = kernels.rowNorms(residual);
    using centredNorms = kernels.rowNorms(centred);
    const [content, ...norms] = await Promise.all([
      codes.read(),
      targetNorms.readFloat32(),
      reconstructionNorms.readFloat32(),
      residualNorms.readFloat32(),
      centredNorms.readFloat32(),
    ]);
    this.#addNorms(...norms);
    this.#addLatents(content, promptRows);
    this.#tokens += rows;
  }

  /** @throws MonosemError ERR_INVALID_ARGUMENT for no tokens at all, ERR_NON_FINITE naming a metric that has no value. */
  async read(): Promise<Evaluation> {
    const [metrics, squaredReconstruction, product] = await Promise.all([
      this.#metrics.read(),
      this.#squaredReconstruction.readScalar(),
      this.#product.readScalar(),
    ]);
    const consistency = this.#promptsKnown
      ? this.#tokensFired.map((tokens, latent) => tokens / this.#promptsFired[latent]!)
      : undefined;
    const firing = Array.from(consistency ?? []).filter((value) => !Number.isNaN(value));
    const evaluation: Evaluation = {
      ...metrics,
      l1: this.#absoluteLatents / this.#tokens,
      explainedVarianceLegacy: this.#legacyTokens === 0 ? null : this.#legacyTerms / this.#legacyTokens,
      targetNorm: this.#targetNorms / this.#tokens,
      reconstructionNorm: this.#reconstructionNorms / this.#tokens,
      l2Ratio: this.#normRatios / this.#tokens,
      relativeReconstructionBias: product === 0 ? null : squaredReconstruction / product,
      consistency: firing.length === 0 ? null : firing.reduce((sum, value) => sum + value, 0) / firing.length,
      latents: { density: this.#tokensFired.map((tokens) => tokens / this.#tokens), consistency },
    };
    refuseNonFinite(evaluation);
    return evaluation;
  }

  [Symbol.dispose](): void {
    this.#metrics[Symbol.dispose]();
    this.#squaredReconstruction.dispose();
    this.#product.dispose();
  }

  #addNorms(target: Float32Array, reconstruction: Float32Array, residual: Float32Array, centred: Float32Array): void {
    target.forEach((norm, row) => {
      this.#targetNorms += norm;
      this.#reconstructionNorms += reconstruction[row]!;
      this.#normRatios += reconstruction[row]! / (norm < smallestNorm ? 1 : norm);
      if (centred[row] === 0) return;
      this.#legacyTerms += 1 - (residual[row]! / centred[row]!) ** 2;
      this.#legacyTokens += 1;
    });
  }

  #addLatents({ rowOffsets, features, values }: CodesContent, promptRows: readonly number[] | undefined): void {
    if (promptRows === undefined) this.#promptsKnown = false;
    let row = 0;
    for (const rows of promptRows ?? [rowOffsets.length - 1]) {
      this.#prompts += 1;
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + rows]!; entry++) {
        if (values[entry] === 0) continue; // selected, but not active
        const latent = features[entry]!;
        this.#absoluteLatents += Math.abs(values[entry]!);
        this.#tokensFired[latent]! += 1;
        if (this.#lastPrompt[latent] === this.#prompts) continue;
        this.#lastPrompt[latent] = this.#prompts;
        this.#promptsFired[latent]! += 1;
      }
      row += rows;
    }
  }
}

/** @throws MonosemError ERR_NON_FINITE naming the first number of `measured` that is none. */
export function refuseNonFinite(measured: object): void {
  for (const [name, value] of Object.entries(measured)) {
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new MonosemError("ERR_NON_FINITE", `${name} is ${value}: are the activations all the same, or too large?`);
    }
  }
}

const optionNames: OptionNames<ReconstructionOptions> = {
  tokens: true,
  batchSize: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Evaluates the SAE on the next `tokens` activations of a source, or until it ends. For a transcoder the source holds what
 * it encodes and what it reconstructs side by side, in this order.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH when the source has another width than the SAE, ERR_INVALID_ARGUMENT for a source
 *   without activations, ERR_ABORTED by the signal, ERR_NON_FINITE for NaN or infinity among the activations and for a
 *   metric without a value.
 */
export async function evaluate(
  sae: Sae,
  source: ActivationSource,
  options: ReconstructionOptions,
): Promise<Evaluation> {
  checkOptions("evaluate", options, optionNames);
  requireSae(sae);
  using evaluation = new EvaluationAccumulator(sae.device, sae.config.dOut, sae.config.dSae);
  for await (const batch of reconstructions(sae, source, options)) await evaluation.add(batch);
  return await evaluation.read();
}
