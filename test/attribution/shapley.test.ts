import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Evaluator, type Game, type GameOptions } from "../../lib/attribution/coalitions.js";
import { constrainedFit, kernelCoalitions, kernelShapley } from "../../lib/attribution/kernelShapley.js";
import { owenValues } from "../../lib/attribution/owenValues.js";
import { type PlayerTree, textTree } from "../../lib/attribution/playerTree.js";
import { randomNumbers } from "../../lib/attribution/random.js";
import {
  exactShapley,
  permutationShapley,
  type ShapleyValues,
  shapleyOfOrders,
} from "../../lib/attribution/shapley.js";
import { distance, gameOf, randomTables, readGolden, tableGame } from "./games.js";

interface Case {
  readonly table: readonly number[];
  readonly values: readonly number[];
}

const golden = readGolden("shapley") as {
  readonly exact: readonly Case[];
  readonly permutation: readonly (Case & { readonly orders: readonly number[][] })[];
  readonly kernel: readonly (Case & { samples: number; present: number[][]; weights: number[] })[];
  readonly partition: readonly (Case & { readonly tree: PlayerTree; readonly evaluations: number })[];
};

describe("the Python package shap gives the same", () => {
  test.each(golden.exact)("exact values", async ({ table, values }) => {
    const found = await exactShapley(tableGame(table), values.length);
    expect(distance(found.values, values)).toBeLessThan(1e-9);
    expect(found).toMatchObject({ empty: table[0], full: table.at(-1), evaluations: table.length });
  });

  test.each(golden.permutation)("permutation values, from the same orders", async ({ table, orders, values }) => {
    const { values: found } = await shapleyOfOrders(new Evaluator(tableGame(table), values.length, {}), orders);
    expect(distance(found, values)).toBeLessThan(1e-9);
  });

  test.each(golden.kernel)("kernel values, from the same $samples coalitions and weights", async (expected) => {
    const { table, present, weights, values } = expected;
    const scores = await new Evaluator(tableGame(table), values.length, {}).scores(Uint8Array.from(present.flat()));
    const ends = { empty: table[0]!, full: table.at(-1)! };
    const found = constrainedFit({ players: values.length, present: present.flat(), weights, scores, ...ends });
    expect(distance(found, values)).toBeLessThan(1e-6);
  });

  test.each(golden.kernel)("of $samples coalitions the whole sizes, and their weights", ({ values, ...expected }) => {
    const players = values.length;
    const found = kernelCoalitions(players, expected.samples, randomNumbers(0));
    const key = (row: ArrayLike<number>): string => Array.from(row).join("");
    const weightOf = new Map(expected.present.map((row, i) => [key(row), expected.weights[i]!]));
    for (let row = 0; row < found.complete; row++) {
      const present = found.present.subarray(row * players, (row + 1) * players);
      expect(found.weights[row]).toBeCloseTo(weightOf.get(key(present))!, 12);
    }
    // shap's whole sizes come first, too, and are followed by coalitions of sizes between them.
    const size = (row: ArrayLike<number>): number => Array.from(row).reduce((sum, value) => sum + value, 0);
    const outermost = expected.present.findIndex(
      (row) =>
        Math.min(size(row), players - size(row)) > innermost(found.present.subarray(0, found.complete * players)),
    );
    expect(outermost === -1 ? expected.present.length : outermost).toBe(found.complete);
    function innermost(rows: Uint8Array): number {
      const sizes = Array.from({ length: found.complete }, (_, r) =>
        size(rows.subarray(r * players, (r + 1) * players)),
      );
      return Math.max(...sizes.map((value) => Math.min(value, players - value)));
    }
  });

  test.each(golden.partition)("Owen values with $evaluations evaluations", async (expected) => {
    const { table, tree, evaluations, values } = expected;
    const found = await owenValues(tableGame(table), tree, { evaluations, batchSize: 2 });
    expect(distance(found.values, values)).toBeLessThan(1e-9);
    expect(found.evaluations).toBeLessThanOrEqual(evaluations);
  });
});

/** A balanced tree, as good as any. */
const tree = (players: number): PlayerTree => textTree(new Array(Math.max(1, players)).fill("a"));

const estimators: readonly (readonly [
  name: string,
  estimate: (game: Game, players: number, options?: GameOptions) => Promise<ShapleyValues>,
])[] = [
  ["exact", exactShapley],
  [
    "permutation",
    (game, players, options) => permutationShapley(game, players, { permutations: 3, seed: 5, ...options }),
  ],
  ["kernel, all coalitions", kernelShapley],
  [
    "kernel, sampled",
    (game, players, options) => kernelShapley(game, players, { samples: 2 * players + 1, ...options }),
  ],
  ["Owen", (game, players, options) => owenValues(game, tree(players), options)],
  ["Owen, cut short", (game, players, options) => owenValues(game, tree(players), { evaluations: 5, ...options })],
];

// Where an Owen tree is cut short depends on the game, so that those values are no linear function of it.
test.each(estimators.filter(([name]) => name !== "Owen, cut short"))(
  "%s: values of a sum of games are the sums of their values",
  async (_name, estimate) => {
    await fc.assert(
      fc.asyncProperty(randomTables(5, 5), randomTables(5, 5), async ({ table: a }, { table: b }) => {
        const sums = a.map((value, i) => 2 * value - b[i]!);
        const [va, vb, vs] = await Promise.all([a, b, sums].map((table) => estimate(tableGame(table), 5)));
        const expected = va!.values.map((value, i) => 2 * value - vb!.values[i]!);
        expect(distance(vs!.values, expected)).toBeLessThan(1e-9 * Math.max(1, ...sums.map(Math.abs)));
      }),
      { numRuns: 30 },
    );
  },
);

describe.each(estimators)("%s", (name, estimate) => {
  test("values add up to what all players gain", async () => {
    await fc.assert(
      fc.asyncProperty(randomTables(7), async ({ players, table }) => {
        const { values, empty, full } = await estimate(tableGame(table), players);
        expect([empty, full]).toEqual([table[0], table.at(-1)]);
        const sum = values.reduce((total, value) => total + value, 0);
        expect(Math.abs(sum - (full - empty))).toBeLessThan(1e-9 * Math.max(1, ...table.map(Math.abs)));
      }),
      { numRuns: 60 },
    );
  });

  test("a linear game gives each player its weight", async () => {
    const weights = [2, -1, 0.5, 0, 1.5, 3, -2];
    const game = gameOf((members) => members.reduce((sum, player) => sum + weights[player]!, 0.3));
    const { values } = await estimate(game, weights.length);
    // Cut short, a group's gain is shared equally.
    if (name !== "Owen, cut short") expect(distance(values, weights)).toBeLessThan(1e-9);
  });

  test("one player gains everything", async () => {
    expect(Array.from((await estimate(tableGame([1, 3]), 1)).values)).toEqual([2]);
  });

  test("the game is asked in batches, for nothing twice, and told to stop", async () => {
    const asked: string[] = [];
    const counts: number[] = [];
    const controller = new AbortController();
    const game: Game = ({ rows, players, present }) => {
      expect(rows).toBeLessThanOrEqual(4);
      for (let row = 0; row < rows; row++) asked.push(present.subarray(row * players, (row + 1) * players).join(""));
      return new Float32Array(rows);
    };
    const { evaluations } = await estimate(game, 6, {
      batchSize: 4,
      onProgress: (progress) => counts.push(progress.evaluations),
    });
    expect(new Set(asked).size).toBe(asked.length);
    expect(evaluations).toBe(asked.length);
    expect(counts.at(-1)).toBe(evaluations);
    const stopped = estimate(
      (coalitions) => {
        controller.abort();
        return game(coalitions);
      },
      6,
      { batchSize: 4, signal: controller.signal },
    );
    await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });

  test("NaN and too few scores are refused", async () => {
    await expect(estimate(({ rows }) => new Array(rows).fill(Number.NaN), 3)).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
    });
    await expect(estimate(() => [1], 3)).rejects.toThrow("asked for the scores of");
  });
});

const shapleyEstimators = estimators.filter(([name]) => ["exact", "kernel, all coalitions"].includes(name));

describe.each(shapleyEstimators)("%s", (_name, estimate) => {
  test.each([
    ["glove game: one left, two right gloves", [0, 0, 0, 1, 0, 1, 0, 1], [2 / 3, 1 / 6, 1 / 6]],
    ["airport game with costs 1, 2, 3", [0, 1, 2, 2, 3, 3, 3, 3], [1 / 3, 5 / 6, 11 / 6]],
    ["majority of three", [0, 0, 0, 1, 0, 1, 1, 1], [1 / 3, 1 / 3, 1 / 3]],
    ["product of two, and a player who does nothing", [0, 0, 0, 1, 0, 0, 0, 1], [1 / 2, 1 / 2, 0]],
    ["exclusive or of two", [0, 1, 1, 0], [0, 0]],
  ] as const)("%s", async (_game, table, values) => {
    const found = await estimate(tableGame(table), values.length);
    expect(distance(found.values, values)).toBeLessThan(1e-12);
  });

  test("players who always contribute the same get the same, those who contribute nothing get nothing", async () => {
    await fc.assert(
      fc.asyncProperty(randomTables(4), async ({ players, table }) => {
        // Player n does nothing; player n + 1 is the twin of player 0.
        const game = gameOf((members) => {
          const low = members.filter((player) => player > 0 && player < players);
          const twins = Number(members.includes(0)) + Number(members.includes(players + 1));
          return table[low.reduce((sum, player) => sum + 2 ** player, 0)]! * (1 + twins ** 2);
        });
        const { values } = await estimate(game, players + 2);
        const scale = Math.max(1, ...table.map(Math.abs));
        expect(Math.abs(values[players]!)).toBeLessThan(1e-9 * scale);
        expect(Math.abs(values[0]! - values[players + 1]!)).toBeLessThan(1e-9 * scale);
      }),
    );
  });
});

test("all coalitions in the kernel's fit give the exact values", async () => {
  await fc.assert(
    fc.asyncProperty(randomTables(8), async ({ players, table }) => {
      const [exact, kernel] = [
        await exactShapley(tableGame(table), players),
        await kernelShapley(tableGame(table), players),
      ];
      expect(distance(kernel.values, exact.values)).toBeLessThan(1e-9 * Math.max(1, ...table.map(Math.abs)));
    }),
  );
});

test("one order and its reverse are exact where players interact in pairs: shap's z0 z2 + z1 + z2 + z2 z3", async () => {
  const score = (z: readonly number[]): number => z[0]! * z[2]! + z[1]! + z[2]! + z[2]! * z[3]!;
  const game = gameOf((members) => score([0, 1, 2, 3, 4].map((player) => Number(members.includes(player)))));
  const { values, standardErrors } = await permutationShapley(game, 5, { permutations: 4 });
  expect(distance(values, [0.5, 1, 2, 0.5, 0])).toBeLessThan(1e-12);
  expect(Math.max(...standardErrors)).toBeLessThan(1e-7);
});

test("permutation estimates come as near to the exact values as their standard errors say", async () => {
  const random = randomNumbers(9);
  const table = Array.from({ length: 2 ** 8 }, () => random());
  const exact = await exactShapley(tableGame(table), 8);
  const { values, standardErrors } = await permutationShapley(tableGame(table), 8, { permutations: 400, seed: 1 });
  const deviations = values.map((value, i) => (value - exact.values[i]!) / standardErrors[i]!);
  expect(Math.max(...deviations.map(Math.abs))).toBeLessThan(4);
  expect(Math.hypot(...deviations)).toBeGreaterThan(0.5);
  const single = await permutationShapley(tableGame(table), 8, { permutations: 1 });
  expect(single.standardErrors).toEqual(new Float64Array(8).fill(Number.NaN));
});

test("sampled kernel estimates are near the exact values, nearer with more samples, and depend on the seed alone", async () => {
  const random = randomNumbers(2);
  const table = Array.from({ length: 2 ** 12 }, () => random());
  const exact = await exactShapley(tableGame(table), 12);
  const errorOf = async (samples: number, seed: number): Promise<number> => {
    const { values, evaluations } = await kernelShapley(tableGame(table), 12, { samples, seed });
    expect(evaluations).toBeLessThanOrEqual(samples + 2);
    return Math.hypot(...values.map((value, i) => value - exact.values[i]!));
  };
  const means = [0, 0];
  for (let seed = 0; seed < 20; seed++) {
    means[0]! += (await errorOf(100, seed)) / 20;
    means[1]! += (await errorOf(1600, seed)) / 20;
  }
  // Errors of independent samples fall as 1 / sqrt(samples), here to a quarter.
  expect(means[1]).toBeLessThan(means[0]! / 3);
  expect(await errorOf(100, 3)).toBe(await errorOf(100, 3));
  expect(await errorOf(100, 3)).not.toBe(await errorOf(100, 4));
});

test("the kernel's sampled coalitions come with their complements, none twice, and weigh what their sizes do", () => {
  for (const [players, samples] of [
    [6, 40],
    [9, 100],
    [13, 333],
    [30, 500],
  ] as const) {
    const { present, weights, complete } = kernelCoalitions(players, samples, randomNumbers(0));
    const rows = Array.from({ length: weights.length }, (_, row) =>
      present.subarray(row * players, (row + 1) * players),
    );
    const weightOf = new Map(rows.map((row, i) => [row.join(""), weights[i]!]));
    expect(weightOf.size).toBe(rows.length);
    expect(rows.length).toBeLessThanOrEqual(samples);
    expect(complete).toBeGreaterThanOrEqual(2 * players);
    expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 12);
    for (const row of rows) {
      const other = weightOf.get(row.map((value) => 1 - value).join(""));
      expect(other).toBeCloseTo(weightOf.get(row.join(""))!, 12);
    }
  }
});

test.each([
  ["glove", [0, 0, 0, 1, 0, 1, 0, 1], [[1, 2], 0], [0.5, 0.25, 0.25]],
  ["airport", [0, 1, 2, 2, 3, 3, 3, 3], [[0, 1], 2], [0.25, 0.75, 2]],
  [
    "unanimity of 0, 1, 2",
    Array.from({ length: 16 }, (_, c) => Number((c & 7) === 7)),
    [
      [0, 1],
      [2, 3],
    ],
    [0.25, 0.25, 0.5, 0],
  ],
] as readonly (readonly [string, readonly number[], PlayerTree, readonly number[]])[])(
  "Owen values of the %s game, whose groups bargain first",
  async (_name, table, groups, values) => {
    expect(distance((await owenValues(tableGame(table), groups)).values, values)).toBeLessThan(1e-12);
  },
);

test("a text is parted at sentences, then clauses, words and pieces of words, and near the middle", () => {
  expect(textTree(["He", " ran", ".", " She", ",", " too", ",", " r", "an", "."])).toEqual([
    [0, [1, 2]],
    [
      [
        [3, 4],
        [5, 6],
      ],
      [7, [8, 9]],
    ],
  ]);
  expect(textTree(["a", "b", "c", "d"])).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect(textTree(["alone"])).toBe(0);
  expect(textTree(["Go", ".", '"', " he", " said"])).toEqual([
    [0, [1, 2]],
    [3, 4],
  ]);
});

test("too many players, too few samples and broken trees are refused, with what is possible", async () => {
  const game = gameOf(() => 0);
  expect(() => textTree([])).toThrow("a tree needs a player");
  await expect(exactShapley(game, 0)).rejects.toThrow("players must be a positive integer, found 0");
  await expect(exactShapley(game, 3, { batchSize: 0 })).rejects.toThrow("batchSize must be a positive integer");
  await expect(exactShapley(game, 21)).rejects.toThrow("up to 20 players are possible");
  await expect(kernelShapley(game, 10, { samples: 19 })).rejects.toThrow("at least 20 for 10 players, found 19");
  await expect(permutationShapley(game, 3, { permutations: 0 })).rejects.toThrow("permutations must be a positive");
  await expect(permutationShapley(game, 3, { seed: -1 })).rejects.toThrow("a seed is an integer");
  await expect(owenValues(game, [0, [1, 1]])).rejects.toThrow("found 0, 1, 1");
  await expect(owenValues(game, [0, 1], { evaluations: 1 })).rejects.toThrow("at least 2, found 1");
});
