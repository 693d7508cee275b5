import { refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";

/** Token sequences for a model, such as `contexts(corpus, tokenizer, ...)` yields them. */
export type Contexts = AsyncIterable<Int32Array> | Iterable<Int32Array>;

/** Contexts of one length that go through the model together. */
export interface ContextBatch {
  readonly contexts: readonly Int32Array[];
  readonly positions: number;
}

/**
 * Groups contexts, in their order, into batches of at most `contextsPerBatch`; a change of length starts a new batch.
 *
 * @throws MonosemError ERR_ABORTED before the next batch once `signal` has fired; ERR_CONFIG if there is no context at
 * all, because statistics of nothing are not numbers.
 */
export async function* contextBatches(
  contexts: Contexts,
  contextsPerBatch: number,
  signal?: AbortSignal,
): AsyncGenerator<ContextBatch> {
  if (!Number.isSafeInteger(contextsPerBatch) || contextsPerBatch < 1) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `contextsPerBatch must be a positive integer, found ${contextsPerBatch}`,
    );
  }
  checkIterable(contexts);
  let pending: Int32Array[] = [];
  let batches = 0;
  for await (const context of contexts) {
    if (context.length === 0) continue;
    if (pending.length > 0 && (pending.length === contextsPerBatch || pending[0]!.length !== context.length)) {
      throwIfAborted(signal, "the analysis");
      batches += 1;
      yield batchOf(pending);
      pending = [];
    }
    pending.push(context);
  }
  throwIfAborted(signal, "the analysis");
  if (pending.length > 0) yield batchOf(pending);
  else if (batches === 0) {
    throw new MonosemError("ERR_CONFIG", "the corpus holds no text: there is not a single context to run");
  }
}

/**
 * The first contexts, until they hold `tokens` tokens: always whole contexts, and at least one.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT, with the first context, for what is no number above 0 and no contexts
 */
export async function* limitTokens(contexts: Contexts, tokens: number): AsyncGenerator<Int32Array> {
  if (!(typeof tokens === "number" && tokens > 0)) refuseArgument("limitTokens: tokens", "a number above 0", tokens);
  checkIterable(contexts);
  let taken = 0;
  for await (const context of contexts) {
    yield context;
    taken += context.length;
    if (taken >= tokens) return;
  }
}

function checkIterable(contexts: unknown): void {
  if (typeof contexts === "object" && contexts !== null) {
    if (Symbol.asyncIterator in contexts || Symbol.iterator in contexts) return;
  }
  refuseArgument("contexts", "token sequences to iterate over (such as contexts(corpus, tokenizer, ...))", contexts);
}

function batchOf(contexts: readonly Int32Array[]): ContextBatch {
  return { contexts, positions: contexts[0]!.length };
}
