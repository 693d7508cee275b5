import type { FeatureExample, FeatureStatistics } from "./features.js";

/** Latents with fewer examples than this say too little to be shown first. */
const FEWEST_EXAMPLES = 5;

/**
 * The latents that a reader is likely to understand, best first, at most `count`: a choice by shape alone, without
 * looking at what the tokens mean. A latent ranks high when
 *
 * - it is neither rare nor common (about one token in a thousand: `specificity`),
 * - it fires in short bursts instead of over whole passages (`peakedness`),
 * - its strongest examples are about equally strong, so that they show one thing and not an outlier (`evenness`), and
 * - they agree on the token it fires on, or on the one before it (`agreement`).
 *
 * No two of the latents agree on the same token, so that the page shows different things.
 */
export function rankLatents(
  statistics: FeatureStatistics,
  tokenText: (id: number) => string,
  count: number,
): readonly number[] {
  const candidates: { latent: number; score: number; theme: string }[] = [];
  for (let latent = 0; latent < statistics.dSae; latent++) {
    const examples = statistics.examples(latent);
    if (examples.length < FEWEST_EXAMPLES) continue;
    const agreement = agreementOf(examples, tokenText);
    const score =
      specificity(statistics.firingCounts[latent]! / statistics.tokens) *
      mean(examples.map(peakedness)) *
      (mean(examples.map((example) => example.activation)) / examples[0]!.activation) *
      (0.5 + 0.5 * agreement.share);
    candidates.push({ latent, score, theme: agreement.theme });
  }
  candidates.sort((a, b) => b.score - a.score || a.latent - b.latent);
  const shown: number[] = [];
  const themes = new Set<string>();
  for (const { latent, theme } of candidates) {
    if (shown.length === count) break;
    if (themes.has(theme)) continue;
    themes.add(theme);
    shown.push(latent);
  }
  return shown;
}

/** 1 for a latent that fires on one token in a thousand, falling to 0 at two decades from that. */
function specificity(density: number): number {
  return Math.max(0, 1 - Math.abs(Math.log10(density) + 3) / 2);
}

/** The peak's part of the activation in the window. */
function peakedness({ activation, activations }: FeatureExample): number {
  return activation / activations.reduce((sum, value) => sum + value, 0);
}

/** The text that most examples have at their peak, or just before it, and the share of examples that have it. */
function agreementOf(
  examples: readonly FeatureExample[],
  tokenText: (id: number) => string,
): { theme: string; share: number } {
  let best = { theme: "", share: 0 };
  for (const offset of [0, -1]) {
    const counts = new Map<string, number>();
    for (const { tokens, peak } of examples) {
      const token = tokens[peak + offset];
      if (token === undefined) continue;
      const text = tokenText(token).trim().toLowerCase();
      const agreeing = (counts.get(text) ?? 0) + 1;
      counts.set(text, agreeing);
      if (agreeing / examples.length > best.share) best = { theme: text, share: agreeing / examples.length };
    }
  }
  return best;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
