import { z } from "zod";
import type { ShownExamples } from "./chosenExamples.js";
import type { Example } from "./examples.js";
import type { JudgeSettings } from "./judge.js";
import { answerOf, type JudgeAnswer, readAnswer } from "./judgeAnswer.js";
import { DATA_RULES, dataBlock, isStrong, jsonLine, markedText, type TokenText } from "./promptData.js";

/** What a judge believes a latent to be. Of unknown origin: it may have been led by the texts that it saw. */
export interface Explanation {
  /** A few words. */
  readonly name: string;
  /** A sentence or two. */
  readonly explanation: string;
  /** 0 to 1, by its own account. */
  readonly confidence: number;
}

const LONGEST_NAME = 120;
const LONGEST_EXPLANATION = 1200;

const explanationSchema = z.strictObject({
  name: z.string().trim().min(1).max(LONGEST_NAME),
  explanation: z.string().trim().min(1).max(LONGEST_EXPLANATION),
  confidence: z.number().min(0).max(1),
});

const SYSTEM = `You study one latent of a sparse autoencoder: a number that a language model's activations give for every token of a text, 0 for most tokens. From examples you find out what it responds to.

${DATA_RULES}

Each line of data is one numbered example. Its "kind" is "strongest" (where the latent is largest), "typical" (a random example in which it is active) or "inactive" (in which it is 0 on every token). In "text", tokens on which the latent is strongly active stand between « and »; "active" lists all tokens on which it is active, each with its strength from 1 to 10.

Look for what the active tokens and what comes before them have in common, and the inactive examples lack. Be specific: an explanation is tested by telling active from inactive examples with it. Explain weak activations, too. If there is no pattern, say so with a low confidence.`;

const QUESTION = `Answer with one JSON object and nothing else: {"name": "<the latent in at most six words>", "explanation": "<one or two sentences: on which tokens it is active, in which context>", "confidence": <0 to 1: how sure you are>}`;

/** Asks the judge what the latent of these examples responds to. */
export async function explainLatent(
  shown: ShownExamples,
  tokenText: TokenText,
  { judge, model, answerTokens, signal }: JudgeSettings,
): Promise<JudgeAnswer<Explanation>> {
  const largest = Math.max(...[...shown.strongest, ...shown.typical].map(({ peak }) => peak));
  const kinds = [
    ["strongest", shown.strongest],
    ["typical", shown.typical],
    ["inactive", shown.contrastive],
  ] as const;
  const lines = kinds
    .flatMap(([kind, examples]) => examples.map((example) => ({ kind, example })))
    .map(({ kind, example }, index) => exampleLine(index + 1, kind, example, largest, tokenText));
  const reply = await judge.complete(
    {
      model,
      messages: [
        { role: "system", content: SYSTEM },
        { role: "user", content: `${dataBlock(lines)}\n\n${QUESTION}` },
      ],
      answer: answerOf("explanation", explanationSchema),
      maxTokens: answerTokens,
    },
    signal,
  );
  return readAnswer(reply, explanationSchema);
}

function exampleLine(number: number, kind: string, example: Example, largest: number, tokenText: TokenText): string {
  const text = markedText(example.tokens, tokenText, (index) => isStrong(example, index));
  const active = Array.from(example.tokens, (token, index) => [tokenText(token), strength(example, index, largest)]);
  const listed = active.filter(([, level]) => level !== 0);
  return `{"number":${number},"kind":"${kind}","text":${text},"active":${jsonLine(listed)}}`;
}

/** 0 for an inactive token, else 1 to 10 relative to the latent's largest activation. */
export function strength({ activations }: Example, index: number, largest: number): number {
  const activation = activations[index]!;
  return activation > 0 ? Math.min(10, Math.max(1, Math.ceil((10 * activation) / largest))) : 0;
}
