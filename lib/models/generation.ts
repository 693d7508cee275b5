/**
 * Text generation: one pass over the prompts, then one pass per new token over the last position of every sequence,
 * with the keys and values of the earlier positions cached.
 *
 * The sampled ids stay on the device, where the next pass reads them; the host reads them too, but runs some steps
 * ahead of what it has read, so that the device never waits for it.
 */
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { runPass } from "./hooks.js";
import { KeyValueCache } from "./keyValueCache.js";
import type { TokenBatch } from "./tokens.js";
import type { Transformer } from "./transformer.js";

/** How to generate. */
export interface GenerationOptions {
  /**
   * New tokens per sequence at most. A sequence never grows longer than the model's context, prompt included: there
   * generation ends, without an error.
   */
  readonly maxNewTokens: number;
  /** Logits are divided by it; 0 always takes the likeliest token (the lowest id among equals). Default 1. */
  readonly temperature?: number;
  /** Choose among the so many likeliest tokens only. Default: all. */
  readonly topK?: number;
  /** Choose among the likeliest tokens that hold this share of the probability, 0 < topP <= 1. Default 1: all. */
  readonly topP?: number;
  /** The same seed, prompts and options give the same tokens. Default 0. */
  readonly seed?: number;
  /** End a sequence after its first EOS token, where the model has one. Default true. */
  readonly stopAtEos?: boolean;
  readonly signal?: AbortSignal;
  /** Called for every step with the new token of each sequence, undefined where a sequence has ended. */
  readonly onToken?: (tokens: readonly (number | undefined)[]) => void;
}

/** Steps that may be enqueued before their tokens have been read. */
const stepsAhead = 8;

/**
 * Continues prompts of one length.
 *
 * @returns each prompt followed by its new tokens, EOS included
 * @throws MonosemError ERR_INVALID_ARGUMENT for impossible options, ERR_ABORTED
 */
export async function generate(
  model: Transformer,
  prompts: TokenBatch,
  options: GenerationOptions,
): Promise<number[][]> {
  checkOptions(options);
  const { batch, positions } = prompts;
  const steps = Math.min(options.maxNewTokens, model.config.contextSize - positions);
  const { temperature, topK, topP, seed = 0, signal } = options;
  const sampling = {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topK === undefined ? {} : { topK }),
    ...(topP === undefined ? {} : { topP }),
    seed,
  };
  const sequences = new GrowingSequences(prompts, options, model.config.eosTokenId);
  using cache = new KeyValueCache(model.config, model.device, batch, positions + steps);
  const unread: Promise<Int32Array>[] = [];
  let ids = model.device.tensor(prompts.ids, [batch * positions]);
  try {
    for (let step = 0; step < steps && !sequences.ended; step++) {
      throwIfAborted(signal, "the run of the model");
      const pass = model.forward({ ids, batch, positions: ids.size / batch, cache, lastPositionOnly: true });
      using logits = await runPass(pass, []);
      const next = model.device.kernels.sample(logits, { ...sampling, offset: step * batch });
      ids.dispose();
      ids = next;
      unread.push(readIds(next));
      if (unread.length > stepsAhead) sequences.append(await unread.shift()!);
    }
    while (unread.length > 0 && !sequences.ended) {
      sequences.append(await unread.shift()!);
      throwIfAborted(signal, "the run of the model");
    }
  } finally {
    ids.dispose();
  }
  return sequences.tokens;
}

function readIds(ids: Tensor): Promise<Int32Array> {
  const read = ids.read() as Promise<Int32Array>;
  // An error of the device reaches the caller with the first read that is awaited; the later ones must not go unhandled.
  read.catch(() => {});
  return read;
}

/** The sequences under way, and which of them have ended. */
class GrowingSequences {
  readonly tokens: number[][];
  readonly #ended: boolean[];
  readonly #eosTokenId: number | undefined;
  readonly #onToken: GenerationOptions["onToken"];

  constructor({ ids, batch, positions }: TokenBatch, options: GenerationOptions, eosTokenId: number | undefined) {
    this.tokens = Array.from({ length: batch }, (_, i) => Array.from(ids.subarray(i * positions, (i + 1) * positions)));
    this.#ended = this.tokens.map(() => false);
    this.#eosTokenId = options.stopAtEos === false ? undefined : eosTokenId;
    this.#onToken = options.onToken;
  }

  get ended(): boolean {
    return this.#ended.every(Boolean);
  }

  append(next: Int32Array): void {
    const fresh = this.tokens.map((tokens, sequence) => {
      if (this.#ended[sequence]) return undefined;
      const token = next[sequence]!;
      tokens.push(token);
      this.#ended[sequence] = token === this.#eosTokenId;
      return token;
    });
    this.#onToken?.(fresh);
  }
}

function checkOptions({ maxNewTokens, temperature = 1, topK = 1, topP = 1, seed = 0 }: GenerationOptions): void {
  const problems: [boolean, string][] = [
    [!Number.isSafeInteger(maxNewTokens) || maxNewTokens < 0, `maxNewTokens must be a natural number: ${maxNewTokens}`],
    [!Number.isFinite(temperature) || temperature < 0, `temperature must be 0 or positive: ${temperature}`],
    [!Number.isSafeInteger(topK) || topK < 1, `topK must be a positive integer: ${topK}`],
    [!(topP > 0 && topP <= 1), `topP must be above 0 and at most 1: ${topP}`],
    [!Number.isSafeInteger(seed) || seed < 0, `seed must be a natural number: ${seed}`],
  ];
  const found = problems.find(([wrong]) => wrong);
  if (found !== undefined) throw new MonosemError("ERR_INVALID_ARGUMENT", found[1]);
}
