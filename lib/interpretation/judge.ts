import type { ChatReply, ChatRequest } from "./chatRequest.js";

/** Whoever answers requests: a `ChatClient`. */
export interface Judge {
  complete(request: ChatRequest, signal?: AbortSignal): Promise<ChatReply>;
}

/** How the judge is asked. */
export interface JudgeSettings {
  readonly judge: Judge;
  /** The judge's name, as its server knows it. */
  readonly model: string;
  /** Most tokens of an answer, with what the judge thinks before it. */
  readonly answerTokens: number;
  readonly signal?: AbortSignal | undefined;
}
