/**
 * Synthetic activations with known features, as SynthSAEBench makes them (Chanin et al. 2026, arXiv:2602.14687):
 *
 *     x = bias + sum over the features f that fire of magnitude_f * direction_f
 *
 * with Zipf-distributed firing, correlated through a few common factors, and trees of features in which a child fires only
 * with its parent, one child at a time.
 */
import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import { drawFeatures, type FeatureDistribution } from "../engine/drawFeatures.js";
import { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { parseSyntheticConfig, type SyntheticConfig, type SyntheticOptions } from "./syntheticConfig.js";
import { separatedDirections } from "./syntheticDirections.js";
import { compensatedProbabilities, hierarchyParents, zipfProbabilities } from "./syntheticProbabilities.js";

/** Correlation explains at most this part of a feature's variance; factors that would explain more are shortened. */
const mostExplained = 0.99;

/** What is known of a synthetic model beside its configuration. */
export interface SyntheticTruth {
  /** f32 [features, dIn], unit rows. */
  readonly directions: Tensor;
  /** f32 [dIn] */
  readonly bias: Tensor;
  /** How features fire: the probabilities are those to draw with, which make up for the hierarchy. */
  readonly distribution: FeatureDistribution;
}

/** The true features of synthetic data, on a device; samples are numbered, and each depends on its number alone. */
export class SyntheticModel {
  readonly config: SyntheticConfig;
  readonly device: Device;
  readonly truth: SyntheticTruth;

  /**
   * A model of this truth, which it takes over.
   *
   * @throws MonosemError ERR_CONFIG; ERR_SHAPE_MISMATCH for tensors of other shapes than the configuration says.
   */
  constructor(config: SyntheticConfig, truth: SyntheticTruth) {
    this.config = parseSyntheticConfig(config);
    this.device = truth.directions.device;
    this.truth = truth;
    const { features, dIn, correlation } = this.config;
    const { probabilities, factors, means, deviations } = truth.distribution;
    for (const [name, tensor, shape] of [
      ["directions", truth.directions, [features, dIn]],
      ["bias", truth.bias, [dIn]],
      ["probabilities", probabilities, [features]],
      ["factors", factors, correlation.rank > 0 ? [features, correlation.rank] : undefined],
      ["means", means, [features]],
      ["deviations", deviations, [features]],
    ] as const) {
      if (tensor?.shape.join() !== shape?.join()) {
        throw new MonosemError(
          "ERR_SHAPE_MISMATCH",
          `synthetic data: ${name} must have shape [${shape?.join(", ") ?? ""}], found [${tensor?.shape.join(", ") ?? ""}]`,
        );
      }
    }
  }

  /**
   * Makes the features that a configuration describes. The same seed gives the same ones.
   *
   * @throws MonosemError ERR_CONFIG; ERR_ABORTED by the signal.
   */
  static async create(options: SyntheticOptions, device: Device, signal?: AbortSignal): Promise<SyntheticModel> {
    const config = parseSyntheticConfig(options);
    const { features, dIn, hierarchy, magnitudes, correlation, biasNorm } = config;
    const { kernels } = device;
    const random = new RandomGenerator(config.seed);
    const directions = await separatedDirections(config, random, device, signal);

    const bias = device.empty([1, dIn]);
    random.normal(bias);
    kernels.normaliseRows(bias, biasNorm, { out: bias });

    const base = zipfProbabilities(config);
    const probabilities = compensatedProbabilities(base, hierarchyParents(config));
    const distribution = {
      probabilities: device.tensor(Float32Array.from(probabilities), [features]),
      factors: correlation.rank === 0 ? undefined : await correlationFactors(config, random, device),
      means: device.tensor(linear(magnitudes.first, magnitudes.last, features), [features]),
      deviations: await magnitudeDeviations(config, random, device),
      ...hierarchy,
    };
    return new SyntheticModel(config, { directions, bias: bias.reshape([dIn]), distribution });
  }

  /**
   * Which features fire in `rows` samples from number `firstSample` on, and how strongly: codes [rows, features]; the
   * caller's to dispose.
   */
  codes(rows: number, firstSample: number): Codes {
    return drawFeatures(this.truth.distribution, rows, { seed: this.config.seed, offset: firstSample });
  }

  /** The activations [rows, dIn] that codes give; the caller's to dispose. */
  activations(codes: Codes): Tensor {
    return this.device.kernels.decode(codes, this.truth.directions, { bias: this.truth.bias });
  }

  dispose(): void {
    const { directions, bias, distribution } = this.truth;
    const { probabilities, factors, means, deviations } = distribution;
    for (const tensor of [directions, bias, probabilities, factors, means, deviations]) tensor?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function linear(first: number, last: number, size: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => first + (size === 1 ? 0 : ((last - first) * i) / (size - 1)));
}

async function correlationFactors(
  { features, correlation }: SyntheticConfig,
  random: RandomGenerator,
  device: Device,
): Promise<Tensor> {
  const { rank, scale } = correlation;
  const factors = device.empty([features, rank]);
  random.normal(factors, scale);
  using norms = device.kernels.rowNorms(factors);
  const shortening = (await norms.readFloat32()).map((norm) => Math.min(1, Math.sqrt(mostExplained) / norm));
  using rows = device.tensor(shortening, [features]);
  device.kernels.scaleRows(factors, rows, { out: factors });
  return factors;
}

async function magnitudeDeviations(
  { features, magnitudes }: SyntheticConfig,
  random: RandomGenerator,
  device: Device,
): Promise<Tensor> {
  using draws = device.empty([features]);
  random.normal(draws, magnitudes.deviationSpread);
  const deviations = (await draws.readFloat32()).map((draw) => Math.abs(magnitudes.deviationMean + draw));
  return device.tensor(deviations, [features]);
}
