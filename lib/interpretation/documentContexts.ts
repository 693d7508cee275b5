import { setImmediate as otherWork } from "node:timers/promises";
import type { Corpus } from "../activations/corpus.js";
import { throwIfAborted } from "../errors.js";

/** A part of one document, as it goes through a model. */
export interface DocumentContext {
  /** Index of the document in the corpus. */
  readonly document: number;
  /** Index in the document of the first token behind BOS. */
  readonly start: number;
  /** With BOS in front, if it is to be prepended. */
  readonly tokens: Int32Array;
}

export interface DocumentContextOptions {
  /** Most tokens per context, BOS included. */
  readonly contextSize: number;
  /** The token in front of each context; none if undefined. */
  readonly bos: number | undefined;
  /** Stop after so many tokens of the corpus. */
  readonly tokens: number;
  readonly signal?: AbortSignal | undefined;
}

/** Cuts each document of a corpus by itself: no context holds tokens of two documents, so that the last of each is shorter. */
export async function* documentContexts(
  corpus: Corpus,
  tokenizer: { encode(text: string): readonly number[] },
  { contextSize, bos, tokens, signal }: DocumentContextOptions,
): AsyncGenerator<DocumentContext, void, undefined> {
  const first = bos === undefined ? [] : [bos];
  const room = contextSize - first.length;
  let left = tokens;
  let [document, start] = [-1, 0];
  let pending: number[] = [];
  for await (const piece of corpus.pieces(0, signal)) {
    if (piece.document !== document) {
      if (pending.length > 0) yield { document, start, tokens: Int32Array.of(...first, ...pending) };
      [document, start, pending] = [piece.document, 0, []];
    }
    if (left <= 0) return;
    // Tokenising is synchronous: between two pieces, everything else gets its turn.
    await otherWork();
    throwIfAborted(signal, "reading the corpus");
    const encoded = tokenizer.encode(piece.text).slice(0, left);
    left -= encoded.length;
    for (let next = 0; next < encoded.length; ) {
      const taken = encoded.slice(next, next + room - pending.length);
      pending.push(...taken);
      next += taken.length;
      if (pending.length < room) break;
      yield { document, start, tokens: Int32Array.of(...first, ...pending) };
      start += pending.length;
      pending = [];
    }
  }
  if (pending.length > 0) yield { document, start, tokens: Int32Array.of(...first, ...pending) };
}
