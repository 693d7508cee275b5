/** What synthetic data is made of: the recipe of SynthSAEBench (arXiv:2602.14687), every constant settable. */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { checkedBy } from "../schemaMessages.js";

export interface SyntheticConfig {
  /** Number of true features. */
  readonly features: number;
  /** Width of an activation vector. */
  readonly dIn: number;
  readonly seed: number;
  /** How often features fire: pMin + (pMax - pMin) * (r_i - r_min) / (r_max - r_min) with r_i = i^-exponent, i = 1, 2, ... */
  readonly probabilities: { readonly exponent: number; readonly min: number; readonly max: number };
  /**
   * The first features form trees, numbered breadth first: `roots` of them, `children` below each feature down to `depth`
   * levels below the roots. A child fires only together with its parent, and only one child of a parent at a time.
   * `roots` 0: no trees.
   */
  readonly hierarchy: { readonly roots: number; readonly children: number; readonly depth: number };
  /** Features are thresholds of normal numbers with covariance U Uᵀ off the diagonal, U = scale * N(0, 1) [features, rank]. */
  readonly correlation: { readonly rank: number; readonly scale: number };
  /**
   * A feature fires with max(0, N(mean, deviation²)): means fall linearly from `first` to `last`, a feature's deviation is
   * |N(deviationMean, deviationSpread²)|.
   */
  readonly magnitudes: {
    readonly first: number;
    readonly last: number;
    readonly deviationMean: number;
    readonly deviationSpread: number;
  };
  /** Adam steps and learning rate with which the random directions are made as orthogonal as they can be. */
  readonly orthogonalisation: { readonly steps: number; readonly lr: number };
  /** Norm of the bias that all samples have in common. */
  readonly biasNorm: number;
}

/** A configuration with what is left out filled in. */
export type SyntheticOptions = {
  readonly [Key in keyof SyntheticConfig]?: SyntheticConfig[Key] extends object
    ? Partial<SyntheticConfig[Key]>
    : SyntheticConfig[Key];
};

/** 1,024 features in 128 dimensions: SynthSAEBench-16k at a sixteenth of its features, for a CPU. */
const smallFeatures = 1024;
const smallWidth = 128;

/** One root for so many features, as in SynthSAEBench-16k: its trees of 85 features hold two thirds of all. */
const featuresPerRoot = 128;

const count = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);
const natural = z
  .number()
  .int()
  .min(0)
  .max(2 ** 31 - 1);
const finite = z.number();
const positive = finite.positive();
const nonNegative = finite.min(0);
const probability = finite.min(0).max(1);

const schema = z
  .strictObject({
    features: count.default(smallFeatures),
    dIn: count.default(smallWidth),
    seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(42),
    probabilities: z
      .strictObject({ exponent: positive.default(0.5), min: probability.default(5e-4), max: probability.default(0.4) })
      .refine(({ min, max }) => min <= max, { path: ["min"], message: "must not be above max" })
      .prefault({}),
    hierarchy: z
      .strictObject({ roots: natural.optional(), children: natural.default(4), depth: natural.default(3) })
      .prefault({}),
    correlation: z.strictObject({ rank: natural.default(25), scale: nonNegative.default(0.1) }).prefault({}),
    magnitudes: z
      .strictObject({
        first: positive.default(5),
        last: positive.default(4),
        deviationMean: finite.default(0.5),
        deviationSpread: nonNegative.default(0.5),
      })
      .prefault({}),
    orthogonalisation: z.strictObject({ steps: natural.default(100), lr: positive.default(3e-4) }).prefault({}),
    biasNorm: nonNegative.default(0.5),
  })
  .transform(({ hierarchy, ...rest }) => ({
    ...rest,
    hierarchy: { ...hierarchy, roots: hierarchy.roots ?? Math.floor(rest.features / featuresPerRoot) },
  }));

/**
 * Fills in and checks a configuration. The constants left out are those of SynthSAEBench-16k, at 1,024 features in 128
 * dimensions instead of 16,384 in 768, with one root per 128 features.
 *
 * @param what - what the error says it is about, such as the file that the options are from
 * @throws MonosemError ERR_CONFIG with every problem found.
 */
export function parseSyntheticConfig(options: SyntheticOptions, what = "synthetic data"): SyntheticConfig {
  const parsed = checkedBy(schema, options);
  if (!parsed.success) throw new MonosemError("ERR_CONFIG", `${what}: ${parsed.problems.join("; ")}`);
  return parsed.data;
}
