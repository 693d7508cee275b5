import { readFileSync } from "node:fs";
import fc from "fast-check";
import type { Game } from "../../lib/attribution/coalitions.js";

/** The game whose coalition c, with player i where bit i of c is set, scores table[c]. */
export function tableGame(table: ArrayLike<number>): Game {
  return gameOf((members) => table[members.reduce((sum, player) => sum + 2 ** player, 0)]!);
}

export function gameOf(score: (members: readonly number[]) => number): Game {
  return ({ rows, players, present }) =>
    Array.from({ length: rows }, (_, row) =>
      score(Array.from({ length: players }, (_, i) => i).filter((i) => present[row * players + i] === 1)),
    );
}

/** Tables of random games of 1 to `most` players; small integers make ties, floats none. */
export function randomTables(most: number, least = 1): fc.Arbitrary<{ players: number; table: number[] }> {
  return fc.integer({ min: least, max: most }).chain((players) =>
    fc.record({
      players: fc.constant(players),
      table: fc.oneof(
        ...[fc.integer({ min: -3, max: 3 }), fc.double({ min: -1e3, max: 1e3, noNaN: true })].map((score) =>
          fc.array(score, { minLength: 2 ** players, maxLength: 2 ** players }),
        ),
      ),
    }),
  );
}

export function readGolden(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`../fixtures/attribution/${name}.json`, import.meta.url), "utf8"));
}

/** The largest difference of two lists of one length. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
}
