import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { shownExamples, spread } from "./chosenExamples.js";
import { detectionScore } from "./detection.js";
import type { Example, LatentExamples } from "./examples.js";
import { type Explanation, explainLatent } from "./explainer.js";
import { fuzzingScore } from "./fuzzing.js";
import type { Judge, JudgeSettings } from "./judge.js";
import type { JudgeAnswer } from "./judgeAnswer.js";
import { keyedShuffle } from "./keyedNumber.js";
import { latentsWithinBudget } from "./latentsWithinBudget.js";
import type { TokenText } from "./promptData.js";
import { type SimulationScore, simulationScore } from "./simulation.js";
import { type SurprisalScore, surprisalScore } from "./surprisal.js";
import type { YesNoScore } from "./yesNoScore.js";

export const SCORERS = ["detection", "fuzzing", "simulation", "surprisal"] as const;

export type Scorer = (typeof SCORERS)[number];

export interface InterpretOptions {
  /** Whoever explains and judges: a `ChatClient`. */
  readonly judge: Judge;
  /** The judge's name, as its server knows it. */
  readonly judgeModel: string;
  /** From `gatherExamples`. */
  readonly latents: readonly LatentExamples[];
  readonly tokenText: TokenText;
  /** Default: detection and fuzzing. */
  readonly scorers?: readonly Scorer[];
  /** For "surprisal": any language model here, with the tokenizer of the examples. */
  readonly surprisalModel?: HookedTransformer;
  /** Examples that the explainer sees, of each kind. Defaults 10, 10, 5. */
  readonly strongest?: number;
  readonly typical?: number;
  readonly contrastive?: number;
  /** Examples that a scorer uses, of each answer; simulation, which asks for each by itself, uses half of them. Default 20. */
  readonly tested?: number;
  /** Examples in one request. Default 10. */
  readonly questionsPerRequest?: number;
  /** Most tokens of an answer, with what the judge thinks before it. Default 2048. */
  readonly answerTokens?: number;
  /** Latents under way at a time. Default 4. */
  readonly concurrency?: number;
  /** Of random choices. Default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly latents: number }) => void;
}

/** What was found out about one latent. Its texts are of unknown origin. */
export interface Interpretation {
  readonly latent: number;
  /** Active windows among the documents explained from, and among those tested on. */
  readonly activeWindows: { readonly train: number; readonly test: number };
  readonly explanation?: Explanation;
  /** Why there is no explanation. */
  readonly unexplained?: string;
  readonly scores: {
    readonly detection?: YesNoScore;
    readonly fuzzing?: YesNoScore;
    readonly simulation?: SimulationScore;
    readonly surprisal?: SurprisalScore;
  };
  /** Scores that were asked for and cannot be told, and why. */
  readonly unscored: Readonly<Partial<Record<Scorer, string>>>;
  /** The strongest examples that it was explained from. */
  readonly examples: readonly Example[];
}

export interface InterpretedLatents {
  /** In the order of the latents. */
  readonly interpretations: readonly Interpretation[];
  /** Latents that the caps on tokens and cost left no room for; with a cache, a further run pays for these alone. */
  readonly leftOut: readonly number[];
  /** Of those the first: what was spent, and what the request that it needed may cost. */
  readonly leftOutBecause?: string | undefined;
}

/** A side with fewer examples of a kind says too little. */
const FEWEST_EXAMPLES = 5;
/** Of a reply that is no answer, so much is quoted. */
const LONGEST_REASON = 300;

const optionNames: OptionNames<InterpretOptions> = {
  judge: true,
  judgeModel: true,
  latents: true,
  tokenText: "function",
  scorers: true,
  surprisalModel: true,
  strongest: true,
  typical: true,
  contrastive: true,
  tested: true,
  questionsPerRequest: true,
  answerTokens: true,
  concurrency: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Explains latents and scores the explanations, on examples of other documents than those they were made from.
 *
 * @throws MonosemError as `ChatClient.complete`, but for ERR_BUDGET: latents without room are left
 *   out; ERR_CONFIG for "surprisal" without a model; ERR_INVALID_ARGUMENT for counts that are none; ERR_ABORTED
 */
export async function interpretLatents(options: InterpretOptions): Promise<InterpretedLatents> {
  checkOptions("interpretLatents", options, optionNames);
  const { latents, scorers = ["detection", "fuzzing"], concurrency = 4, signal } = options;
  if (scorers.includes("surprisal") && options.surprisalModel === undefined) {
    throw new MonosemError("ERR_CONFIG", 'the scorer "surprisal" needs surprisalModel');
  }
  checkCounts(options, concurrency);
  const { results, ...left } = await latentsWithinBudget({
    latents,
    concurrency,
    what: "the interpretation",
    signal,
    onProgress: options.onProgress,
    resultOf: (examples) => interpretLatent(examples, scorers, options),
  });
  return { interpretations: results, ...left };
}

/** @throws MonosemError ERR_INVALID_ARGUMENT naming a count that is none, or that asks for nothing */
function checkCounts(options: InterpretOptions, concurrency: number): void {
  const {
    strongest = 1,
    typical = 0,
    contrastive = 0,
    tested = 1,
    questionsPerRequest = 1,
    answerTokens = 1,
  } = options;
  for (const [least, counts] of [
    [0, { typical, contrastive, seed: options.seed ?? 0 }],
    [1, { strongest, tested, questionsPerRequest, answerTokens, concurrency }],
  ] as const) {
    for (const [name, value] of Object.entries(counts)) {
      if (Number.isSafeInteger(value) && value >= least) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be an integer of at least ${least}, found ${value}`);
    }
  }
}

async function interpretLatent(
  { latent, train, test }: LatentExamples,
  scorers: readonly Scorer[],
  options: InterpretOptions,
): Promise<Interpretation> {
  const { strongest = 10, typical = 10, contrastive = 5, tested = 20 } = options;
  const { tokenText, seed = 0, questionsPerRequest = 10 } = options;
  const settings: JudgeSettings = {
    judge: options.judge,
    model: options.judgeModel,
    answerTokens: options.answerTokens ?? 2048,
    signal: options.signal,
  };
  const activeWindows = { train: train.activeWindows, test: test.activeWindows };
  const shown = shownExamples(train, { strongest, typical, contrastive });
  const known = { latent, activeWindows, examples: shown.strongest };
  if (train.active.length < FEWEST_EXAMPLES) {
    const unexplained = `${tooFew(train.active.length, "active")} of the documents to explain from`;
    return { ...known, unexplained, scores: {}, unscored: {} };
  }
  const answer = await explainLatent(shown, tokenText, settings);
  if (answer.value === undefined) return { ...known, unexplained: noExplanation(answer), scores: {}, unscored: {} };

  const { explanation } = answer.value;
  const scorerSettings = { tokenText, seed, questionsPerRequest };
  const silent = (count: number): readonly Example[] => test.silent.slice(0, count);
  const scoreOf = {
    detection: () => {
      const examples = { active: spread(test.active, tested), silent: silent(tested) };
      return detectionScore(explanation, examples, scorerSettings, settings);
    },
    fuzzing: () => fuzzingScore(explanation, spread(test.active, 2 * tested), scorerSettings, settings),
    simulation: () => {
      const half = Math.ceil(tested / 2);
      const examples = keyedShuffle([...spread(test.active, half), ...silent(half)], seed);
      return simulationScore(explanation, examples, tokenText, settings);
    },
    surprisal: () => {
      const examples = { active: spread(test.active, tested), silent: silent(tested) };
      const { surprisalModel: model, signal } = options;
      return surprisalScore(explanation, examples, { model: model!, signal });
    },
  };
  const scores: Partial<Record<Scorer, unknown>> = {};
  const unscored: Partial<Record<Scorer, string>> = {};
  for (const scorer of scorers) {
    const lack = lackOf(test, scorer);
    const score = lack === undefined ? await scoreOf[scorer]() : undefined;
    if (score === undefined) unscored[scorer] = lack ?? "hardly any example has as many inactive tokens as active ones";
    else scores[scorer] = score;
  }
  return { ...known, explanation: answer.value, scores: scores as Interpretation["scores"], unscored };
}

/** What the documents to test on have too little of for this scorer. */
function lackOf({ active, silent }: LatentExamples["test"], scorer: Scorer): string | undefined {
  if (active.length < FEWEST_EXAMPLES) return `${tooFew(active.length, "active")} of the documents to test on`;
  // Fuzzing compares tokens of active windows.
  if (scorer === "fuzzing" || silent.length >= FEWEST_EXAMPLES) return undefined;
  return `${tooFew(silent.length, "silent")} sampled of the documents to test on`;
}

function tooFew(count: number, kind: string): string {
  return `${count === 0 ? "no" : `only ${count}`} different ${kind} ${count === 1 ? "window" : "windows"}`;
}

function noExplanation(answer: Extract<JudgeAnswer<unknown>, { reason: string }>): string {
  const said = answer.text.slice(0, LONGEST_REASON);
  const what = answer.reason === "failed" ? "the server gave no reply" : `the judge's reply was ${answer.reason}`;
  if (answer.problem !== undefined) return `${what}: ${answer.problem.slice(0, LONGEST_REASON)}. It said: ${said}`;
  return `${what}${said === "" ? "" : `: ${said}`}`;
}
