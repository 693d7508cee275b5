import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Game } from "../../lib/attribution/coalitions.js";
import { lassoPath } from "../../lib/attribution/lassoPath.js";
import { explainSamples, type FeatureSelection, lime, limeSamples } from "../../lib/attribution/lime.js";
import { randomNumbers } from "../../lib/attribution/random.js";
import { ridgeFit, weightedGram } from "../../lib/attribution/weightedGram.js";
import { WordPlayers } from "../../lib/attribution/words.js";
import { distance, gameOf, readGolden } from "./games.js";

interface Explanation {
  readonly bagOfWords: boolean;
  readonly selection: FeatureSelection | "auto";
  readonly features: number;
  readonly present: readonly string[];
  readonly scores: readonly number[];
  readonly intercept: number;
  readonly weights: readonly (readonly [player: number, weight: number])[];
  readonly rSquared: number;
  readonly localPrediction: number;
}

const golden = readGolden("lime") as {
  readonly explanations: readonly Explanation[];
  readonly distribution: {
    readonly text: string;
    readonly weights: Readonly<Record<string, number>>;
    readonly words: readonly string[];
    readonly seeds: number;
    readonly samples: number;
    readonly mean: readonly number[];
    readonly deviation: readonly number[];
  };
  readonly texts: readonly {
    readonly text: string;
    readonly bagOfWords: boolean;
    readonly words: readonly string[];
    readonly positions: readonly number[][];
    readonly removals: readonly { readonly removed: readonly number[]; readonly text: string }[];
  }[];
};

test.each(golden.explanations)(
  "the Python package lime explains the same samples the same: $selection of $features, bag of words $bagOfWords",
  (expected) => {
    const { selection, features } = expected;
    const players = expected.present[0]!.length;
    const present = Uint8Array.from(expected.present.join(""), Number);
    const found = explainSamples(
      { players, present, scores: expected.scores },
      { features, ...(selection === "auto" ? {} : { featureSelection: selection }) },
    );
    expect(found.features).toEqual(expected.weights.map(([player]) => player));
    const weights = expected.weights.map(([, weight]) => weight);
    expect(
      distance(
        Array.from(found.features, (player) => found.weights[player]!),
        weights,
      ),
    ).toBeLessThan(1e-9);
    expect(found.weights.filter((weight) => weight !== 0)).toHaveLength(weights.length);
    expect(found.intercept).toBeCloseTo(expected.intercept, 9);
    expect(found.rSquared).toBeCloseTo(expected.rSquared, 9);
    expect(found.localPrediction).toBeCloseTo(expected.localPrediction, 9);
    expect(found.full).toBe(expected.scores[0]);
  },
);

test.each(golden.texts)(
  '"$text" has lime\'s words, at its places, removed as it does: bag of words $bagOfWords',
  (expected) => {
    const { text, bagOfWords, words, positions, removals } = expected;
    const players = new WordPlayers(text, { bagOfWords, ...(bagOfWords ? {} : { mask: "UNKWORDZ" }) });
    expect(players.words).toEqual(words);
    expect(players.positions).toEqual(positions);
    for (const { removed, text: left } of removals) {
      const present = new Uint8Array(words.length).fill(1);
      for (const player of removed) present[player] = 0;
      expect(players.texts({ rows: 1, players: words.length, present })).toEqual([left]);
    }
  },
);

test("from text to weights, over many seeds, means and spreads are those of the Python package", async () => {
  const { text, weights, words, seeds, samples, mean, deviation } = golden.distribution;
  const players = new WordPlayers(text);
  expect(players.words).toEqual(words);
  const game = players.game((texts) =>
    texts.map((left) => {
      const present: readonly string[] = left.match(/[\p{L}\p{N}_]+/gu) ?? [];
      const both = present.includes("not") && present.includes("hurry") ? 2 : 0;
      return 1 / (1 + Math.exp(1 - both - present.reduce((sum, word) => sum + (weights[word] ?? 0.05), 0)));
    }),
  );
  const largest = Math.max(...mean.map(Math.abs));
  const found: Float64Array[] = [];
  for (let seed = 0; seed < seeds; seed++) {
    const options = { samples, seed, features: words.length, featureSelection: "highest-weights" as const };
    found.push((await lime(game, words.length, options)).weights);
  }
  words.forEach((word, player) => {
    const values = found.map((one) => one[player]!);
    const average = values.reduce((sum, value) => sum + value, 0) / seeds;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - average) ** 2, 0) / (seeds - 1));
    const error = Math.sqrt((spread ** 2 + deviation[player]! ** 2) / seeds);
    expect(Math.abs(average - mean[player]!), word).toBeLessThan(4 * error);
    // Small beside the weights that matter, so that this is no empty comparison.
    expect(error).toBeLessThan(0.02 * largest);
    expect(spread / deviation[player]!).toBeGreaterThan(0.6);
    expect(spread / deviation[player]!).toBeLessThan(1.6);
  });
});

test("any function of texts is a game of words", async () => {
  const players = new WordPlayers("good good bad film", {});
  const game = players.game((texts) => texts.map((text) => text.split("good").length - text.split("bad").length));
  const { weights, rSquared } = await lime(game, players.words.length, { ridge: 0, samples: 200 });
  expect(distance(weights, [2, -1, 0])).toBeLessThan(1e-9);
  expect(rSquared).toBeCloseTo(1, 12);
  expect(() => new WordPlayers(" ... ")).toThrow("has no words");
  expect(new WordPlayers("a b a", { mask: "_" }).texts({ rows: 1, players: 2, present: Uint8Array.of(0, 1) })).toEqual([
    "_ b _",
  ]);
});

const selections: readonly FeatureSelection[] = ["highest-weights", "forward-selection", "lasso-path"];

describe.each(selections)("%s", (featureSelection) => {
  test("a linear score is found exactly without a penalty, whatever the kernel", async () => {
    const weights = [2, -1, 0.5, 0, 1.5, -3];
    const game = gameOf((members) => members.reduce((sum, player) => sum + weights[player]!, 0.3));
    for (const kernelWidth of [10, 25, 80]) {
      const found = await lime(game, 6, { ridge: 0, kernelWidth, featureSelection, samples: 300 });
      expect(distance(found.weights, weights)).toBeLessThan(1e-9);
      expect(found.intercept).toBeCloseTo(0.3, 9);
      expect(found.localPrediction).toBeCloseTo(found.full, 9);
    }
  });

  test("the two players that matter are chosen among many", async () => {
    const game = gameOf((members) => 3 * Number(members.includes(4)) - 2 * Number(members.includes(11)));
    const { features } = await lime(game, 15, { features: 2, featureSelection });
    expect(features).toEqual([4, 11]);
  });

  test("a score that never changes has weights 0", async () => {
    const found = await lime(
      gameOf(() => 7),
      5,
      { featureSelection },
    );
    expect(Math.max(...found.weights.map(Math.abs))).toBe(0);
    expect(found).toMatchObject({ intercept: 7, rSquared: 1, localPrediction: 7 });
  });

  test("players who are always there or gone together share their weight", () => {
    const present = limeSamples(3, 100, randomNumbers(1)).map((value, i, all) => (i % 3 === 2 ? all[i - 1]! : value));
    const scores = Array.from({ length: 100 }, (_, row) => present[3 * row]! + 4 * present[3 * row + 1]!);
    const { weights, rSquared } = explainSamples({ players: 3, present, scores }, { ridge: 0, featureSelection });
    expect(weights[0]).toBeCloseTo(1, 6);
    expect(weights[1]! + weights[2]!).toBeCloseTo(4, 6);
    expect(rSquared).toBeCloseTo(1, 9);
  });
});

const problems = fc.record({
  players: fc.integer({ min: 1, max: 6 }),
  seed: fc.integer({ min: 0, max: 1000 }),
  scores: fc.array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: 40, maxLength: 40 }),
});

test("the lasso's path: correlations of active features are equal and the largest, and it ends at least squares", () => {
  fc.assert(
    fc.property(problems, ({ players, seed, scores }) => {
      const random = randomNumbers(seed);
      const weights = Float64Array.from(scores, () => 0.5 + random()); // no two correlations are the same
      const weighted = weightedGram(players, limeSamples(players, 40, randomNumbers(seed)), weights, scores);
      const corners = lassoPath(weighted);
      expect(corners[0]).toEqual(new Float64Array(players));
      const start = Math.max(...weighted.products.map(Math.abs));
      let before = Number.POSITIVE_INFINITY;
      for (const corner of corners) {
        const correlations = weighted.products.map(
          (product, i) => product - corner.reduce((sum, c, j) => sum + weighted.gram[i * players + j]! * c, 0),
        );
        const size = Math.max(...correlations.map(Math.abs));
        corner.forEach((c, i) => {
          if (c !== 0) expect(Math.abs(correlations[i]! - Math.sign(c) * size)).toBeLessThan(1e-8 * start);
        });
        expect(size).toBeLessThanOrEqual(before + 1e-9 * start);
        before = size;
      }
      const all = Array.from({ length: players }, (_, i) => i);
      expect(distance(corners.at(-1)!, ridgeFit(weighted, all, 0).coefficients)).toBeLessThan(1e-6);
    }),
  );
});

test("features with the same correlation enter the lasso's path together, copies of one another once", () => {
  // Two independent features of the same weight, and a copy of the second.
  const present = [1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0];
  const corners = lassoPath(weightedGram(3, present, [1, 1, 1, 1], [4, 2, 2, 0]));
  expect(distance(corners.at(-1)!, [2, 2, 0])).toBeLessThan(1e-12);
  for (const [first, second, copy] of corners) {
    expect(second).toBeCloseTo(first!, 12);
    expect(copy).toBe(0);
  }
});

test("samples remove 1 to all players with equal probability, any player as often as any other; the first is whole", () => {
  const [players, samples] = [8, 8001];
  const present = limeSamples(players, samples, randomNumbers(3));
  expect(present.subarray(0, players)).toEqual(new Uint8Array(players).fill(1));
  const sizes = new Float64Array(players + 1);
  const removals = new Float64Array(players);
  for (let row = 1; row < samples; row++) {
    const of = present.subarray(row * players, (row + 1) * players);
    sizes[players - of.reduce((sum, value) => sum + value, 0)]! += 1;
    of.forEach((value, player) => {
      removals[player]! += 1 - value;
    });
  }
  // 8000 draws: 1000 of each size, with a deviation of 30; 4500 of each player, with one of 45 or less.
  expect(sizes[0]).toBe(0);
  for (const size of sizes.subarray(1)) expect(Math.abs(size - 1000)).toBeLessThan(4 * 30);
  for (const removed of removals) expect(Math.abs(removed - 4500)).toBeLessThan(4 * 45);
});

test("the seed alone decides; impossible options are refused", async () => {
  const game: Game = gameOf((members) => members.length ** 2 + (members[0] ?? 0));
  const options = { samples: 30, ridge: 0 };
  expect(await lime(game, 6, options)).toEqual(await lime(game, 6, options));
  expect((await lime(game, 6, { ...options, seed: 1 })).weights).not.toEqual((await lime(game, 6, options)).weights);
  for (const [bad, message] of [
    [{ samples: 1 }, "samples must be an integer of at least 2, found 1"],
    [{ features: 0 }, "features must be a positive integer, found 0"],
    [{ kernelWidth: 0 }, "kernelWidth must be above 0"],
    [{ ridge: -1 }, "ridge must be a number of at least 0"],
  ] as const) {
    await expect(lime(game, 6, bad)).rejects.toThrow(message);
  }
});
