import type { Example } from "./examples.js";
import type { JudgeSettings } from "./judge.js";
import { markedText, type TokenText } from "./promptData.js";
import { type YesNoScore, yesNoScore } from "./yesNoScore.js";

const INSTRUCTIONS = `Answer true for an example if, by the explanation, the latent is active on at least one of its tokens, else false.`;

/**
 * Detection: does the explanation tell texts in which the latent is active from texts in which it is not?
 * (Paulo et al. 2024, arXiv:2410.13928.)
 */
export function detectionScore(
  explanation: string,
  { active, silent }: { readonly active: readonly Example[]; readonly silent: readonly Example[] },
  { tokenText, seed, questionsPerRequest }: ScorerSettings,
  settings: JudgeSettings,
): Promise<YesNoScore> {
  const question = (isPositive: boolean) => (example: Example) => ({
    text: markedText(example.tokens, tokenText),
    isPositive,
  });
  const questions = [...active.map(question(true)), ...silent.map(question(false))];
  return yesNoScore({ instructions: INSTRUCTIONS, explanation, questions, questionsPerRequest, seed }, settings);
}

export interface ScorerSettings {
  readonly tokenText: TokenText;
  /** Of the order of the questions, and of which tokens are marked wrongly. */
  readonly seed: number;
  readonly questionsPerRequest: number;
}
