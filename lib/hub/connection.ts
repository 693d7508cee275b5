/**
 * Requests to the hub: redirects followed with care, failures that may pass tried again, all others made errors that say
 * what to do.
 */
import { setTimeout as delay } from "node:timers/promises";
import { MonosemError, throwIfAborted } from "../errors.js";
import { fetchThroughProxy } from "./proxy.js";
import type { HubSettings } from "./settings.js";

export interface HubRequest {
  /** What is asked for, in messages: "openai-community/gpt2/config.json". */
  readonly what: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Statuses besides 2xx that the caller understands. */
  readonly alsoAccept?: readonly number[];
  /** Of an answer that is held in memory; by default 64 MiB. */
  readonly mostBytes?: number;
}

/** Requests without an answer, or without progress, before it is given up. */
export const attempts = 5;

const firstDelayMilliseconds = 250;
/** Longer waits than this, that a busy server asks for, are left to whoever called. */
const longestWaitSeconds = 60;
const mostRedirects = 10;
const mostBytesInMemory = 64 * 2 ** 20;

/** Talks to one hub. */
export class HubConnection {
  readonly settings: HubSettings;
  readonly #signal: AbortSignal | undefined;

  constructor(settings: HubSettings, signal?: AbortSignal) {
    this.settings = settings;
    this.#signal = signal;
  }

  /**
   * The answer to a GET, when its status is 2xx or in `alsoAccept`; its body is still to be read.
   *
   * @throws MonosemError ERR_OFFLINE, ERR_NETWORK, ERR_ACCESS_DENIED, ERR_RATE_LIMITED, ERR_NOT_FOUND, ERR_ABORTED
   */
  async get(url: string, request: HubRequest): Promise<Response> {
    return await this.#retried(request.what, () => this.#once(url, request));
  }

  /** The whole answer in memory; an answer that breaks off is asked for again. */
  async getWhole(url: string, request: HubRequest): Promise<{ readonly response: Response; readonly body: Buffer }> {
    const { mostBytes = mostBytesInMemory } = request;
    return await this.#retried(request.what, async () => {
      const response = await this.#once(url, request);
      const chunks: Uint8Array[] = [];
      let length = 0;
      try {
        for await (const chunk of response.body ?? []) {
          length += chunk.length;
          if (length > mostBytes) break;
          chunks.push(chunk);
        }
      } catch (error) {
        throw this.#passing(request.what, `the connection broke off: ${reasonOf(error)}`, error);
      }
      if (length <= mostBytes) return { response, body: Buffer.concat(chunks) };
      throw new MonosemError("ERR_NETWORK", `${request.what}: the answer is longer than ${mostBytes} bytes`);
    });
  }

  /** Waits before something is tried again: twice as long each time. */
  async pause(attempt: number): Promise<void> {
    await this.#wait(firstDelayMilliseconds * 2 ** attempt);
  }

  async #retried<Result>(what: string, request: () => Promise<Result>): Promise<Result> {
    for (let attempt = 0; ; attempt++) {
      throwIfAborted(this.#signal, what);
      try {
        return await request();
      } catch (error) {
        if (this.#signal?.aborted) throwIfAborted(this.#signal, what);
        if (!(error instanceof PassingFailure)) throw error;
        if (attempt + 1 === attempts || (error.waitSeconds ?? 0) > longestWaitSeconds) throw error.final(attempt + 1);
        if (error.waitSeconds === undefined) await this.pause(attempt);
        else await this.#wait(1000 * error.waitSeconds);
      }
    }
  }

  async #once(url: string, request: HubRequest): Promise<Response> {
    const { what, headers = {}, alsoAccept = [] } = request;
    if (this.settings.offline) {
      throw new MonosemError("ERR_OFFLINE", `${what} is not in the cache, and HF_HUB_OFFLINE forbids to ask for it`);
    }
    const response = await this.#followed(new URL(url), what, headers);
    if (response.ok || alsoAccept.includes(response.status)) return response;
    await response.body?.cancel().catch(() => undefined);
    throw this.#failure(response, what);
  }

  /** Follows redirects; the token goes to the endpoint's own origin only. */
  async #followed(start: URL, what: string, headers: Readonly<Record<string, string>>): Promise<Response> {
    const { endpoint, token } = this.settings;
    const seen = new Set<string>();
    let url = start;
    for (;;) {
      if (seen.has(url.href) || seen.size > mostRedirects) {
        throw new MonosemError("ERR_NETWORK", `${what}: the server redirects in circles, from ${start.origin} on`);
      }
      seen.add(url.href);
      const trusted = token !== undefined && url.origin === new URL(endpoint).origin;
      let response: Response;
      try {
        response = await fetchThroughProxy(url, {
          // Python's client and this one both need lengths and ranges of the file itself
          headers: {
            ...headers,
            "accept-encoding": "identity",
            ...(trusted ? { authorization: `Bearer ${token}` } : {}),
          },
          redirect: "manual",
          ...(this.#signal === undefined ? {} : { signal: this.#signal }),
        });
      } catch (error) {
        if (error instanceof MonosemError) throw error;
        throw this.#passing(what, `cannot reach ${url.origin}: ${reasonOf(error)}`, error);
      }
      const location = [301, 302, 303, 307, 308].includes(response.status) ? response.headers.get("location") : null;
      if (location === null) return response;
      await response.body?.cancel().catch(() => undefined);
      url = this.#target(location, url, what);
    }
  }

  #target(location: string, from: URL, what: string): URL {
    const target = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
    const allowed = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
    if (target !== undefined && allowed.includes(target.protocol)) return target;
    throw new MonosemError("ERR_NETWORK", `${what}: ${from.origin} redirects to ${JSON.stringify(location)}`);
  }

  #failure({ status, headers }: Response, what: string): Error {
    const { endpoint, token } = this.settings;
    const code = headers.get("x-error-code");
    if (status === 429) {
      const waitSeconds = secondsToWait(headers) ?? longestWaitSeconds;
      const message = `${what}: ${endpoint} says that there were too many requests; try again in ${waitSeconds} seconds`;
      return new PassingFailure("ERR_RATE_LIMITED", message, { waitSeconds });
    }
    if (status === 408 || status >= 500) {
      const waitSeconds = secondsToWait(headers);
      return new PassingFailure("ERR_NETWORK", `${what}: ${endpoint} answers with status ${status}`, {
        ...(waitSeconds === undefined ? {} : { waitSeconds }),
      });
    }
    if (code === "GatedRepo") {
      const terms = `its terms are to be accepted at ${endpoint} first`;
      const who = token === undefined ? "then set HF_TOKEN to a token of yours" : "by the owner of the token";
      return new MonosemError("ERR_ACCESS_DENIED", `${what} is gated: ${terms}, ${who}`);
    }
    if (status === 404 || code === "RepoNotFound") {
      const missing =
        code === "EntryNotFound"
          ? "has no such file"
          : code === "RevisionNotFound"
            ? "has no such revision"
            : "has no such repository, or it is private";
      return new MonosemError("ERR_NOT_FOUND", `${what}: ${endpoint} ${missing}`);
    }
    if (status === 401 || status === 403) {
      const what_ = token === undefined ? "set HF_TOKEN if it is private or gated" : "the token given does not open it";
      return new MonosemError("ERR_ACCESS_DENIED", `${what}: ${endpoint} refuses access (status ${status}); ${what_}`);
    }
    return new MonosemError("ERR_NETWORK", `${what}: ${endpoint} answers with status ${status}`);
  }

  #passing(what: string, problem: string, cause: unknown): PassingFailure {
    return new PassingFailure("ERR_NETWORK", `${what}: ${problem}`, { cause });
  }

  async #wait(milliseconds: number): Promise<void> {
    const options = this.#signal === undefined ? {} : { signal: this.#signal };
    // An abort ends the wait; whoever waits looks at the signal next.
    await delay(milliseconds, undefined, options).catch(() => undefined);
  }
}

/** A failure that another try may not have. */
class PassingFailure extends MonosemError {
  readonly waitSeconds: number | undefined;

  constructor(
    code: "ERR_NETWORK" | "ERR_RATE_LIMITED",
    message: string,
    { waitSeconds, cause }: { readonly waitSeconds?: number; readonly cause?: unknown },
  ) {
    super(code, message, { cause });
    this.waitSeconds = waitSeconds;
  }

  final(tries: number): MonosemError {
    return new MonosemError(this.code, `${this.message} (${tries} ${tries === 1 ? "try" : "tries"})`, {
      cause: this.cause ?? this,
    });
  }
}

/** What `Retry-After` (seconds or a date) or the hub's own `RateLimit` says. */
function secondsToWait(headers: Headers): number | undefined {
  const after = headers.get("retry-after");
  if (after !== null) {
    const seconds = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
    if (Number.isFinite(seconds)) return Math.max(0, Math.ceil(seconds));
  }
  const reset = /;\s*t\s*=\s*(\d+)/.exec(headers.get("ratelimit") ?? "")?.[1];
  return reset === undefined ? undefined : Number(reset);
}

/** "fetch failed" says nothing: its cause does. */
export function reasonOf(error: unknown): string {
  const { message, cause } = error instanceof Error ? error : new Error(String(error));
  if (!(cause instanceof Error)) return message;
  const { code } = cause as NodeJS.ErrnoException;
  return cause.message === "" ? (code ?? message) : cause.message;
}
