import type { Histogram } from "../analysis/activationHistogram.js";
import type { FeatureExample } from "../analysis/features.js";
import type { TokenEffect } from "../analysis/logitEffects.js";

/** What one pass over a corpus told about a latent: all that a page about it shows. */
export interface LatentRecord {
  readonly latent: number;
  /**
   * On how many counted tokens it is active; 0 for a latent that is dead on this corpus: then all lists are empty but
   * those that come from its decoder direction, `neighbours` and `logits`.
   */
  readonly firingCount: number;
  /** `firingCount` over the counted tokens of the corpus. */
  readonly density: number;
  readonly maxActivation: number;
  /** 0 for a latent that is never negative. */
  readonly minActivation: number;
  /** Over the tokens on which it is active. */
  readonly meanActivation: number;
  /** Of its activations where it is active. */
  readonly histogram: Histogram;
  /** Where in their contexts it is active. */
  readonly positions: PositionStatistics;
  /** Its largest activations, largest first. */
  readonly examples: readonly FeatureExample[];
  /** Its most negative ones, most negative first; empty where it is never negative. */
  readonly negativeExamples: readonly FeatureExample[];
  /** Examples from all over its range of activations, highest slice first, negative slices last. */
  readonly quantiles: readonly ActivationQuantile[];
  /** Tokens on which it is active most often. */
  readonly tokens: readonly TokenCount[];
  /** The documents with the highest mean activation. */
  readonly documents: readonly DocumentActivation[];
  /** Latents that are active on the same tokens, by the share of tokens that they have in common. */
  readonly coActive: readonly CoActiveLatent[];
  /** Latents whose decoder directions are the most similar. */
  readonly neighbours: readonly DecoderNeighbour[];
  /** Undefined where the SAE does not write to the residual stream. */
  readonly logits: LatentLogits | undefined;
}

export interface PositionStatistics {
  /** First and last position at which it is ever active, 0 the first token of a context. */
  readonly first: number;
  readonly last: number;
  /** How many of its firings are at the first counted position of a context, and at the last. */
  readonly atStart: number;
  readonly atEnd: number;
}

export interface ActivationQuantile {
  /** Activations in (low, high], where they are negative in [low, high). */
  readonly low: number;
  readonly high: number;
  /** The share of the latent's firings that lie in it. */
  readonly share: number;
  readonly examples: readonly FeatureExample[];
}

export interface TokenCount {
  readonly token: number;
  /** Firings on this token; a lower bound where the latent fires on more than 32 different ones. */
  readonly count: number;
  /** Mean activation on it, where it fires. */
  readonly meanActivation: number;
}

export interface DocumentActivation {
  /** Which document (or context, where documents are not known), in the order of the pass. */
  readonly document: number;
  /** Over all counted tokens of the document, zeros included. */
  readonly meanActivation: number;
  /** How it begins. */
  readonly tokens: Int32Array;
}

export interface CoActiveLatent {
  readonly latent: number;
  /** Tokens on which both are active over tokens on which either is (Jaccard); an estimate where it is sketched. */
  readonly overlap: number;
}

export interface DecoderNeighbour {
  readonly latent: number;
  /** Cosine of the decoder directions. */
  readonly cosine: number;
}

export interface LatentLogits {
  readonly raised: readonly TokenEffect[];
  readonly lowered: readonly TokenEffect[];
  /** Of the effects on all tokens of the vocabulary, the mean taken off. */
  readonly histogram: Histogram;
}
