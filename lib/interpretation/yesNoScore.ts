/** Scores from questions that the judge answers with yes or no: detection and fuzzing share them. */
import { z } from "zod";
import { allSettled } from "./allSettled.js";
import type { JudgeSettings } from "./judge.js";
import { answerOf, countReasons, type NoAnswerCounts, readAnswer } from "./judgeAnswer.js";
import { keyedShuffle } from "./keyedNumber.js";
import { DATA_RULES, dataBlock, jsonLine } from "./promptData.js";

/** How well a judge that knows only the explanation tells examples apart. */
export interface YesNoScore {
  /**
   * Balanced accuracy: the mean of the shares of positive and of negative examples that were judged rightly. An example
   * without an answer counts as a guess, half right. 1 is perfect, 0.5 chance.
   */
  readonly score: number;
  readonly truePositives: number;
  readonly falseNegatives: number;
  readonly trueNegatives: number;
  readonly falsePositives: number;
  /** Examples without an answer, positive and negative. */
  readonly unanswered: { readonly positive: number; readonly negative: number };
  /** Of the replies that were no answers, how many for which reason. */
  readonly noAnswers: NoAnswerCounts;
}

/** One example, as a JSON string, and the right answer. */
export interface YesNoQuestion {
  readonly text: string;
  readonly isPositive: boolean;
}

export interface YesNoTask {
  /** What the answers mean, for the judge. */
  readonly instructions: string;
  readonly explanation: string;
  readonly questions: readonly YesNoQuestion[];
  readonly questionsPerRequest: number;
  /** Of the order of the questions. */
  readonly seed: number;
}

const answersSchema = z.strictObject({
  answers: z.array(z.strictObject({ number: z.int(), answer: z.boolean() })),
});

/** Asks the judge all questions, in random order. Needs positive and negative ones. */
export async function yesNoScore(task: YesNoTask, settings: JudgeSettings): Promise<YesNoScore> {
  const shuffled = keyedShuffle(task.questions, task.seed);
  const requests = Array.from({ length: Math.ceil(shuffled.length / task.questionsPerRequest) }, (_, index) =>
    shuffled.slice(index * task.questionsPerRequest, (index + 1) * task.questionsPerRequest),
  );
  const answers = await allSettled(requests.map((questions) => ask(task, questions, settings)));
  const counts = { truePositives: 0, falseNegatives: 0, trueNegatives: 0, falsePositives: 0 };
  const unanswered = { positive: 0, negative: 0 };
  for (const [index, questions] of requests.entries()) {
    const answer = answers[index]!;
    for (const [place, { isPositive }] of questions.entries()) {
      const said = answer.value?.get(place + 1);
      if (said === undefined) unanswered[isPositive ? "positive" : "negative"] += 1;
      else if (isPositive) counts[said ? "truePositives" : "falseNegatives"] += 1;
      else counts[said ? "falsePositives" : "trueNegatives"] += 1;
    }
  }
  const share = (right: number, wrong: number, open: number): number => (right + open / 2) / (right + wrong + open);
  const score =
    (share(counts.truePositives, counts.falseNegatives, unanswered.positive) +
      share(counts.trueNegatives, counts.falsePositives, unanswered.negative)) /
    2;
  return { score, ...counts, unanswered, noAnswers: countReasons(answers) };
}

async function ask(
  { instructions, explanation }: YesNoTask,
  questions: readonly YesNoQuestion[],
  { judge, model, answerTokens, signal }: JudgeSettings,
) {
  const lines = [
    jsonLine({ explanation }),
    ...questions.map(({ text }, index) => `{"number":${index + 1},"text":${text}}`),
  ];
  const reply = await judge.complete(
    {
      model,
      messages: [
        {
          role: "system",
          content: `A latent of a sparse autoencoder is a number that a language model's activations give for every token of a text, 0 for most tokens. You are given an explanation of one latent, which may be wrong or empty of meaning, and judge examples by it alone.\n\n${DATA_RULES}\n\nThe first line of data is the explanation, each further one a numbered example. ${instructions}`,
        },
        {
          role: "user",
          content: `${dataBlock(lines)}\n\nAnswer with one JSON object and nothing else, with an entry for each of the ${questions.length} examples: {"answers": [{"number": 1, "answer": true or false}, ...]}`,
        },
      ],
      answer: answerOf("answers", answersSchema),
      maxTokens: answerTokens,
    },
    signal,
  );
  const answer = readAnswer(reply, answersSchema, ({ answers }) => areComplete(answers, questions.length));
  return answer.value === undefined
    ? answer
    : { value: new Map(answer.value.answers.map(({ number, answer }) => [number, answer])) };
}

/** Whether each example from 1 to `count` is answered once. */
function areComplete(answers: readonly { readonly number: number }[], count: number): boolean {
  const numbers = new Set(answers.map(({ number }) => number));
  return answers.length === count && numbers.size === count && answers.every(({ number: n }) => n >= 1 && n <= count);
}
