import { type FeatureExample, type FeatureStatistics, strongestActivation } from "./features.js";

/** Latents with fewer examples than this say too little to be ranked. */
export const FEWEST_EXAMPLES = 5;

/**
 * The latents that a reader is likely to understand, best first, at most `count`: a choice by shape alone, without
 * looking at what the words mean. A latent ranks high when
 *
 * - it is neither rare nor common (a few tokens in a thousand: `specificity`),
 * - it fires in short bursts instead of over whole passages (`peakedness`),
 * - it fires at least as strongly as half of the latents do (`strength`),
 * - its strongest examples are about equally strong, so that they show one thing and not an outlier (`evenness`),
 * - it fires on whole words, not on pieces of words, signs or numbers (`wholeness`),
 * - on the same few words again and again (`recurrence`), but
 * - on more than one, so that it is not just the detector of a token (`variety`).
 *
 * A latent of both signs is judged by its stronger one. No two of the latents have the same most frequent word, so that
 * the page shows different things.
 */
export function rankLatents(
  statistics: FeatureStatistics,
  tokenText: (id: number) => string,
  count: number,
): readonly number[] {
  const strengths = statistics.maxActivations.map((_, latent) => strongestActivation(statistics, latent));
  const typicalStrength = median(strengths.filter((strength) => strength > 0));
  const candidates: { latent: number; score: number; word: string }[] = [];
  for (let latent = 0; latent < statistics.dSae; latent++) {
    const isPositive = strengths[latent] === statistics.maxActivations[latent];
    const examples = isPositive ? statistics.examples(latent) : statistics.negativeExamples(latent);
    if (examples.length < FEWEST_EXAMPLES) continue;
    const peaks = examples.map((example) => peakWord(example, tokenText));
    const { mostFrequent, recurrence, variety } = vocabularyOf(peaks.map(({ text }) => text));
    const score =
      specificity(statistics.firingCounts[latent]! / statistics.tokens) *
      mean(examples.map(peakedness)) *
      evenness(examples) *
      Math.min(1, strengths[latent]! / typicalStrength) *
      mean(peaks.map(({ whole }) => (whole ? 1 : 0))) *
      recurrence *
      variety;
    candidates.push({ latent, score, word: mostFrequent });
  }
  candidates.sort((a, b) => b.score - a.score || a.latent - b.latent);
  const shown: number[] = [];
  const words = new Set<string>();
  for (const { latent, word } of candidates) {
    if (shown.length === count) break;
    if (words.has(word)) continue;
    words.add(word);
    shown.push(latent);
  }
  return shown;
}

/** 1 between one token in a thousand and one in a hundred, falling to 0 within a decade and a half on both sides. */
function specificity(density: number): number {
  const decades = Math.abs(Math.log10(density) + 2.5) - 0.5;
  return Math.max(0, Math.min(1, 1 - decades / 1.5));
}

/** The peak's part of the activation in the window. */
function peakedness({ activation, activations }: FeatureExample): number {
  return Math.abs(activation) / activations.reduce((sum, value) => sum + Math.abs(value), 0);
}

/** How strong the examples are on average, next to the strongest. */
function evenness(examples: readonly FeatureExample[]): number {
  return mean(examples.map(({ activation }) => activation)) / examples[0]!.activation;
}

/** The text at the peak, and whether it is a word, not a piece of one, a number or a sign. */
function peakWord(
  { tokens, peak }: FeatureExample,
  tokenText: (id: number) => string,
): { text: string; whole: boolean } {
  const [before, at, after] = [-1, 0, 1].map((offset) => {
    const token = tokens[peak + offset];
    return token === undefined ? "" : tokenText(token);
  }) as [string, string, string];
  const continues = /[\p{L}\p{N}]$/u.test(before) && /^[\p{L}\p{N}]/u.test(at);
  const continued = /[\p{L}\p{N}]$/u.test(at) && /^[\p{L}\p{N}]/u.test(after);
  const text = at.trim().toLowerCase();
  return { text, whole: /\p{L}/u.test(text) && !continues && !continued };
}

/** What the words at the peaks of a latent's examples have in common. */
interface Vocabulary {
  readonly mostFrequent: string;
  /** The share of examples whose word is the word of another example too. */
  readonly recurrence: number;
  /** From 1/2, when one word recurs, to 1, when four or more do. */
  readonly variety: number;
}

function vocabularyOf(words: readonly string[]): Vocabulary {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const recurring = [...counts].filter(([, count]) => count > 1);
  const [mostFrequent] = [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best));
  return {
    mostFrequent,
    recurrence: recurring.reduce((sum, [, count]) => sum + count, 0) / words.length,
    variety: 0.5 + 0.5 * Math.min(1, Math.max(0, recurring.length - 1) / 3),
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: Float32Array): number {
  return values.sort()[Math.floor(values.length / 2)] ?? 0;
}
