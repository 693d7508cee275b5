import { MonosemError, throwIfAborted } from "../../errors.js";
import { activationsOnText, type FeatureActivationOptions } from "../featureActivations.js";
import type { FeatureStore } from "../featureStore.js";
import { checkStore } from "../storeSae.js";

/** What a latent does on a list of texts that somebody worries about. */
export interface SafetyFigures {
  readonly latent: number;
  /** The share of the listed texts on which it fires. */
  readonly share: number;
  /** The share that its density in the store's corpus makes one expect, were each token on its own. */
  readonly expected: number;
  /** Its largest activation on the list, over the largest in the store's corpus; infinite if it never fires there. */
  readonly strength: number;
}

export const safetyDefinition: string =
  "safety: the share of the listed texts on which it fires, against the share that its density in the corpus makes one expect; its largest activation there over the largest in the corpus";

export interface SafetyOptions extends Omit<FeatureActivationOptions, "text"> {
  readonly store: FeatureStore;
  /** The list: texts with what must not happen, one by one. */
  readonly texts: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * All latents that fire on any of the texts, by how far their share is above the expected one.
 *
 * @throws MonosemError as `featureActivations`; ERR_CONFIG for an empty list, or a store of another SAE; ERR_ABORTED
 */
export async function redTeamScan(options: SafetyOptions): Promise<SafetyFigures[]> {
  const { sae, store, texts } = options;
  const { firingCounts, maxActivations, minActivations, tokens } = store.summary;
  if (texts.length === 0) throw new MonosemError("ERR_CONFIG", "the list of texts to scan is empty");
  await checkStore(store, sae, options);
  const found = new Map<number, { texts: number; largest: number }>();
  const lengths: number[] = [];
  for (const text of texts) {
    throwIfAborted(options.signal, "the scan");
    const activations = await activationsOnText({ ...options, text });
    lengths.push(activations.tokens.length);
    for (const { latent, activation } of activations.latents) {
      const sofar = found.get(latent) ?? { texts: 0, largest: 0 };
      found.set(latent, {
        texts: sofar.texts + 1,
        largest: Math.max(sofar.largest, Math.abs(activation)),
      });
    }
  }
  const figures = [...found].map(([latent, { texts: fires, largest }]) => {
    const silent = 1 - firingCounts[latent]! / tokens;
    const expected = lengths.reduce((sum, length) => sum + (1 - silent ** length), 0) / texts.length;
    const most = Math.max(maxActivations[latent]!, -minActivations[latent]!);
    return {
      latent,
      share: fires / texts.length,
      expected,
      strength: most === 0 ? Number.POSITIVE_INFINITY : largest / most,
    };
  });
  return figures.sort((a, b) => b.share - b.expected - (a.share - a.expected) || a.latent - b.latent);
}
