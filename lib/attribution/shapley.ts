/**
 * Shapley values (Shapley 1953): each player's share of what the coalition of all scores above the empty one, as its
 * average contribution over all orders of joining. What every estimator here gives adds up to that difference.
 */
import { MonosemError } from "../errors.js";
import { Evaluator, type Game, type GameOptions } from "./coalitions.js";
import { randomNumbers, randomOrder } from "./random.js";

export interface ShapleyValues {
  /** [players]; they add up to full - empty, but for rounding. */
  readonly values: Float64Array;
  /** The score with no player. */
  readonly empty: number;
  /** The score with all players. */
  readonly full: number;
  /** Different coalitions that the game was asked for. */
  readonly evaluations: number;
}

/** The scores of no player and of all players. */
export async function scoreEnds(evaluator: Evaluator): Promise<{ readonly empty: number; readonly full: number }> {
  const { players } = evaluator;
  const [empty, full] = await evaluator.scores(new Uint8Array(2 * players).fill(1, players));
  return { empty: empty!, full: full! };
}

const MOST_PLAYERS = 20;

/**
 * The values themselves, from all 2^players coalitions:
 *
 *   φ_i = Σ_{S without i} |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for more than 20 players; what the game throws
 */
export async function exactShapley(game: Game, players: number, options: GameOptions = {}): Promise<ShapleyValues> {
  if (players > MOST_PLAYERS) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `exact Shapley values of ${players} players need 2^${players} evaluations; up to ${MOST_PLAYERS} players are ` +
        "possible: use permutationShapley, kernelShapley or owenValues",
    );
  }
  const evaluator = new Evaluator(game, players, options);
  const count = 2 ** players;
  // Coalition c holds player i where bit i of c is set.
  const scores = await evaluator.scores(
    Uint8Array.from({ length: count * players }, (_, i) => (Math.floor(i / players) >> (i % players)) & 1),
  );
  // |S|! (n - |S| - 1)! / n! = 1 / (n binomial(n - 1, |S|))
  const weights = [1 / players];
  for (let size = 1; size < players; size++) weights.push((weights[size - 1]! * size) / (players - size));
  const values = new Float64Array(players);
  for (let coalition = 0; coalition < count; coalition++) {
    const size = bitCount(coalition);
    for (let player = 0; player < players; player++) {
      const bit = 2 ** player;
      if ((coalition & bit) !== 0) continue;
      values[player]! += weights[size]! * (scores[coalition + bit]! - scores[coalition]!);
    }
  }
  return { values, empty: scores[0]!, full: scores[count - 1]!, evaluations: evaluator.evaluations };
}

function bitCount(word: number): number {
  let count = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}

export interface PermutationOptions extends GameOptions {
  /** Orders that are drawn, each of which is also taken backwards; 2 x players evaluations each. */
  readonly permutations?: number;
  readonly seed?: number;
}

/** Estimates, and how far each may be off. */
export interface EstimatedShapleyValues extends ShapleyValues {
  /** Of each value, over the permutations (a pair of orders counting as one draw); NaN where there was one only. */
  readonly standardErrors: Float64Array;
}

/**
 * Estimated from random orders of joining (Castro et al. 2009), each with its reverse (antithetic sampling, Mitchell et
 * al. 2022, arXiv:2104.12199): unbiased, and exact where players interact in pairs at most.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT; what the game throws
 */
export async function permutationShapley(
  game: Game,
  players: number,
  options: PermutationOptions = {},
): Promise<EstimatedShapleyValues> {
  const { permutations = 10, seed = 0 } = options;
  if (!Number.isSafeInteger(permutations) || permutations < 1) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `permutations must be a positive integer, found ${permutations}`);
  }
  const random = randomNumbers(seed);
  const evaluator = new Evaluator(game, players, options);
  const orders = Array.from({ length: permutations }, () => randomOrder(players, random));
  return await shapleyOfOrders(evaluator, orders);
}

/** The estimate from these orders of joining. */
export async function shapleyOfOrders(
  evaluator: Evaluator,
  orders: readonly ArrayLike<number>[],
): Promise<EstimatedShapleyValues> {
  const { players } = evaluator;
  const { empty, full } = await scoreEnds(evaluator);
  const sum = new Float64Array(players);
  const squares = new Float64Array(players);
  for (const order of orders) {
    // Rows 0 ... n: players join in that order; rows n ... 2 n: they leave in the same order, which is joining in reverse.
    const present = new Uint8Array((2 * players + 1) * players);
    for (let place = 0; place < players; place++) {
      for (let row = place + 1; row <= place + players; row++) present[row * players + order[place]!] = 1;
    }
    const scores = await evaluator.scores(present);
    for (let place = 0; place < players; place++) {
      const joined = scores[place + 1]! - scores[place]!;
      const left = scores[players + place]! - scores[players + place + 1]!;
      const mean = (joined + left) / 2;
      sum[order[place]!]! += mean;
      squares[order[place]!]! += mean ** 2;
    }
  }
  const count = orders.length;
  return {
    values: sum.map((value) => value / count),
    standardErrors: sum.map((value, player) =>
      Math.sqrt(Math.max(0, squares[player]! - value ** 2 / count) / (count - 1) / count),
    ),
    empty,
    full,
    evaluations: evaluator.evaluations,
  };
}
