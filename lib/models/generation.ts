/**
 * Text generation: one pass over the prompts, then one pass per new token over the last position of every sequence,
 * with the keys and values of the earlier positions cached.
 *
 * The sampled ids stay on the device, where the next pass reads them; the host reads them too, but runs some steps
 * ahead of what it has read, so that the device never waits for it. Prompts of different lengths are padded on the left:
 * positions count from where a sequence begins, and nothing sees what lies before.
 */
import { kindOf } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { GeneratedText } from "./generatedText.js";
import { type NamedHook, runPass } from "./hooks.js";
import { KeyValueCache } from "./keyValueCache.js";
import type { Tokenizer } from "./tokenizer.js";
import { checkTokens } from "./tokens.js";
import type { Transformer } from "./transformer.js";

/** How to generate. */
export interface GenerationOptions {
  /**
   * New tokens per sequence at most. Generation ends, without an error, where the longest sequence fills the model's
   * context. Default 64.
   */
  readonly maxNewTokens?: number;
  /** Logits are divided by it; 0 always takes the likeliest token (the lowest id among equals). Default 1. */
  readonly temperature?: number;
  /** Choose among the so many likeliest tokens only. Default: all. */
  readonly topK?: number;
  /** Choose among the likeliest tokens that hold this share of the probability, 0 < topP <= 1. Default 1: all. */
  readonly topP?: number;
  /** The same seed, prompts and options give the same tokens. Default 0. */
  readonly seed?: number;
  /** End a sequence after the first of the model's `stopTokenIds`: EOS, or the end of a turn. Default true. */
  readonly stopAtEos?: boolean;
  /** End a sequence after the token that completes one of these in its new text; that token is among those it returns. */
  readonly stopStrings?: readonly string[];
  /**
   * Run in every pass: the first one sees the whole prompts (the shorter ones padded on the left), each later one the
   * newest position of every sequence.
   */
  readonly hooks?: readonly NamedHook[];
  readonly signal?: AbortSignal;
}

/** What one step has added; undefined and "" for sequences that had ended before. */
export interface GenerationStep {
  readonly tokens: readonly (number | undefined)[];
  /**
   * New text of each sequence, complete characters only, without special tokens and stop strings. What may be the
   * beginning of a stop string comes in a later step.
   */
  readonly text: readonly string[];
}

/** Steps that may be enqueued before their tokens have been read. */
const stepsAhead = 8;

/**
 * Continues prompts, step by step. A caller that has enough leaves the loop.
 *
 * @param tokenizer - where there is none, steps have tokens, but no text
 * @throws MonosemError ERR_INVALID_ARGUMENT for impossible options, what `checkTokens` throws, ERR_ABORTED
 */
export async function* generate(
  model: Transformer,
  tokenizer: Tokenizer | undefined,
  prompts: readonly (readonly number[])[],
  options: GenerationOptions,
): AsyncGenerator<GenerationStep, void> {
  refuseImpossible(options, tokenizer);
  if (prompts.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no prompts: the list is empty");
  const { device, config } = model;
  const positions = Math.max(0, ...prompts.map(({ length }) => length));
  const empty = prompts.findIndex(({ length }) => length === 0);
  if (empty >= 0) throw new MonosemError("ERR_INVALID_ARGUMENT", `no tokens: prompt ${empty} is empty`);
  const padded = prompts.map((ids) => [...new Array<number>(positions - ids.length).fill(0), ...ids]);
  const { ids: promptIds, batch } = await checkTokens(padded, config);
  const steps = Math.min(options.maxNewTokens ?? 64, config.contextSize - positions);
  const { temperature, topK, topP, seed = 0, hooks = [], signal } = options;
  const sequences = new GrowingSequences(batch, tokenizer, options, config.stopTokenIds);
  const hookNames = new Set(hooks.map(({ name }) => name));
  const beginnings = Int32Array.from(prompts, ({ length }) => positions - length);
  using cache = new KeyValueCache(config, device, batch, positions + steps);
  using onDevice = device.tensor(beginnings, [batch]);
  const starts = beginnings.some((start) => start > 0) ? { onDevice, values: beginnings } : undefined;
  const unread: Promise<Int32Array>[] = [];
  const oldestStep = async (): Promise<GenerationStep> => {
    const tokens = await unread[0]!; // stays among them if it fails
    unread.shift();
    return sequences.append(tokens);
  };
  let ids = device.tensor(promptIds, [batch * positions]);
  try {
    for (let step = 0; step < steps && !sequences.ended; step++) {
      throwIfAborted(signal, "the run of the model");
      const pass = model.forward({
        ids,
        batch,
        positions: ids.size / batch,
        starts,
        hookNames,
        cache,
        lastPositionOnly: true,
      });
      using logits = await runPass(pass, hooks, signal);
      const next = device.kernels.sample(logits, { temperature, topK, topP, seed, offset: step * batch });
      ids.dispose();
      ids = next;
      unread.push(readIds(next));
      if (unread.length > stepsAhead) yield await oldestStep();
    }
    while (unread.length > 0 && !sequences.ended) {
      yield await oldestStep();
      throwIfAborted(signal, "the run of the model");
    }
    const rest = sequences.rest();
    if (rest.text.some((text) => text !== "")) yield rest;
  } catch (error) {
    // A hook that reads meets a failure of the device before the ids of the step that failed have been waited for. The
    // error of the oldest step is the cause.
    if (!signal?.aborted) await Promise.all(unread);
    throw error;
  } finally {
    ids.dispose();
  }
}

function readIds(ids: Tensor): Promise<Int32Array> {
  const read = ids.read() as Promise<Int32Array>;
  // An error of the device reaches the caller with the first read that is awaited; the later ones must not go unhandled.
  read.catch(() => {});
  return read;
}

/** The sequences under way, and which of them have ended. */
class GrowingSequences {
  readonly #texts: readonly GeneratedText[];
  readonly #ended: boolean[];
  readonly #stopTokenIds: readonly number[];

  constructor(
    batch: number,
    tokenizer: Tokenizer | undefined,
    options: GenerationOptions,
    stopTokenIds: readonly number[],
  ) {
    this.#texts = Array.from({ length: batch }, () => new GeneratedText(tokenizer, options.stopStrings ?? []));
    this.#ended = this.#texts.map(() => false);
    this.#stopTokenIds = options.stopAtEos === false ? [] : stopTokenIds;
  }

  get ended(): boolean {
    return this.#ended.every(Boolean);
  }

  append(next: Int32Array): GenerationStep {
    const tokens = this.#ended.map((ended, i) => (ended ? undefined : next[i]!));
    const text = tokens.map((token, i) => {
      if (token === undefined) return "";
      const generated = this.#texts[i]!;
      const fresh = generated.append(token);
      this.#ended[i] = this.#stopTokenIds.includes(token) || generated.stopped;
      return this.#ended[i] ? fresh + generated.rest() : fresh;
    });
    return { tokens, text };
  }

  /** What was held back of sequences that no more tokens come to. */
  rest(): GenerationStep {
    return {
      tokens: this.#ended.map(() => undefined),
      text: this.#texts.map((text, i) => (this.#ended[i] ? "" : text.rest())),
    };
  }
}

function refuseImpossible(options: GenerationOptions, tokenizer: Tokenizer | undefined): void {
  const { maxNewTokens = 0, temperature = 1, topK = 1, topP = 1, seed = 0, stopStrings = [] } = options;
  const problems: [boolean, string][] = [
    [!Number.isSafeInteger(maxNewTokens) || maxNewTokens < 0, `maxNewTokens must be a natural number: ${maxNewTokens}`],
    [!Number.isFinite(temperature) || temperature < 0, `temperature must be 0 or positive: ${temperature}`],
    [!Number.isSafeInteger(topK) || topK < 1, `topK must be a positive integer: ${topK}`],
    [!(topP > 0 && topP <= 1), `topP must be above 0 and at most 1: ${topP}`],
    [!Number.isSafeInteger(seed) || seed < 0, `seed must be a natural number: ${seed}`],
    [!isTexts(stopStrings), `stopStrings must be a list of texts, found ${kindOf(stopStrings)}`],
    [isTexts(stopStrings) && stopStrings.includes(""), "a stop string must not be empty"],
    [stopStrings.length > 0 && tokenizer === undefined, "stopStrings: the model was loaded without a tokenizer"],
  ];
  const found = problems.find(([wrong]) => wrong);
  if (found !== undefined) throw new MonosemError("ERR_INVALID_ARGUMENT", found[1]);
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
