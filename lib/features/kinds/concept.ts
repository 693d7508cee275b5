import { requirePair } from "../../analysis/checkPair.js";
import { checkLatents } from "../../analysis/latentWriting.js";
import { throwIfAborted } from "../../errors.js";
import { probeMetrics } from "../../probing/probeMetrics.js";
import { activationsOnText, type FeatureActivationOptions } from "../featureActivations.js";

/** How well one latent tells labelled texts apart. */
export interface ConceptFigures {
  readonly latent: number;
  /**
   * Area under the ROC curve of its largest activation on a text: the probability that it is larger on a text with the
   * label than on one without, ties counting half. 0.5 says nothing, 1 that it is the concept, 0 that it is its absence.
   */
  readonly auroc: number;
}

export const conceptDefinition: string =
  "concept: AUROC of its largest activation on a text as a score for the label; 0.5 says nothing";

export interface ConceptOptions extends Omit<FeatureActivationOptions, "text"> {
  readonly texts: readonly string[];
  /** 1 where a text has the label. */
  readonly labels: ArrayLike<number>;
  /** Which latents. Default: all that are active on any text. */
  readonly latents?: readonly number[];
  readonly signal?: AbortSignal;
}

/**
 * In the order of `latents`, or where they are not given by how far the AUROC is from 0.5.
 *
 * @throws MonosemError as `featureActivations`; ERR_INVALID_ARGUMENT for labels that are all the same, for a latent
 * that the SAE does not have, for one named twice, and for none; ERR_ABORTED
 */
export async function conceptFigures(options: ConceptOptions): Promise<ConceptFigures[]> {
  const { model, sae, texts, labels, latents } = options;
  requirePair(model, sae);
  if (latents !== undefined) checkLatents(latents, sae.config.dSae);
  const largest = new Map<number, Float64Array>();
  for (const [index, text] of texts.entries()) {
    throwIfAborted(options.signal, "the correlation with labels");
    for (const { latent, activations } of (await activationsOnText({ ...options, text })).latents) {
      const scores = largest.get(latent) ?? new Float64Array(texts.length);
      scores[index] = activations.reduce((most, value) => Math.max(most, value), 0);
      largest.set(latent, scores);
    }
  }
  const figures = (latent: number): ConceptFigures => ({
    latent,
    auroc: probeMetrics(largest.get(latent) ?? new Float64Array(texts.length), labels).auroc,
  });
  if (latents !== undefined) return latents.map(figures);
  const found = [...largest.keys()].map(figures);
  return found.sort((a, b) => Math.abs(b.auroc - 0.5) - Math.abs(a.auroc - 0.5) || a.latent - b.latent);
}
