import { checkOptions, type OptionNames } from "../checkArguments.js";
import { detectionScore } from "../interpretation/detection.js";
import type { Example, LatentExamples } from "../interpretation/examples.js";
import { explainLatent } from "../interpretation/explainer.js";
import type { Judge, JudgeSettings } from "../interpretation/judge.js";
import { keyedNumber } from "../interpretation/keyedNumber.js";
import { latentsWithinBudget } from "../interpretation/latentsWithinBudget.js";
import type { TokenText } from "../interpretation/promptData.js";

/** Examples of SAEBench's evaluation: those that the judge explains from, and those that it tells apart. */
export const AUTO_INTERP = {
  explained: { strongest: 10, sampled: 5 },
  shown: { strongest: 2, sampled: 2, silent: 10 },
  /** Tokens of an example. */
  windowTokens: 21,
} as const;

/** Of the examples shown the share that "none of them" gets right: what a score has to beat. */
export const AUTO_INTERP_CHANCE: number = shareOfSilent();

function shareOfSilent(): number {
  const { strongest, sampled, silent } = AUTO_INTERP.shown;
  return silent / (strongest + sampled + silent);
}

export interface AutoInterpOptions {
  /** From `gatherExamples`, of windows of 21 tokens. */
  readonly latents: readonly LatentExamples[];
  /** Whoever explains and judges: a `ChatClient`. */
  readonly judge: Judge;
  /** The judge's name, as its server knows it. */
  readonly judgeModel: string;
  readonly tokenText: TokenText;
  /** Most tokens of an answer, with what the judge thinks before it. Default 2048. */
  readonly answerTokens?: number;
  /** Latents under way at a time. Default 4. */
  readonly concurrency?: number;
  /** Of which examples are taken, and their order. Default 42. */
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly latents: number }) => void) | undefined;
}

/** How well the judge's words tell where one latent fires. The texts are of unknown origin. */
export type AutoInterpLatent = { readonly latent: number } & (
  | {
      readonly explanation: string;
      /** Share of the 14 examples judged rightly; one without an answer counts as a guess, half right. */
      readonly score: number;
      readonly unanswered: number;
    }
  /** Why there is no score. */
  | { readonly unscored: string }
);

export interface AutoInterpEvaluation {
  /** In the order of the latents. */
  readonly latents: readonly AutoInterpLatent[];
  /** Latents that the caps on tokens and cost left no room for. */
  readonly leftOut: readonly number[];
  /** Of those the first: what was spent, and what the request that it needed may cost. */
  readonly leftOutBecause?: string | undefined;
}

const optionNames: OptionNames<AutoInterpOptions> = {
  latents: true,
  judge: true,
  judgeModel: true,
  tokenText: "function",
  answerTokens: true,
  concurrency: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * SAEBench's automatic interpretability: a judge explains a latent from 10 of its strongest examples and 5 others, the
 * more likely the stronger, and then says of 14 shuffled ones of other documents which it is active in: 2 of the strongest,
 * 2 others, 10 in which it is silent. The prompts are those of `interpretLatents`.
 *
 * @throws MonosemError as `ChatClient.complete`, but for ERR_BUDGET: latents without room are left out; ERR_ABORTED
 */
export async function evaluateAutoInterp(options: AutoInterpOptions): Promise<AutoInterpEvaluation> {
  checkOptions("evaluateAutoInterp", options, optionNames);
  const { latents, concurrency = 4, signal, onProgress } = options;
  const settings: JudgeSettings = {
    judge: options.judge,
    model: options.judgeModel,
    answerTokens: options.answerTokens ?? 2048,
    signal,
  };
  const { results, ...left } = await latentsWithinBudget({
    latents,
    concurrency,
    what: "the evaluation of explanations",
    signal,
    onProgress,
    resultOf: (examples) => scoreLatent(examples, options, settings),
  });
  return { latents: results, ...left };
}

async function scoreLatent(
  { latent, train, test }: LatentExamples,
  { tokenText, seed = 42 }: AutoInterpOptions,
  settings: JudgeSettings,
): Promise<AutoInterpLatent> {
  const { explained, shown } = AUTO_INTERP;
  const asked = chosen(test, shown, [seed, latent, 1]);
  const active = [...asked.strongest, ...asked.sampled];
  const silent = test.silent.slice(0, shown.silent);
  if (train.strongest.length === 0 || active.length < shown.strongest + shown.sampled || silent.length < shown.silent) {
    return {
      latent,
      unscored: `the documents have too few examples of it: ${train.activeWindows} active windows to explain from, ${test.activeWindows} active and ${silent.length} silent ones to test on`,
    };
  }
  const { strongest, sampled } = chosen(train, explained, [seed, latent, 0]);
  const answer = await explainLatent({ strongest, typical: sampled, contrastive: [] }, tokenText, settings);
  if (answer.value === undefined) return { latent, unscored: `the judge gave no explanation: ${answer.reason}` };
  const { explanation } = answer.value;
  const questions = active.length + silent.length;
  const score = await detectionScore(
    explanation,
    { active, silent },
    { tokenText, seed, questionsPerRequest: questions },
    settings,
  );
  const unanswered = score.unanswered.positive + score.unanswered.negative;
  return {
    latent,
    explanation,
    score: (score.truePositives + score.trueNegatives + unanswered / 2) / questions,
    unanswered,
  };
}

/** Some of the strongest examples, and some of the others, drawn in proportion to their peaks. */
function chosen(
  { strongest, active }: LatentExamples["train"],
  count: { readonly strongest: number; readonly sampled: number },
  keys: readonly number[],
): { readonly strongest: readonly Example[]; readonly sampled: readonly Example[] } {
  const first = strongest.slice(0, count.strongest);
  const taken = new Set(first.map(placeOf));
  // Efraimidis and Spirakis 2006: the largest u^(1/weight) are a weighted sample without replacement.
  const drawn = active
    .filter((example) => !taken.has(placeOf(example)))
    .map((example, index) => ({ example, key: keyedNumber(...keys, index) ** (1 / example.peak) }))
    .sort((a, b) => b.key - a.key)
    .slice(0, count.sampled)
    .map(({ example }) => example);
  return { strongest: first, sampled: drawn };
}

function placeOf({ document, start }: Example): string {
  return `${document}:${start}`;
}
