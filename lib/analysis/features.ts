import { checkOptions, type OptionNames } from "../checkArguments.js";
import { FeaturePass, type FeaturePassOptions, featurePassOptionNames } from "../features/featurePass.js";
import type { Metrics } from "../sae/metrics.js";
import type { Histogram } from "./activationHistogram.js";
import { type Contexts, contextBatches } from "./contextBatches.js";

/**
 * A stretch of text on which a latent fires, with the latent's activation on each of its tokens. Activations are
 * negative where the architecture lets them be.
 */
export interface FeatureExample {
  /** The peak: the largest activation in the context, of a negative example the most negative one. */
  readonly activation: number;
  /** Which context, counted from 0 in the order of the pass. */
  readonly context: number;
  /** Where in the context the peak stands. */
  readonly position: number;
  /** The tokens around it. */
  readonly tokens: Int32Array;
  /** The latent's activation on each of `tokens`; 0 where it does not fire or the token is left out. */
  readonly activations: Float32Array;
  /** Index of the peak in `tokens`. */
  readonly peak: number;
}

/** What one pass over contexts tells about every latent. A latent fires on a token where its activation is not 0. */
export interface FeatureStatistics {
  readonly dSae: number;
  readonly contexts: number;
  /** Tokens that count: all, less the special ones if they are left out. */
  readonly tokens: number;
  /** Active latents per counted token, on average. */
  readonly l0: number;
  /** Per latent, on how many counted tokens it is active. */
  readonly firingCounts: Float64Array;
  /** Per latent, its largest activation; 0 for a latent that is never positive. */
  readonly maxActivations: Float32Array;
  /** Per latent, its most negative activation; 0 for a latent that is never negative. */
  readonly minActivations: Float32Array;
  /** Per latent, its mean activation over the tokens on which it fires; 0 for a latent that never fires. */
  readonly meanActivations: Float64Array;
  /** The latents that fire at all, by log10 of the share of tokens on which they do; four bins a decade. */
  readonly densityHistogram: Histogram;
  /** How many latents never fire. */
  readonly deadLatents: number;
  /** The distribution of a latent's activations where it fires. */
  activationHistogram(latent: number): Histogram;
  /** Its largest activations, largest first, at most one per context and no two with the same tokens. */
  examples(latent: number): readonly FeatureExample[];
  /** The same of its negative activations, most negative first: as many again, since they say something else. */
  negativeExamples(latent: number): readonly FeatureExample[];
}

/** The largest magnitude of a latent's activations. */
export function strongestActivation({ maxActivations, minActivations }: FeatureStatistics, latent: number): number {
  return Math.max(maxActivations[latent]!, -minActivations[latent]!);
}

/** The latents, and how well the SAE reconstructs the same tokens. */
export interface CollectedFeatures {
  readonly statistics: FeatureStatistics;
  readonly metrics: Metrics;
}

export interface ExampleWindow {
  /** Examples kept per latent, and per sign of its activations. Default 12. */
  readonly examplesPerLatent?: number;
  /** Tokens shown before the strongest one. Default 16. */
  readonly tokensBefore?: number;
  /** Tokens shown after the strongest one. Default 8. */
  readonly tokensAfter?: number;
}

export interface FeatureOptions extends FeaturePassOptions {
  readonly contexts: Contexts;
  /** Contexts that go through the model at once. Default 8. */
  readonly contextsPerBatch?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly contexts: number; readonly tokens: number }) => void;
}

const optionNames: OptionNames<FeatureOptions> = {
  ...featurePassOptionNames,
  contexts: true,
  contextsPerBatch: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Runs contexts through the model up to the hook and through the SAE, once, and gathers the statistics of all latents
 * and the metrics of the reconstruction in that one pass.
 *
 * Memory does not grow with the number of contexts: `FeatureCollector.maximumBytes` says how much it is at most.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, ERR_NON_FINITE for NaN or infinite
 * activations, ERR_ABORTED.
 */
export async function collectFeatures(options: FeatureOptions): Promise<CollectedFeatures> {
  checkOptions("collectFeatures", options, optionNames);
  using pass = new FeaturePass(options);
  for await (const batch of contextBatches(options.contexts, options.contextsPerBatch ?? 8, options.signal)) {
    await pass.add(batch.contexts.map((tokens) => ({ tokens })));
    options.onProgress?.(pass.collector);
  }
  pass.collector.end();
  return { statistics: pass.collector.statistics(), metrics: await pass.metrics() };
}
