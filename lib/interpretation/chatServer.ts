/** One exchange with a server that speaks OpenAI's chat completions: what is sent, and what the answer means. */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { fetchThroughProxy, isThisMachine } from "../hub/proxy.js";
import type { ChatReply, ChatRequest } from "./chatRequest.js";
import { retryAfterMilliseconds } from "./retryDelay.js";

/** How a server wants to be asked: found out by its refusals. */
export interface Dialect {
  /** How JSON is asked for. */
  readonly format: "json_schema" | "json_object" | "text";
  readonly lengthLimit: "max_tokens" | "max_completion_tokens";
  /** Whether temperature 0 may be asked for. */
  readonly temperature: boolean;
}

export const FIRST_DIALECT: Dialect = { format: "json_schema", lengthLimit: "max_tokens", temperature: true };

export type Exchange =
  /** `usage` is undefined where the server does not tell. */
  | { readonly kind: "reply"; readonly reply: Omit<ChatReply, "usage">; readonly usage: ChatReply["usage"] | undefined }
  /** `mayBePaid`: the connection broke off after the request was sent. */
  | { readonly kind: "again"; readonly reason: string; readonly after: number | undefined; readonly mayBePaid: boolean }
  /** The server does not take the request as it is. */
  | { readonly kind: "rejected"; readonly reason: string };

export interface ServerAddress {
  /** The address below which `chat/completions` lies, such as "http://127.0.0.1:8080/v1". */
  readonly baseUrl: URL;
  readonly key: string | undefined;
  /** What an error says about where the key comes from. */
  readonly keyOrigin: string;
}

/**
 * @param key - name of the environment variable that holds the key
 * @throws MonosemError ERR_CONFIG for an address that is none, holds a password or would send a key unencrypted over a
 *   network, and for a key that is no header value. The key is in no message.
 */
export function serverAddress(baseUrl: string, variable: string): ServerAddress {
  if (baseUrl === "") {
    const message = "the server's address is empty: expected one such as http://127.0.0.1:8080/v1";
    throw new MonosemError("ERR_CONFIG", message);
  }
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol)) {
    throw new MonosemError("ERR_CONFIG", "the server's address must begin with http:// or https://");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "") {
    throw new MonosemError(
      "ERR_CONFIG",
      `the server's address must hold no name, password or query: the key belongs in the environment variable ${variable}`,
    );
  }
  const key = process.env[variable]?.trim() || undefined;
  if (key !== undefined && !/^[\x21-\x7e]+$/.test(key)) {
    throw new MonosemError("ERR_CONFIG", `the environment variable ${variable} holds no key: a key is printable ASCII`);
  }
  if (key !== undefined && url.protocol === "http:" && !isThisMachine(url.hostname)) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the key in ${variable} would go to ${url.host} unencrypted: use https, or leave the variable empty`,
    );
  }
  const keyOrigin = key === undefined ? `the environment variable ${variable} is not set` : `the key in ${variable}`;
  return { baseUrl: url, key, keyOrigin };
}

/** More than any answer to our questions: a server that sends more is not listened to. */
const LONGEST_BODY = 4 * 2 ** 20;
const LONGEST_REASON = 300;
/** Codes of errors before anything was sent. */
const NEVER_CONNECTED: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/**
 * Sends a request once.
 *
 * @param timeout - milliseconds until the whole answer must be there
 * @throws MonosemError where no other request can fare better: ERR_CONFIG for a proxy that is none and a port that is
 *   not for HTTP, ERR_ACCESS_DENIED, ERR_NOT_FOUND for no such address or
 *   model, ERR_NETWORK for a server that takes no such requests.
 *   Nothing that this function returns or throws holds the key, even where the server repeats it.
 */
export async function exchange(
  address: ServerAddress,
  request: ChatRequest,
  { dialect, timeout, signal }: { dialect: Dialect; timeout: number; signal: AbortSignal | undefined },
): Promise<Exchange> {
  const clean = (text: string): string => (address.key === undefined ? text : text.replaceAll(address.key, "[key]"));
  const endpoint = new URL(`${address.baseUrl.pathname.replace(/\/+$/, "")}/chat/completions`, address.baseUrl);
  const timer = AbortSignal.timeout(timeout);
  let response: Response;
  let body: string;
  try {
    response = await fetchThroughProxy(endpoint, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(address.key === undefined ? {} : { authorization: `Bearer ${address.key}` }),
      },
      body: JSON.stringify(requestBody(request, dialect)),
      redirect: "manual", // another address would be sent the texts, and perhaps the key
      signal: signal === undefined ? timer : AbortSignal.any([signal, timer]),
    });
    body = await boundedText(response);
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    if (timer.aborted) {
      return { kind: "again", reason: `no answer in ${timeout / 1000} s`, after: undefined, mayBePaid: true };
    }
    const { cause } = error as { cause?: { code?: unknown; message?: unknown } };
    const reason = clean(String(cause?.message || cause?.code || (error as Error).message)).slice(0, LONGEST_REASON);
    if (reason === "bad port") {
      const message = `${endpoint.host} cannot be asked: its port belongs to another protocol, and fetch never connects to it`;
      throw new MonosemError("ERR_CONFIG", message, { cause: error });
    }
    return { kind: "again", reason, after: undefined, mayBePaid: !NEVER_CONNECTED.has(cause?.code) };
  }
  const { status } = response;
  if (status >= 200 && status < 300) return readReply(body, clean);
  const reason = `HTTP ${status}${said(body, clean)}`;
  if (status === 408 || status === 409 || status === 429 || (status >= 500 && status !== 501)) {
    return {
      kind: "again",
      reason,
      after: retryAfterMilliseconds(response.headers.get("retry-after")),
      mayBePaid: false,
    };
  }
  if ([400, 413, 422, 501].includes(status)) return { kind: "rejected", reason };
  const refusal = `${endpoint.host} does not take requests at ${endpoint.pathname}: ${reason}`;
  if (status === 401 || status === 403) {
    throw new MonosemError("ERR_ACCESS_DENIED", `${refusal} (${address.keyOrigin})`);
  }
  throw new MonosemError(status === 404 ? "ERR_NOT_FOUND" : "ERR_NETWORK", refusal);
}

/** How to ask after this refusal; undefined when there is no other way. */
export function otherDialect(dialect: Dialect, reason: string): Dialect | undefined {
  if (dialect.lengthLimit === "max_tokens" && reason.includes("max_completion_tokens")) {
    return { ...dialect, lengthLimit: "max_completion_tokens" };
  }
  if (dialect.temperature && reason.includes("temperature")) return { ...dialect, temperature: false };
  if (dialect.format === "json_schema") return { ...dialect, format: "json_object" };
  return dialect.format === "json_object" ? { ...dialect, format: "text" } : undefined;
}

function requestBody({ model, messages, answer, maxTokens }: ChatRequest, dialect: Dialect): object {
  const formats = {
    json_schema: {
      response_format: { type: "json_schema", json_schema: { name: answer.name, strict: true, schema: answer.schema } },
    },
    json_object: { response_format: { type: "json_object" } },
    text: {},
  };
  return {
    model,
    messages,
    [dialect.lengthLimit]: maxTokens,
    ...(dialect.temperature ? { temperature: 0 } : {}),
    ...formats[dialect.format],
  };
}

const completion = z.object({
  choices: z
    .array(
      z.object({
        finish_reason: z.string().nullish(),
        message: z.object({ content: z.string().nullish(), refusal: z.string().nullish() }),
      }),
    )
    .min(1),
});
const count = z.int().min(0);
const usageReport = z.object({ usage: z.object({ prompt_tokens: count, completion_tokens: count }) });

/** A body that is no completion was perhaps paid for all the same: asking again may help. */
function readReply(body: string, clean: (text: string) => string): Exchange {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return { kind: "again", reason: `the answer is not JSON${said(body, clean)}`, after: undefined, mayBePaid: true };
  }
  const parsed = completion.safeParse(value);
  if (!parsed.success) {
    return {
      kind: "again",
      reason: `the answer is no chat completion${said(body, clean)}`,
      after: undefined,
      mayBePaid: true,
    };
  }
  const { finish_reason, message } = parsed.data.choices[0]!;
  const counted = usageReport.safeParse(value).data?.usage;
  const usage = counted && { inputTokens: counted.prompt_tokens, outputTokens: counted.completion_tokens };
  const text = clean(message.content ?? "");
  if (message.refusal) return { kind: "reply", usage, reply: { outcome: "refused", text: clean(message.refusal) } };
  if (finish_reason === "content_filter") return { kind: "reply", usage, reply: { outcome: "refused", text } };
  return { kind: "reply", usage, reply: { outcome: finish_reason === "length" ? "truncated" : "complete", text } };
}

/** What a body says about an error: OpenAI's `error.message`, or its beginning. */
function said(body: string, clean: (text: string) => string): string {
  let message: unknown = body;
  try {
    const value = JSON.parse(body);
    message = value?.error?.message ?? value?.error ?? value?.message ?? body;
  } catch {
    // not JSON: its text, then
  }
  const text = clean(typeof message === "string" ? message : JSON.stringify(message)).trim();
  return text === "" ? "" : `: ${text.slice(0, LONGEST_REASON)}`;
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += (chunk as Uint8Array).length;
    if (bytes > LONGEST_BODY) {
      throw new Error(`the answer is longer than ${LONGEST_BODY} bytes`);
    }
    text += decoder.decode(chunk as Uint8Array, { stream: true });
  }
  return text + decoder.decode();
}
