/** What is made of a judge's reply: an answer as asked for, or the reason why there is none. */
import { z } from "zod";
import { checkedBy } from "../schemaMessages.js";
import type { ChatReply, ChatRequest } from "./chatRequest.js";

/** Why a reply is no answer. "not JSON" and "not as asked" are complete replies that cannot be used. */
export type NoAnswer = "truncated" | "refused" | "failed" | "not JSON" | "not as asked";

export type JudgeAnswer<Value> =
  | { readonly value: Value; readonly reason?: undefined }
  | {
      readonly value?: undefined;
      readonly reason: NoAnswer;
      /** What the reply said, of unknown origin. */
      readonly text: string;
      /** Of a reply that has not the form that was asked for: what is wrong with it. Quotes the reply. */
      readonly problem?: string;
    };

/** How many replies were no answers, by reason. */
export type NoAnswerCounts = Readonly<Partial<Record<NoAnswer, number>>>;

/** @param accept - false for a value that has the right form but does not fit the question */
export function readAnswer<Value>(
  { outcome, text }: ChatReply,
  schema: z.ZodType<Value>,
  accept: (value: Value) => boolean = () => true,
): JudgeAnswer<Value> {
  if (outcome !== "complete") return { reason: outcome, text };
  const json = jsonIn(text);
  if (json === undefined) return { reason: "not JSON", text };
  const checked = checkedBy(schema, json.value);
  if (!checked.success) return { reason: "not as asked", text, problem: checked.problems.join("; ") };
  return accept(checked.data) ? { value: checked.data } : { reason: "not as asked", text };
}

/**
 * The one JSON object of a reply. Judges that cannot be held to JSON think aloud in <think> before it, or say a few words
 * or put a fence around it; a reply with anything else in braces has none.
 */
function jsonIn(reply: string): { readonly value: unknown } | undefined {
  const text = reply.replace(/^\s*<think>.*?<\/think>/s, "");
  const [first, last] = [text.indexOf("{"), text.lastIndexOf("}")];
  if (first === -1 || last < first) return undefined;
  try {
    return { value: JSON.parse(text.slice(first, last + 1)) };
  } catch {
    return undefined;
  }
}

/** What a request says about its answer. Servers differ in the bounds that they know: these are checked here alone. */
export function answerOf(name: string, schema: z.ZodType): ChatRequest["answer"] {
  const json = z.toJSONSchema(schema, {
    override: ({ jsonSchema }) => {
      for (const key of ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"]) {
        delete (jsonSchema as Record<string, unknown>)[key];
      }
    },
  });
  const { $schema: _, ...rest } = json;
  return { name, schema: rest };
}

export function countReasons(answers: readonly JudgeAnswer<unknown>[]): NoAnswerCounts {
  const counts: Partial<Record<NoAnswer, number>> = {};
  for (const answer of answers) {
    if (answer.reason !== undefined) counts[answer.reason] = (counts[answer.reason] ?? 0) + 1;
  }
  return counts;
}
