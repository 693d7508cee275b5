/**
 * Kernel SHAP (Lundberg and Lee 2017, arXiv:1705.07874): Shapley values as the weighted least-squares fit of an additive
 * game, whose weights are (n - 1) / (binomial(n, s) s (n - s)) for coalitions of s players. Whole sizes are taken while
 * the budget allows it, from the outside (1 and n - 1, ...), the rest is sampled, each coalition with its complement.
 */
import { CholeskyDecomposition, Matrix } from "ml-matrix";
import { MonosemError } from "../errors.js";
import { Evaluator, type Game, type GameOptions, keyOf } from "./coalitions.js";
import { randomNumbers, randomOrder } from "./random.js";
import { type ShapleyValues, scoreEnds } from "./shapley.js";

export interface KernelOptions extends GameOptions {
  /** Coalitions besides the empty and the full one; by default 2 x players + 2048. All of them, and the values are exact. */
  readonly samples?: number;
  readonly seed?: number;
}

/**
 * @throws MonosemError ERR_INVALID_ARGUMENT for fewer samples than 2 x players, with which there may be no unique fit
 *   (unless those are all coalitions); what the game throws
 */
export async function kernelShapley(game: Game, players: number, options: KernelOptions = {}): Promise<ShapleyValues> {
  const evaluator = new Evaluator(game, players, options);
  const { empty, full } = await scoreEnds(evaluator);
  if (players === 1) {
    return { values: Float64Array.of(full - empty), empty, full, evaluations: evaluator.evaluations };
  }
  const all = players <= 50 ? 2 ** players - 2 : Number.POSITIVE_INFINITY;
  const { samples = 2 * players + 2048, seed = 0 } = options;
  if (!Number.isSafeInteger(samples) || samples < Math.min(2 * players, all)) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `samples must be an integer of at least ${Math.min(2 * players, all)} for ${players} players, found ${samples}`,
    );
  }
  const { present, weights } = kernelCoalitions(players, Math.min(samples, all), randomNumbers(seed));
  const scores = await evaluator.scores(present);
  const values = constrainedFit({ players, present, weights, scores, empty, full });
  return { values, empty, full, evaluations: evaluator.evaluations };
}

export interface WeightedCoalitions {
  /** [rows, players] */
  readonly present: Uint8Array;
  /** [rows]; they add up to 1. */
  readonly weights: Float64Array;
  /** Rows at the beginning that are whole sizes, and so no estimate. */
  readonly complete: number;
}

/** @param samples - from 2 x players to all 2^players - 2 */
export function kernelCoalitions(players: number, samples: number, random: () => number): WeightedCoalitions {
  const pairs = sizePairs(players);
  const rows: Uint8Array[] = [];
  const weights: number[] = [];
  const add = (present: Uint8Array, weight: number): void => {
    rows.push(present);
    weights.push(weight);
  };
  let whole = 0;
  let shareLeft = 1;
  for (const { size, weight, count } of pairs) {
    // Would sampling give each coalition of these sizes a visit anyway? The singles are always taken: they alone make
    // the fit unique.
    const visits = ((samples - rows.length) * weight) / shareLeft / count;
    if (count > samples - rows.length || (size > 1 && visits < 1 - 1e-8)) break;
    for (const chosen of combinations(players, size)) {
      const present = new Uint8Array(players);
      for (const player of chosen) present[player] = 1;
      add(present, weight / count);
      if (2 * size !== players) add(complement(present), weight / count);
    }
    shareLeft -= weight;
    whole += 1;
  }
  const complete = rows.length;
  if (whole < pairs.length) {
    samplePairs(pairs.slice(whole), players, samples - complete, random).forEach(({ present, share }) => {
      add(present, (share / 2) * shareLeft);
      add(complement(present), (share / 2) * shareLeft);
    });
  }
  const present = new Uint8Array(rows.length * players);
  rows.forEach((row, index) => {
    present.set(row, index * players);
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { present, weights: Float64Array.from(weights, (weight) => weight / total), complete };
}

/** The sizes s and n - s together. */
interface SizePair {
  readonly size: number;
  /** Of all their coalitions together; over all pairs 1. */
  readonly weight: number;
  /** Their coalitions. */
  readonly count: number;
}

function sizePairs(players: number): readonly SizePair[] {
  const pairs: SizePair[] = [];
  let binomial = 1;
  for (let size = 1; 2 * size <= players; size++) {
    binomial = (binomial * (players - size + 1)) / size;
    const both = 2 * size === players ? 1 : 2;
    pairs.push({ size, weight: both / (size * (players - size)), count: both * binomial });
  }
  const total = pairs.reduce((sum, { weight }) => sum + weight, 0);
  return pairs.map((pair) => ({ ...pair, weight: pair.weight / total }));
}

/** Coalitions of these sizes for at most `samples` rows with their complements, and the share of the draws that each pair had. */
function samplePairs(
  pairs: readonly SizePair[],
  players: number,
  samples: number,
  random: () => number,
): readonly { readonly present: Uint8Array; readonly share: number }[] {
  let total = 0;
  const reached = pairs.map(({ weight }) => {
    total += weight;
    return total;
  });
  const drawn = new Map<string, { readonly present: Uint8Array; draws: number }>();
  let draws = 0;
  // Sizes with few coalitions are drawn again and again; then more draws add nothing new.
  for (; draws < 4 * samples && 2 * drawn.size + 2 <= samples; draws++) {
    const at = random() * total;
    const { size } = pairs[reached.findIndex((end) => at < end)] ?? pairs.at(-1)!;
    const present = new Uint8Array(players);
    for (const player of randomOrder(players, random, size)) present[player] = 1;
    const known = drawn.get(keyOf(present)) ?? drawn.get(keyOf(complement(present)));
    if (known === undefined) drawn.set(keyOf(present), { present, draws: 1 });
    else known.draws += 1;
  }
  return [...drawn.values()].map((pair) => ({ present: pair.present, share: pair.draws / draws }));
}

function complement(present: Uint8Array): Uint8Array {
  return present.map((value) => 1 - value);
}

/** All choices of `size` out of 0 ... players - 1, in lexicographic order. */
function* combinations(players: number, size: number): Generator<readonly number[]> {
  const chosen = Array.from({ length: size }, (_, i) => i);
  for (;;) {
    yield chosen;
    let place = size - 1;
    while (place >= 0 && chosen[place] === players - size + place) place -= 1;
    if (place < 0) return;
    chosen[place]! += 1;
    for (let i = place + 1; i < size; i++) chosen[i] = chosen[i - 1]! + 1;
  }
}

/**
 * The φ that minimise Σ_r w_r (v_r - empty - Σ_i z_ri φ_i)² under Σ φ = full - empty: with A = ZᵀWZ, b = ZᵀW(v - empty)
 * and a Lagrange multiplier, φ = A⁻¹ (b - μ 1) where μ = (1ᵀA⁻¹b - (full - empty)) / 1ᵀA⁻¹1.
 *
 * @throws MonosemError ERR_NOT_COMPUTED where the coalitions do not determine φ
 */
export function constrainedFit({
  players,
  present,
  weights,
  scores,
  empty,
  full,
}: {
  readonly players: number;
  /** [rows, players] */
  readonly present: ArrayLike<number>;
  /** [rows] */
  readonly weights: ArrayLike<number>;
  /** [rows] */
  readonly scores: ArrayLike<number>;
  readonly empty: number;
  readonly full: number;
}): Float64Array {
  const gram = Matrix.zeros(players, players);
  // Columns b and 1.
  const right = Matrix.ones(players, 2);
  for (let player = 0; player < players; player++) right.set(player, 0, 0);
  for (let row = 0; row < scores.length; row++) {
    const [weight, gain] = [weights[row]!, scores[row]! - empty];
    const members: number[] = [];
    for (let player = 0; player < players; player++) if (present[row * players + player] === 1) members.push(player);
    for (const i of members) {
      right.set(i, 0, right.get(i, 0) + weight * gain);
      for (const j of members) gram.set(i, j, gram.get(i, j) + weight);
    }
  }
  const cholesky = new CholeskyDecomposition(gram);
  if (!cholesky.isPositiveDefinite()) {
    throw new MonosemError(
      "ERR_NOT_COMPUTED",
      `${scores.length} coalitions do not determine the values of ${players} players: take more samples`,
    );
  }
  const solved = cholesky.solve(right);
  const [fromScores, fromOnes] = [solved.getColumn(0), solved.getColumn(1)];
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const multiplier = (sum(fromScores) - (full - empty)) / sum(fromOnes);
  return Float64Array.from(fromScores, (value, player) => value - multiplier * fromOnes[player]!);
}
