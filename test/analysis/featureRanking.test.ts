import { expect, test } from "vitest";
import { rankLatents } from "../../lib/analysis/featureRanking.js";
import type { FeatureStatistics } from "../../lib/analysis/features.js";
import { FeatureCollector } from "../../lib/features/featureCollector.js";

/** One latent: the texts on which it fires, one context each, and how strongly on the tokens next to the peak. */
interface Latent {
  readonly peaks: readonly string[];
  readonly before?: string;
  readonly after?: string;
  readonly beside?: number;
  /** -1: its activations are negative. */
  readonly sign?: number;
}

const vocabulary: string[] = [];

function token(text: string): number {
  if (!vocabulary.includes(text)) vocabulary.push(text);
  return vocabulary.indexOf(text);
}

const tokenText = (id: number): string => vocabulary[id]!;

/** Statistics of these latents; 40 tokens of filler per context keep their densities alike and low. */
function statisticsOf(latents: readonly Latent[]): FeatureStatistics {
  const collector = new FeatureCollector(latents.length, { tokensBefore: 3, tokensAfter: 3 });
  latents.forEach(({ peaks, before = " then", after = ".", beside = 0, sign = 1 }, latent) => {
    peaks.forEach((peak, index) => {
      const texts = [` context${latent}.${index}`, before, peak, after, ...new Array<string>(40).fill(" filler")];
      const values = [0, beside * sign, 5 * sign, beside * sign];
      const active = [...values.keys()].filter((position) => values[position]! !== 0);
      collector.addContext(
        { tokens: Int32Array.from(texts, token), positions: Int32Array.from(texts.keys()) },
        {
          rowOffsets: Float64Array.from(
            { length: texts.length + 1 },
            (_, row) => active.filter((position) => position < row).length,
          ),
          features: new Uint32Array(active.length).fill(latent),
          values: Float32Array.from(active, (position) => values[position]!),
        },
        0,
      );
    });
  });
  return collector.statistics();
}

const six = (...texts: string[]): string[] => Array.from({ length: 6 }, (_, index) => texts[index % texts.length]!);

test("whole words rank before pieces of words, and signs are not words", () => {
  const statistics = statisticsOf([
    { peaks: six("?", "!") },
    { peaks: six("ing", "ed"), before: " walk" },
    { peaks: six(" take", " took") },
  ]);
  expect(rankLatents(statistics, tokenText, 3)[0]).toBe(2);
});

test("a few recurring words rank before one word, and before words that never recur", () => {
  const statistics = statisticsOf([
    { peaks: six(" only") },
    { peaks: [" a", " be", " see", " do", " eat", " fly"] },
    { peaks: six(" few", " many", " several") },
  ]);
  expect(rankLatents(statistics, tokenText, 3).slice(0, 2)).toEqual([2, 0]);
});

test("a short burst ranks before a whole passage", () => {
  const statistics = statisticsOf([{ peaks: six(" red", " blue"), beside: 4 }, { peaks: six(" one", " two") }]);
  expect(rankLatents(statistics, tokenText, 2)).toEqual([1, 0]);
});

test("a latent whose activations are negative ranks as one whose activations are positive", () => {
  const latents = [
    { peaks: six("?", "!") },
    { peaks: six(" one", " two"), beside: 4 },
    { peaks: six(" few", " many", " several"), beside: 1 },
  ];
  const ranks = rankLatents(statisticsOf(latents), tokenText, 3);
  expect(ranks[0]).toBe(2);
  for (let negative = 0; negative < 3; negative++) {
    const signed = latents.map((latent, index) => ({ ...latent, sign: index === negative ? -1 : 1 }));
    expect(rankLatents(statisticsOf(signed), tokenText, 3)).toEqual(ranks);
  }
});

test("latents with the same word are shown once, those with few examples not at all, and never more than asked for", () => {
  const statistics = statisticsOf([
    { peaks: six(" he", " she") },
    { peaks: six(" He", " She") },
    { peaks: [" cat", " dog"] },
    { peaks: six(" up", " down") },
    { peaks: [] },
  ]);
  expect([...rankLatents(statistics, tokenText, 10)].sort()).toEqual([0, 3]);
  expect(rankLatents(statistics, tokenText, 1)).toHaveLength(1);
  expect(rankLatents(statistics, tokenText, 0)).toEqual([]);
});
