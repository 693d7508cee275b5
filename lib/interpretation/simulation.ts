import { z } from "zod";
import { allSettled } from "./allSettled.js";
import type { Example } from "./examples.js";
import type { JudgeSettings } from "./judge.js";
import { answerOf, countReasons, type JudgeAnswer, type NoAnswerCounts, readAnswer } from "./judgeAnswer.js";
import { DATA_RULES, dataBlock, jsonLine, type TokenText } from "./promptData.js";
import { mean, pearson } from "./statistics.js";

/** How well a judge that knows only the explanation predicts the latent, token by token. */
export interface SimulationScore {
  /**
   * Pearson's correlation of predicted and true activations over the tokens of all examples together. An example without
   * an answer is predicted as the mean of the others' predictions. 0 where the predictions are constant.
   */
  readonly score: number;
  readonly examples: number;
  readonly tokens: number;
  /** Examples without an answer. */
  readonly unanswered: number;
  /** Why. */
  readonly noAnswers: NoAnswerCounts;
}

const valuesSchema = z.strictObject({ values: z.array(z.number().min(0).max(10)) });

const SYSTEM = `A latent of a sparse autoencoder is a number that a language model's activations give for every token of a text, 0 for most tokens. You are given an explanation of one latent, which may be wrong or empty of meaning, and predict by it alone how strongly the latent is active on each token of a text.

${DATA_RULES}

The first line of data is the explanation, the second the tokens of the text, each with its number.`;

/**
 * Simulation: does the explanation predict the activations? (Bills et al. 2023, "Language models can explain neurons in
 * language models"; here the judge writes a list of numbers, so that no log-probabilities are needed.)
 */
export async function simulationScore(
  explanation: string,
  examples: readonly Example[],
  tokenText: TokenText,
  settings: JudgeSettings,
): Promise<SimulationScore> {
  const answers = await allSettled(examples.map((example) => simulate(explanation, example, tokenText, settings)));
  const predicted = answers.map((answer) => answer.value);
  const known = predicted.flatMap((values) => values ?? []);
  const unknown = known.length === 0 ? 0 : mean(known);
  const predictions = examples.flatMap(
    ({ tokens }, index) => predicted[index] ?? new Array(tokens.length).fill(unknown),
  );
  const truth = examples.flatMap(({ activations }) => Array.from(activations, (value) => Math.max(0, value)));
  return {
    score: pearson(predictions, truth),
    examples: examples.length,
    tokens: truth.length,
    unanswered: predicted.filter((values) => values === undefined).length,
    noAnswers: countReasons(answers),
  };
}

async function simulate(
  explanation: string,
  { tokens }: Example,
  tokenText: TokenText,
  { judge, model, answerTokens, signal }: JudgeSettings,
): Promise<JudgeAnswer<readonly number[]>> {
  const numbered = Array.from(tokens, (token, index) => [index + 1, tokenText(token)]);
  const question = `Answer with one JSON object and nothing else: {"values": [<${tokens.length} numbers, one for each token in order: 0 where the latent is not active, up to 10 where it is as strong as can be>]}`;
  const reply = await judge.complete(
    {
      model,
      messages: [
        { role: "system", content: SYSTEM },
        {
          role: "user",
          content: `${dataBlock([jsonLine({ explanation }), jsonLine({ tokens: numbered })])}\n\n${question}`,
        },
      ],
      answer: answerOf("values", valuesSchema),
      maxTokens: answerTokens,
    },
    signal,
  );
  const answer = readAnswer(reply, valuesSchema, ({ values }) => values.length === tokens.length);
  return answer.value === undefined ? answer : { value: answer.value.values };
}
