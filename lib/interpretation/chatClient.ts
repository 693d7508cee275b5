import { setTimeout as pause } from "node:timers/promises";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { type ChatReply, type ChatRequest, greatestUsage, requestDigest, type Usage } from "./chatRequest.js";
import {
  type Dialect,
  exchange,
  FIRST_DIALECT,
  otherDialect,
  type ServerAddress,
  serverAddress,
} from "./chatServer.js";
import { ReplyCache } from "./replyCache.js";
import { backoffMilliseconds } from "./retryDelay.js";
import { Slots } from "./slots.js";
import { Spending, type SpendingLimits } from "./spending.js";

export interface ChatClientOptions extends SpendingLimits {
  /** The address below which `chat/completions` lies, such as "http://127.0.0.1:8080/v1". */
  readonly baseUrl: string;
  /** Name of the environment variable that holds the key. Default "MONOSEM_API_KEY"; where it is not set no key is sent. */
  readonly keyVariable?: string;
  /** Folder of replies that were paid already, made if it is missing. Default: none. */
  readonly cacheDirectory?: string | undefined;
  /** Requests under way at a time. Default 4. */
  readonly concurrency?: number;
  /** How often a request is sent again after a failure that may pass (429, 5xx, no answer, a broken connection). Default 5. */
  readonly retries?: number;
  /** Milliseconds until an answer must be there. Default 120,000; at most 300,000, as Node's fetch waits no longer. */
  readonly timeout?: number;
  /** Milliseconds before the first repetition, where the server does not say; doubled with every failure. Default 1000. */
  readonly firstDelay?: number;
}

/** Requests so far. */
export interface ClientActivity {
  /** Answered by the server. */
  readonly answered: number;
  /** Answered by the cache. */
  readonly cached: number;
  /** Sent again after a failure. */
  readonly repeated: number;
  /** Given up. */
  readonly failed: number;
  /** Tokens paid; of exchanges that broke off, and where the server does not tell, the most they can have cost. */
  readonly usage: Usage;
  /** In the currency of the prices; undefined without prices. */
  readonly cost: number | undefined;
}

/** Node's fetch gives up on an answer that has not begun by then. */
const LONGEST_TIMEOUT = 300_000;
/** No wait between two attempts is longer, whatever the server asks for. */
const LONGEST_DELAY = 120_000;
/** When so many requests in a row are given up, the server is. */
const FAILURES_IN_A_ROW = 3;

const optionNames: OptionNames<ChatClientOptions> = {
  baseUrl: true,
  keyVariable: true,
  cacheDirectory: true,
  concurrency: true,
  retries: true,
  timeout: true,
  firstDelay: true,
  maxTokens: true,
  maxCost: true,
  prices: true,
};

/**
 * A client of any server that speaks OpenAI's chat completions, local (llama.cpp, vLLM, Ollama) or not.
 *
 * Answers are asked for as JSON by a schema, where a server does not know that as any JSON, else in words. The key comes
 * from the environment alone and gets into no reply, message or file.
 */
export class ChatClient {
  readonly #address: ServerAddress;
  readonly #cache: ReplyCache | undefined;
  readonly #spending: Spending;
  readonly #slots: Slots;
  readonly #retries: number;
  readonly #timeout: number;
  readonly #firstDelay: number;
  readonly #running: Map<string, Promise<ChatReply>> = new Map();
  readonly #counts = { answered: 0, cached: 0, repeated: 0, failed: 0 };
  #dialect: Dialect = FIRST_DIALECT;
  /** No request is sent before this time: a server that asks one to wait means all. */
  #notBefore = 0;
  #failedInARow = 0;
  #fatal: MonosemError | undefined;

  /** @throws MonosemError ERR_CONFIG for an address or a key that cannot be used, ERR_INVALID_ARGUMENT */
  constructor(options: ChatClientOptions) {
    checkOptions("ChatClient", options, optionNames);
    const { concurrency = 4, retries = 5, timeout = 120_000, firstDelay = 1000 } = options;
    for (const [name, value, least] of [
      ["concurrency", concurrency, 1],
      ["retries", retries, 0],
      ["timeout", timeout, 1],
      ["firstDelay", firstDelay, 0],
    ] as const) {
      if (Number.isSafeInteger(value) && value >= least) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be an integer of at least ${least}, found ${value}`);
    }
    if (timeout > LONGEST_TIMEOUT) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `timeout must be at most ${LONGEST_TIMEOUT} ms, found ${timeout}`);
    }
    this.#address = serverAddress(options.baseUrl, options.keyVariable ?? "MONOSEM_API_KEY");
    this.#cache = options.cacheDirectory === undefined ? undefined : new ReplyCache(options.cacheDirectory);
    this.#spending = new Spending(options);
    this.#slots = new Slots(concurrency);
    this.#retries = retries;
    this.#timeout = timeout;
    this.#firstDelay = firstDelay;
  }

  get activity(): ClientActivity {
    return { ...this.#counts, usage: this.#spending.paid, cost: this.#spending.cost };
  }

  /**
   * The judge's reply, from the cache if the same was asked before. A reply that is no answer (a refusal, a failure of
   * this one request) is returned, too: its `outcome` says so.
   *
   * @throws MonosemError when no request can succeed: ERR_ACCESS_DENIED, ERR_NOT_FOUND (no such address or model),
   *   ERR_NETWORK (one failure after the other); ERR_BUDGET when the request could exceed the limits; ERR_ABORTED; ERR_IO,
   *   ERR_FORMAT from the cache
   */
  async complete(request: ChatRequest, signal?: AbortSignal): Promise<ChatReply> {
    const digest = requestDigest(request);
    const running = this.#running.get(digest);
    if (running !== undefined) return await running;
    const reply = this.#complete(digest, request, signal).finally(() => this.#running.delete(digest));
    this.#running.set(digest, reply);
    return await reply;
  }

  async #complete(digest: string, request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatReply> {
    const known = await this.#cache?.get(digest);
    if (known !== undefined) {
      this.#counts.cached += 1;
      return known;
    }
    return await this.#slots.run(async () => {
      const reply = await this.#ask(request, signal);
      if (reply.outcome === "failed") {
        this.#counts.failed += 1;
      } else {
        this.#counts.answered += 1;
        await this.#cache?.put(digest, reply);
      }
      return reply;
    });
  }

  async #ask(request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatReply> {
    let failures = 0;
    // Others may change how the server is asked meanwhile: what this request has tried counts for it alone.
    let dialect = this.#dialect;
    while (true) {
      await this.#waitForTurn(signal);
      if (this.#fatal !== undefined) throw this.#fatal;
      const result = await this.#send(request, dialect, signal);
      if (result.kind === "reply") {
        this.#failedInARow = 0;
        this.#dialect = dialect;
        return { ...result.reply, usage: result.usage };
      }
      if (result.kind === "rejected") {
        const other = otherDialect(dialect, result.reason);
        if (other === undefined) return this.#giveUp(result.reason);
        dialect = other;
        continue;
      }
      failures += 1;
      if (failures > this.#retries) return this.#giveUp(result.reason);
      this.#counts.repeated += 1;
      const delay = result.after ?? backoffMilliseconds(failures, this.#firstDelay, LONGEST_DELAY);
      const until = Date.now() + Math.min(delay, LONGEST_DELAY);
      if (result.after !== undefined) this.#notBefore = Math.max(this.#notBefore, until);
      await this.#sleep(until - Date.now(), signal);
    }
  }

  async #send(
    request: ChatRequest,
    dialect: Dialect,
    signal: AbortSignal | undefined,
  ): Promise<
    | Exclude<Awaited<ReturnType<typeof exchange>>, { kind: "reply" }>
    | { readonly kind: "reply"; readonly reply: Omit<ChatReply, "usage">; readonly usage: Usage }
  > {
    const greatest = greatestUsage(request);
    const reservation = await this.#spending.reserve(greatest);
    let paid: Usage = greatest; // until it is known better
    try {
      const result = await exchange(this.#address, request, { dialect, timeout: this.#timeout, signal });
      if (result.kind === "reply") {
        paid = result.usage ?? greatest;
        return { ...result, usage: paid };
      }
      if (result.kind === "rejected" || !result.mayBePaid) paid = NOTHING;
      return result;
    } catch (error) {
      if (error instanceof MonosemError) {
        paid = NOTHING;
        this.#fatal = error;
      }
      throw error;
    } finally {
      reservation.settle(paid);
    }
  }

  #giveUp(reason: string): ChatReply {
    this.#failedInARow += 1;
    if (this.#failedInARow < FAILURES_IN_A_ROW) return failed(reason);
    const { host } = this.#address.baseUrl;
    this.#fatal = new MonosemError(
      "ERR_NETWORK",
      `${host} answered none of ${FAILURES_IN_A_ROW} requests in a row; the last time: ${reason}`,
    );
    throw this.#fatal;
  }

  async #waitForTurn(signal: AbortSignal | undefined): Promise<void> {
    while (this.#notBefore > Date.now()) await this.#sleep(this.#notBefore - Date.now(), signal);
    throwIfAborted(signal, "asking the judge");
  }

  async #sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    // A follower of the signal: Node takes many listeners on one for a leak.
    const options = signal === undefined ? {} : { signal: AbortSignal.any([signal]) };
    await pause(Math.max(0, milliseconds), undefined, options).catch(() => undefined);
    throwIfAborted(signal, "asking the judge");
  }
}

const NOTHING: Usage = { inputTokens: 0, outputTokens: 0 };

function failed(reason: string): ChatReply {
  return { outcome: "failed", text: reason, usage: NOTHING };
}
