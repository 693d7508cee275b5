import { throwIfAborted } from "../errors.js";
import { keyedShuffle } from "../interpretation/keyedNumber.js";
import { absorptionOfWord } from "./absorptionOfWord.js";
import { LETTERS } from "./firstLetterTask.js";
import { type ClassSplit, classProbe, type SplitLatents, splitLatents } from "./letterProbes.js";
import type { PromptVectors } from "./promptVectors.js";

/** Words that were run, and the SAE's decoder. */
export interface LetterVectors {
  /** A row for each word: those to train probes on, then those to test on. */
  readonly vectors: PromptVectors;
  /** The first letter of each word, an index in `LETTERS`. */
  readonly trainLetters: readonly number[];
  readonly testLetters: readonly number[];
  /** [dSae, dIn] */
  readonly decoder: Float32Array;
}

/** SAEBench's settings, which hold unless options say otherwise. */
export const ABSORPTION_DEFAULTS = {
  leastProbeF1: 0.6,
  leastLetters: 20,
  mostLatents: 10,
  f1Jump: 0.03,
  l1Penalty: 0.01,
} as const;

export interface LetterOptions {
  /** F1 from which on a probe counts as having found the letter. Default 0.6. */
  readonly leastProbeF1?: number;
  /** Letters that probes must find for the result to mean anything. Default 20. */
  readonly leastLetters?: number;
  /** Most latents that a letter may be split into, and by how much F1 must grow for each. Defaults 10 and 0.03. */
  readonly mostLatents?: number;
  readonly f1Jump?: number;
  /** Of the probe that ranks the latents. Default 0.01. */
  readonly l1Penalty?: number;
  /** Of the chance level. Default 42. */
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: AbsorptionProgress) => void) | undefined;
}

export interface AbsorptionProgress {
  readonly stage: "prompts" | "probes" | "letters";
  readonly done: number;
  readonly of: number;
}

/** Absorption of one letter, of those that the probe finds. */
export interface LetterAbsorption {
  readonly letter: string;
  readonly probeF1: number;
  readonly mainLatents: readonly number[];
  /** F1 of probes on the first 1, 2, ... latents. */
  readonly latentF1: readonly number[];
  /** Test words of the letter that the probe finds: the rates are over these. */
  readonly truePositives: number;
  readonly meanFraction: number;
  readonly fullCount: number;
  readonly fullRate: number;
  /** The same with every latent's cosine given to another one at random: what comes about without any meaning. */
  readonly chance: { readonly meanFraction: number; readonly fullRate: number };
}

export interface AbsorptionOfLetters {
  /** F1 of the letters' probes, by letter; undefined for letters of too few words. */
  readonly probeF1: readonly (number | undefined)[];
  readonly lettersFound: number;
  readonly lettersNeeded: number;
  /** Letters that the probes find, in order; undefined if they are fewer than needed. */
  readonly letters: readonly LetterAbsorption[] | undefined;
}

/**
 * Finds, for each letter, a probe, its main latents and how far others have absorbed them.
 *
 * @throws MonosemError as the probes
 */
export async function absorptionOfLetters(
  data: LetterVectors,
  options: LetterOptions = {},
): Promise<AbsorptionOfLetters> {
  const {
    leastProbeF1 = ABSORPTION_DEFAULTS.leastProbeF1,
    leastLetters = ABSORPTION_DEFAULTS.leastLetters,
    seed = 42,
    signal,
    onProgress,
  } = options;
  const { activations, latents } = data.vectors;
  const train = Array.from(data.trainLetters.keys());
  const test = Array.from(data.testLetters.keys(), (index) => train.length + index);
  const classes = { trainClasses: data.trainLetters, testClasses: data.testLetters };
  const ofActivations = { train: activations.selectRows(train), test: activations.selectRows(test), ...classes };
  const ofLatents = { train: latents.selectRows(train), test: latents.selectRows(test), ...classes };
  const found: FoundLetter[] = [];
  const probeF1: (number | undefined)[] = [];
  for (const letter of LETTERS.keys()) {
    throwIfAborted(signal, "the evaluation of absorption");
    const probed = await classProbe(ofActivations, letter, { classes: LETTERS.length, signal });
    probeF1.push(probed?.f1);
    if (probed !== undefined && probed.f1 > leastProbeF1) found.push({ letter, ...probed });
    onProgress?.({ stage: "probes", done: letter + 1, of: LETTERS.length });
  }
  const counts = { probeF1, lettersFound: found.length, lettersNeeded: leastLetters };
  if (found.length < leastLetters) return { ...counts, letters: undefined };
  const letters: LetterAbsorption[] = [];
  for (const [index, one] of found.entries()) {
    throwIfAborted(signal, "the evaluation of absorption");
    const split = await mainLatents(ofLatents, one.letter, options);
    letters.push(absorptionOfLetter(one, split, data, seed));
    onProgress?.({ stage: "letters", done: index + 1, of: found.length });
  }
  return { ...counts, letters };
}

interface FoundLetter {
  readonly letter: number;
  readonly f1: number;
  readonly probe: { readonly weights: Float64Array };
  readonly testScores: Float64Array;
}

async function mainLatents(split: ClassSplit, letter: number, options: LetterOptions): Promise<SplitLatents> {
  const {
    l1Penalty = ABSORPTION_DEFAULTS.l1Penalty,
    f1Jump = ABSORPTION_DEFAULTS.f1Jump,
    mostLatents = ABSORPTION_DEFAULTS.mostLatents,
    signal,
  } = options;
  // The letter's probe was fitted to the same rows: it has examples.
  return (await splitLatents(split, letter, { l1Penalty, f1Jump, mostLatents, signal }))!;
}

function absorptionOfLetter(
  { letter, f1, probe, testScores }: FoundLetter,
  split: SplitLatents,
  { vectors, trainLetters, testLetters, decoder }: LetterVectors,
  seed: number,
): LetterAbsorption {
  const size = Math.sqrt(probe.weights.reduce((sum, weight) => sum + weight ** 2, 0));
  const direction = probe.weights.map((weight) => weight / size);
  const cosines = cosinesWith(direction, decoder);
  const shuffled = Float64Array.from(keyedShuffle(Array.from(cosines), seed, letter));
  const projections = vectors.activations.times(direction);
  const chosen = new Set(split.latents);
  const words = Array.from(testLetters.keys()).filter(
    (index) => testLetters[index] === letter && testScores[index]! > 0,
  );
  const rates = (ofLatents: Float64Array): { meanFraction: number; fullCount: number } => {
    let [fractions, fullCount] = [0, 0];
    for (const word of words) {
      const row = trainLetters.length + word;
      const latents = vectors.latentsOf(row);
      const absorbed = absorptionOfWord({
        projection: projections[row]!,
        latents,
        cosines: ofLatents,
        mainLatents: chosen,
      });
      fractions += absorbed.fraction;
      fullCount += absorbed.full ? 1 : 0;
    }
    return { meanFraction: fractions / words.length, fullCount };
  };
  const real = rates(cosines);
  const chance = rates(shuffled);
  return {
    letter: LETTERS[letter]!,
    probeF1: f1,
    mainLatents: split.latents,
    latentF1: split.f1,
    truePositives: words.length,
    ...real,
    fullRate: real.fullCount / words.length,
    chance: { meanFraction: chance.meanFraction, fullRate: chance.fullCount / words.length },
  };
}

/** Of every row of `decoder` [dSae, width] with a direction of norm 1; 0 for rows of norm 0. */
function cosinesWith(direction: Float64Array, decoder: Float32Array): Float64Array {
  const width = direction.length;
  return Float64Array.from({ length: decoder.length / width }, (_, row) => {
    let [product, square] = [0, 0];
    for (let i = 0; i < width; i++) {
      const value = decoder[row * width + i]!;
      product += value * direction[i]!;
      square += value ** 2;
    }
    return square === 0 ? 0 : product / Math.sqrt(square);
  });
}
