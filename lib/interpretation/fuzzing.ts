import type { ScorerSettings } from "./detection.js";
import type { Example } from "./examples.js";
import type { JudgeSettings } from "./judge.js";
import { keyedShuffle } from "./keyedNumber.js";
import { isStrong, markedText } from "./promptData.js";
import { type YesNoQuestion, type YesNoScore, yesNoScore } from "./yesNoScore.js";

const INSTRUCTIONS = `In each example some tokens stand between « and ». Answer true for an example if, by the explanation, it is on the marked tokens that the latent is active, and false if they are marked wrongly.`;

/**
 * Fuzzing: does the explanation tell the tokens on which the latent is active from others of the same texts? In half of
 * the examples the strongly active tokens are marked, in the other half as many inactive ones. All examples are active,
 * so that their topic says nothing. (Paulo et al. 2024, arXiv:2410.13928.)
 *
 * @returns undefined where no example has enough inactive tokens, or too few examples are left for both kinds
 */
export async function fuzzingScore(
  explanation: string,
  active: readonly Example[],
  { tokenText, seed, questionsPerRequest }: ScorerSettings,
  settings: JudgeSettings,
): Promise<YesNoScore | undefined> {
  const markable = active.filter((example) => inactiveTokens(example).length >= strongTokens(example).length);
  if (markable.length < 2) return undefined;
  // The examples come by strength: every other one is marked rightly, so that both kinds are equally strong.
  const questions = markable.map((example, index): YesNoQuestion => {
    const isPositive = index % 2 === 0;
    const marked = new Set(isPositive ? strongTokens(example) : wrongTokens(example, seed));
    return { text: markedText(example.tokens, tokenText, (token) => marked.has(token)), isPositive };
  });
  return await yesNoScore({ instructions: INSTRUCTIONS, explanation, questions, questionsPerRequest, seed }, settings);
}

function strongTokens(example: Example): number[] {
  return [...example.tokens.keys()].filter((index) => isStrong(example, index));
}

function inactiveTokens({ tokens, activations }: Example): number[] {
  return [...tokens.keys()].filter((index) => activations[index]! === 0);
}

/** As many inactive tokens as are strongly active, at random places. */
function wrongTokens(example: Example, seed: number): number[] {
  const places = keyedShuffle(inactiveTokens(example), seed, example.document, example.start);
  return places.slice(0, strongTokens(example).length);
}
