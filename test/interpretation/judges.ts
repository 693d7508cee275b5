/** Judges of a made-up latent that fires on the word "fire", and examples of it. */
import type { Example, ExampleSide, LatentExamples } from "../../lib/interpretation/examples.js";
import { type MockAnswer, type MockRequest, says } from "./mockServer.js";

/** Token 0 is the one that the latent fires on. */
const words = [" fire", " house", " sea", " tree", " bird", " road", " stone", " cloud"];
export const tokenText = (id: number): string => words[id]!;

const WINDOW = 8;

/** Reproducible numbers in [0, 1). */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function side(random: () => number, firstDocument: number, count: number): ExampleSide {
  const example = (document: number, isActive: boolean): Example => {
    const tokens = Int32Array.from({ length: WINDOW }, () => 1 + Math.floor(random() * (words.length - 1)));
    const activations = new Float32Array(WINDOW);
    if (isActive) {
      const index = Math.floor(random() * WINDOW);
      tokens[index] = 0;
      activations[index] = 1 + 9 * random();
    }
    return { document, start: 0, tokens, activations, peak: Math.max(...activations) };
  };
  const active = Array.from({ length: count }, (_, i) => example(firstDocument + i, true));
  active.sort((a, b) => b.peak - a.peak);
  const silent = Array.from({ length: count }, (_, i) => example(firstDocument + count + i, false));
  return { activeWindows: count, strongest: active.slice(0, 10), active, silent };
}

export function fireExamples(count: number, latent = 3): LatentExamples {
  const random = numbers(7 + latent);
  return { latent, train: side(random, 0, 20), test: side(random, 1000, count) };
}

/** The lines between the marker lines of a prompt. */
export function dataOf({ body }: Pick<MockRequest, "body">): { readonly lines: string[]; readonly values: unknown[] } {
  const match = /^BEGIN DATA ([0-9a-f]{16})\n(.*)\nEND DATA \1$/ms.exec(body.messages.at(-1)!.content)!;
  const lines = match[2]!.split("\n");
  return { lines, values: lines.map((line) => JSON.parse(line)) };
}

interface Question {
  readonly number: number;
  readonly text: string;
}

/** The right answer to a question about the latent: its marks are on "fire" alone, or it has none and holds "fire". */
function isRight({ text }: Question): boolean {
  const marked = [...text.matchAll(/«([^»]*)»/g)].map((match) => match[1]!);
  return marked.length > 0 ? marked.every((token) => token.trim() === "fire") : text.includes("fire");
}

export const explanation = { name: "fire", explanation: "the word fire", confidence: 0.9 };

/**
 * Explains rightly, and answers with what `decide` makes of the right answer. Predicted activations are 10 and 0, by
 * what `decide` makes of whether the token is "fire".
 */
export function judge(decide: (right: boolean) => boolean): (request: MockRequest) => MockAnswer {
  return (request) => {
    const { values } = dataOf(request);
    switch (request.body.response_format?.json_schema?.name) {
      case "explanation":
        return says(explanation);
      case "answers": {
        const questions = values.slice(1) as Question[];
        return says({ answers: questions.map((q) => ({ number: q.number, answer: decide(isRight(q)) })) });
      }
      default: {
        const { tokens } = values[1] as { tokens: [number, string][] };
        return says({ values: tokens.map(([, text]) => (decide(text.trim() === "fire") ? 10 : 0)) });
      }
    }
  };
}
