/**
 * LIME (Ribeiro et al. 2016, arXiv:1602.04938): a score is explained around one input by a sparse linear model of which
 * of its parts are there, fitted to random removals of parts with nearer ones weighing more.
 *
 * Sampling, kernel, selection and fit are those of the authors' package for texts. A removal of r of n players, of which
 * the cosine distance to the whole is d = 100 (1 - sqrt(1 - r / n)), has the weight sqrt(exp(-d² / width²)).
 */
import { MonosemError } from "../errors.js";
import { Evaluator, type Game, type GameOptions } from "./coalitions.js";
import { lassoPath } from "./lassoPath.js";
import { randomNumbers, randomOrder } from "./random.js";
import { ridgeFit, type WeightedFit, type WeightedGram, weightedGram } from "./weightedGram.js";

/**
 * How players are chosen for the explanation: those with the largest weights in a ridge fit to all; one after the other,
 * whichever raises R² the most; or the last on the lasso's path that are few enough.
 */
export type FeatureSelection = "highest-weights" | "forward-selection" | "lasso-path";

export interface LimeOptions extends GameOptions {
  /** Coalitions, the whole among them. Repeated draws count, though the game is not asked again. */
  readonly samples?: number;
  /** Players in the explanation at most. */
  readonly features?: number;
  /** By default forward selection of up to 6 players, else the highest weights. */
  readonly featureSelection?: FeatureSelection;
  /** Of the kernel, in hundredths of the cosine distance. */
  readonly kernelWidth?: number;
  /** Penalty α |c|² of the final fit; 0 for none. */
  readonly ridge?: number;
  readonly seed?: number;
}

export interface LimeExplanation {
  /** [players]; 0 for those that are not in the explanation. */
  readonly weights: Float64Array;
  /** The players in the explanation, largest |weight| first. */
  readonly features: readonly number[];
  readonly intercept: number;
  /** Weighted R² of the linear model on the samples. */
  readonly rSquared: number;
  /** What the linear model says of the whole. */
  readonly localPrediction: number;
  /** The score of the whole. */
  readonly full: number;
  /** Different coalitions that the game was asked for. */
  readonly evaluations: number;
}

/** @throws MonosemError ERR_INVALID_ARGUMENT; what the game throws */
export async function lime(game: Game, players: number, options: LimeOptions = {}): Promise<LimeExplanation> {
  const { samples = 1000, seed = 0 } = options;
  const evaluator = new Evaluator(game, players, options);
  if (!Number.isSafeInteger(samples) || samples < 2) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `samples must be an integer of at least 2, found ${samples}`);
  }
  const present = limeSamples(players, samples, randomNumbers(seed));
  const scores = await evaluator.scores(present);
  return { ...explainSamples({ players, present, scores }, options), evaluations: evaluator.evaluations };
}

/** The whole, then coalitions with a uniformly drawn number of players, 1 to all of them, removed; [samples, players]. */
export function limeSamples(players: number, samples: number, random: () => number): Uint8Array {
  const present = new Uint8Array(samples * players).fill(1);
  for (let row = 1; row < samples; row++) {
    const removed = 1 + Math.floor(random() * players);
    for (const player of randomOrder(players, random, removed)) present[row * players + player] = 0;
  }
  return present;
}

/**
 * The explanation that these samples give; the first of them is the whole.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function explainSamples(
  {
    players,
    present,
    scores,
  }: { readonly players: number; readonly present: ArrayLike<number>; readonly scores: ArrayLike<number> },
  options: Omit<LimeOptions, keyof GameOptions | "samples" | "seed">,
): Omit<LimeExplanation, "evaluations"> {
  const { features = 10, kernelWidth = 25, ridge = 1 } = options;
  const { featureSelection = features <= 6 ? "forward-selection" : "highest-weights" } = options;
  if (!Number.isSafeInteger(features) || features < 1) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `features must be a positive integer, found ${features}`);
  }
  if (!(kernelWidth > 0)) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `kernelWidth must be above 0, found ${kernelWidth}`);
  }
  if (!(ridge >= 0 && ridge < Number.POSITIVE_INFINITY)) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `ridge must be a number of at least 0, found ${ridge}`);
  }
  const weighted = weightedGram(players, present, proximities(players, present, kernelWidth), scores);
  const chosen = selections[featureSelection](weighted, features);
  const { coefficients, intercept, rSquared } = ridgeFit(weighted, chosen, ridge);
  const weights = new Float64Array(players);
  chosen.forEach((player, i) => {
    weights[player] = coefficients[i]!;
  });
  return {
    weights,
    features: largestFirst(weights, chosen),
    intercept,
    rSquared,
    localPrediction: coefficients.reduce((sum, c) => sum + c, intercept),
    full: scores[0]!,
  };
}

/** The kernel's weight of each row. */
function proximities(players: number, present: ArrayLike<number>, width: number): Float64Array {
  const weights = new Float64Array(present.length / players);
  for (let row = 0; row < weights.length; row++) {
    let kept = 0;
    for (let player = 0; player < players; player++) kept += present[row * players + player]!;
    const distance = 100 * (1 - Math.sqrt(kept / players));
    weights[row] = Math.exp(-(distance ** 2) / (2 * width ** 2));
  }
  return weights;
}

const selections: Record<FeatureSelection, (weighted: WeightedGram, features: number) => readonly number[]> = {
  "highest-weights": (weighted, features) => {
    const all = Array.from({ length: weighted.players }, (_, player) => player);
    const { coefficients } = ridgeFit(weighted, all, 0.01);
    return largestFirst(coefficients, all).slice(0, features);
  },
  "forward-selection": (weighted, features) => {
    const chosen: number[] = [];
    while (chosen.length < Math.min(features, weighted.players)) {
      let best: { readonly player: number; readonly fit: WeightedFit } | undefined;
      for (let player = 0; player < weighted.players; player++) {
        if (chosen.includes(player)) continue;
        const fit = ridgeFit(weighted, [...chosen, player], 0);
        if (best === undefined || fit.rSquared > best.fit.rSquared) best = { player, fit };
      }
      chosen.push(best!.player);
    }
    return chosen;
  },
  "lasso-path": (weighted, features) => {
    const supports = lassoPath(weighted)
      .slice(1)
      .map((corner) => Array.from(corner.keys()).filter((player) => corner[player] !== 0));
    return supports.findLast(({ length }) => length <= features) ?? supports[0] ?? [];
  },
};

function largestFirst(weights: ArrayLike<number>, players: readonly number[]): readonly number[] {
  return [...players].sort((a, b) => Math.abs(weights[b]!) - Math.abs(weights[a]!) || a - b);
}
