/** What an SAE found of the true features of synthetic data: the metrics of SynthSAEBench (arXiv:2602.14687). */
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { MetricsAccumulator } from "../sae/metrics.js";
import type { Sae } from "../sae/sae.js";
import { compareDirections, type DirectionRecovery } from "./recoveryDirections.js";
import { FiringCounts, type FiringRecovery } from "./recoveryFiring.js";
import type { SyntheticModel } from "./syntheticModel.js";

export interface Recovery extends Omit<DirectionRecovery, "bestFeature">, FiringRecovery {
  readonly samples: number;
  /** Mean number of latents that fire in a sample. */
  readonly l0: number;
  /** 1 - E|x - x̂|² / (E|x|² - |E x|²) */
  readonly explainedVariance: number;
  /** Mean of |x̂| / |x| over the samples with |x| > 1e-6. */
  readonly shrinkage: number;
}

/** Where samples for measuring begin: no training comes so far. */
export const heldOutSample: number = 2 ** 48;

const smallestNorm = 1e-6;

/**
 * Measures an SAE on samples that it was not trained on. Latents are compared with features by their decoder rows; each
 * latent's firing with that of the feature whose direction is nearest to its own (largest |cosine|).
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH when the SAE is of another width than the data; ERR_ABORTED by the signal.
 */
export async function measureRecovery(
  sae: Sae,
  model: SyntheticModel,
  options: {
    /** Default: 100,000. */
    readonly samples?: number;
    readonly batchSize?: number;
    /** Number of the first sample; default: {@link heldOutSample}. */
    readonly firstSample?: number;
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<Recovery> {
  const { samples = 100_000, batchSize = 4096, firstSample = heldOutSample, signal } = options;
  const { dIn, features } = model.config;
  const { decoder } = sae.parameters;
  if (sae.config.dIn !== dIn || decoder.shape[1] !== dIn) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `the synthetic data is ${dIn} wide, but the SAE maps ${sae.config.dIn} to ${decoder.shape[1]}`,
    );
  }
  const { bestFeature, ...directions } = await compareDirections(decoder, model.truth.directions, signal);
  const firing = new FiringCounts(bestFeature, features);
  using metrics = new MetricsAccumulator(sae.device, dIn, sae.config.dSae);
  let ratios = 0;
  let measured = 0;
  for (let seen = 0; seen < samples; seen += batchSize) {
    throwIfAborted(signal, "measuring the recovery");
    using truth = model.codes(Math.min(batchSize, samples - seen), firstSample + seen);
    using x = model.activations(truth);
    using codes = sae.encode(x);
    using reconstruction = sae.decode(codes, x);
    using residual = sae.device.kernels.add(reconstruction, x, { scale: -1 });
    metrics.add(x, residual, codes);
    firing.add(await codes.read(), await truth.read());
    const [norms, reconstructed] = [await rowNorms(x), await rowNorms(reconstruction)];
    for (const [row, norm] of norms.entries()) {
      if (norm <= smallestNorm) continue;
      ratios += reconstructed[row]! / norm;
      measured++;
    }
  }
  const { l0, explainedVariance } = await metrics.read();
  return { samples, ...directions, ...firing.read(), l0, explainedVariance, shrinkage: ratios / measured };
}

async function rowNorms(x: Tensor): Promise<Float32Array> {
  using norms = x.device.kernels.rowNorms(x);
  return await norms.readFloat32();
}
