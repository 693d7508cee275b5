/** What is asked of a judge, and what comes back: independent of any server. */
import { createHash } from "node:crypto";

export interface JudgeMessage {
  readonly role: "system" | "user";
  readonly content: string;
}

export interface ChatRequest {
  /** The judge's name, as its server knows it. */
  readonly model: string;
  readonly messages: readonly JudgeMessage[];
  /** What the answer must be: a JSON value that satisfies this JSON schema. */
  readonly answer: { readonly name: string; readonly schema: object };
  /** Most tokens of the answer. */
  readonly maxTokens: number;
}

/** Tokens, as the server counts them. */
export interface Usage {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export interface ChatReply {
  /**
   * "complete": the judge came to its end; "truncated": it ran into `maxTokens`; "refused": it, or a filter, declined;
   * "failed": the server gave no answer to this request however often it was asked.
   */
  readonly outcome: "complete" | "truncated" | "refused" | "failed";
  /** What the judge wrote; of "refused" and "failed" the reason. Of unknown origin. */
  readonly text: string;
  readonly usage: Usage;
}

const KEY_VERSION = 1;

/** SHA-256 of all that determines the answer, and of nothing else: not of the server, nor of how it is asked for JSON. */
export function requestDigest({ model, messages, answer, maxTokens }: ChatRequest): string {
  const content = [
    KEY_VERSION,
    model,
    messages.map(({ role, content }) => [role, content]),
    answer.name,
    answer.schema,
    maxTokens,
  ];
  return createHash("sha256").update(JSON.stringify(content)).digest("hex");
}

/** For what a server's chat template adds to a request of its own. */
const TEMPLATE_TOKENS = 256;

/** Tokens that a request can cost at most: a token of text is at least one byte. */
export function greatestUsage({ messages, answer, maxTokens }: ChatRequest): Usage {
  const bytes = messages.reduce((sum, { content }) => sum + Buffer.byteLength(content), 0);
  const schema = Buffer.byteLength(JSON.stringify(answer.schema));
  return { inputTokens: bytes + schema + TEMPLATE_TOKENS, outputTokens: maxTokens };
}
