import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ChatClient, type ChatClientOptions } from "../../lib/interpretation/chatClient.js";
import { type ChatRequest, greatestUsage, requestDigest } from "../../lib/interpretation/chatRequest.js";
import { retryAfterMilliseconds } from "../../lib/interpretation/retryDelay.js";
import { Spending } from "../../lib/interpretation/spending.js";
import { type MockAnswer, type MockServer, says, startServer, USAGE } from "./mockServer.js";

const CANARY = "sk-canary-0123456789/abcdef";
const VARIABLE = "MONOSEM_TEST_KEY";
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-chat-"));
  process.env[VARIABLE] = CANARY;
});

afterEach(async () => {
  delete process.env[VARIABLE];
  await rm(folder, { recursive: true, force: true });
});

function request(text = "hello", maxTokens = 50): ChatRequest {
  return {
    model: "judge",
    messages: [{ role: "user", content: text }],
    answer: { name: "answer", schema: { type: "object" } },
    maxTokens,
  };
}

function clientOf(server: MockServer, options: Partial<ChatClientOptions> = {}): ChatClient {
  return new ChatClient({ baseUrl: server.baseUrl, keyVariable: VARIABLE, firstDelay: 1, ...options });
}

/** A server that gives these answers one after the other, then the last one for ever. */
function startSequence(...answers: readonly MockAnswer[]): Promise<MockServer> {
  return startServer((_, index) => answers[Math.min(index, answers.length - 1)]!);
}

/** All bytes of all files below a folder, as text. */
async function bytesBelow(directory: string): Promise<string> {
  const files = await readdir(directory, { recursive: true, withFileTypes: true });
  const texts = files
    .filter((file) => file.isFile())
    .map((file) => readFile(join(file.parentPath, file.name), "latin1"));
  return (await Promise.all(texts)).join("\n");
}

test("a request carries model, messages, limit, temperature 0, the schema and the key, to chat/completions", async () => {
  const server = await startSequence(says({ ok: true }));
  const reply = await clientOf(server).complete(request());
  expect(reply).toEqual({ outcome: "complete", text: '{"ok":true}', usage: { inputTokens: 100, outputTokens: 20 } });
  const [{ headers, path, body }] = server.requests as [MockServer["requests"][number]];
  expect(path).toBe("/v1/chat/completions");
  expect(headers.authorization).toBe(`Bearer ${CANARY}`);
  expect(body).toEqual({
    model: "judge",
    messages: [{ role: "user", content: "hello" }],
    max_tokens: 50,
    temperature: 0,
    response_format: {
      type: "json_schema",
      json_schema: { name: "answer", strict: true, schema: { type: "object" } },
    },
  });
});

test("without a key in the environment none is sent, as local servers want it", async () => {
  delete process.env[VARIABLE];
  const server = await startSequence(says("{}"));
  await clientOf(server).complete(request());
  expect(server.requests[0]!.headers).not.toHaveProperty("authorization");
});

test("a server that knows no schemas is asked for any JSON, then in words, and remembers it", async () => {
  for (const known of ["json_object", undefined]) {
    const server = await startServer(({ body }) =>
      body.response_format?.type === known || body.response_format === undefined
        ? says("{}")
        : { status: 400, body: { error: { message: "response_format is not supported" } } },
    );
    const client = clientOf(server);
    for (const text of ["a", "b"]) expect(await client.complete(request(text))).toMatchObject({ outcome: "complete" });
    const formats = server.requests.map(({ body }) => body.response_format?.type);
    expect(formats).toEqual(
      known === undefined ? ["json_schema", "json_object", undefined, undefined] : ["json_schema", known, known],
    );
  }
});

test("a server that wants max_completion_tokens and no temperature gets what it wants", async () => {
  const server = await startServer(({ body }) => {
    if (body.max_tokens !== undefined) {
      return { status: 400, body: { error: { message: "Use 'max_completion_tokens' instead of 'max_tokens'." } } };
    }
    return body.temperature === undefined
      ? says("{}")
      : { status: 400, body: { error: { message: "'temperature' does not support 0 with this model." } } };
  });
  const client = clientOf(server);
  expect(await client.complete(request())).toMatchObject({ outcome: "complete" });
  expect(server.requests).toHaveLength(3);
  expect(server.requests[2]!.body).toMatchObject({
    max_completion_tokens: 50,
    response_format: { type: "json_schema" },
  });
});

test.each([
  ["429", { status: 429 }],
  ["500", { status: 500, body: "oops" }],
  ["a broken connection", { hangs: "broken" }],
  ["half an answer", { body: '{"choices":[{"mess' }],
  ["an answer without choices", { body: { choices: [] } }],
] as const)("after %s the request is sent again", async (_, failure) => {
  const server = await startSequence(failure, failure, says("{}"));
  const client = clientOf(server);
  expect(await client.complete(request())).toMatchObject({ outcome: "complete" });
  expect(client.activity).toMatchObject({ answered: 1, repeated: 2, failed: 0 });
});

test("where nothing can have been sent, nothing is paid: a port that fetch refuses ends it at once", async () => {
  const client = new ChatClient({ baseUrl: "http://127.0.0.1:1/v1", keyVariable: VARIABLE, firstDelay: 1 });
  await expect(client.complete(request())).rejects.toMatchObject({
    code: "ERR_CONFIG",
    message: expect.stringContaining("127.0.0.1:1 cannot be asked: its port"),
  });
  expect(client.activity).toMatchObject({ repeated: 0, usage: { inputTokens: 0, outputTokens: 0 } });
});

test("counts and times that cannot be are refused", async () => {
  const server = await startSequence(says("{}"));
  for (const [options, message] of [
    [{ concurrency: 0 }, "concurrency must be an integer of at least 1, found 0"],
    [{ retries: 1.5 }, "retries must be an integer of at least 0, found 1.5"],
    [{ timeout: 300_001 }, "timeout must be at most 300000 ms, found 300001"],
    [{ maxTokens: Number.NaN }, "maxTokens must be a number of at least 0, found NaN"],
    [{ prices: { input: -1, output: 1 } }, "prices.input must be a number of at least 0, found -1"],
  ] as const) {
    expect(() => clientOf(server, options)).toThrow(message);
  }
});

test("an answer that does not come in time is asked for again, and counted as paid", async () => {
  const server = await startSequence({ hangs: true }, says("{}"));
  const client = clientOf(server, { timeout: 300 });
  expect(await client.complete(request())).toMatchObject({ outcome: "complete" });
  const { inputTokens, outputTokens } = greatestUsage(request());
  expect(client.activity.usage).toEqual({ inputTokens: inputTokens + 100, outputTokens: outputTokens + 20 });
});

test("where a server does not tell what an answer cost, the most that it can have cost counts", async () => {
  const server = await startSequence({ body: { choices: [{ message: { content: "{}" } }] } });
  const client = clientOf(server);
  await client.complete(request());
  expect(client.activity.usage).toEqual(greatestUsage(request()));
});

test("Retry-After holds back the request and every other one", async () => {
  const times: number[] = [];
  const server = await startServer((_, index) => {
    times.push(performance.now());
    return index === 0 ? { status: 429, headers: { "retry-after": "1" } } : says("{}");
  });
  const client = clientOf(server, { concurrency: 1 });
  await Promise.all([client.complete(request("a")), client.complete(request("b"))]);
  expect(times).toHaveLength(3);
  expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(990);
});

test("Retry-After is read as seconds or as a date; anything else is nothing", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  expect(retryAfterMilliseconds("7", now)).toBe(7000);
  expect(retryAfterMilliseconds(" 1.5 ", now)).toBe(1500);
  expect(retryAfterMilliseconds("Thu, 01 Jan 2026 00:00:05 GMT", now)).toBe(5000);
  expect(retryAfterMilliseconds("Wed, 31 Dec 2025 00:00:00 GMT", now)).toBe(0);
  expect([null, "", "soon", "-3x"].map((header) => retryAfterMilliseconds(header, now))).toEqual(
    new Array(4).fill(undefined),
  );
});

test("truncation and refusal are replies of their own kind", async () => {
  const refusal = {
    choices: [{ finish_reason: "stop", message: { content: null, refusal: "I cannot." } }],
    usage: USAGE,
  };
  const server = await startSequence(says('{"a', "length"), { body: refusal }, says("", "content_filter"));
  const client = clientOf(server);
  const outcomes = [];
  for (const text of ["a", "b", "c"]) outcomes.push((await client.complete(request(text))).outcome);
  expect(outcomes).toEqual(["truncated", "refused", "refused"]);
});

test("one request that a server cannot answer fails by itself; three in a row end the run", async () => {
  const server = await startServer(({ body }) =>
    body.messages[0]!.content.includes("bad") ? { status: 500, body: { error: "cannot" } } : says("{}"),
  );
  const client = clientOf(server, { retries: 1, concurrency: 1 });
  expect(await client.complete(request("bad"))).toMatchObject({ outcome: "failed", text: "HTTP 500: cannot" });
  expect(await client.complete(request("good"))).toMatchObject({ outcome: "complete" });
  await client.complete(request("bad 1"));
  await client.complete(request("bad 2"));
  const host = new URL(server.baseUrl).host;
  const message = `${host} answered none of 3 requests in a row; the last time: HTTP 500: cannot`;
  await expect(client.complete(request("bad 3"))).rejects.toMatchObject({ code: "ERR_NETWORK", message });
  const sent = server.requests.length;
  await expect(client.complete(request("good again"))).rejects.toMatchObject({ code: "ERR_NETWORK" });
  expect(server.requests).toHaveLength(sent);
});

test("no access, no such model and a redirection end the run at once, with what the server says", async () => {
  const other = await startSequence(says("{}"));
  for (const [answer, code, message] of [
    [
      { status: 401, body: { error: { message: "wrong key" } } },
      "ERR_ACCESS_DENIED",
      /: HTTP 401: wrong key \(the key in MONOSEM_TEST_KEY\)$/,
    ],
    [
      { status: 404, body: { error: { message: "no model 'judge'" } } },
      "ERR_NOT_FOUND",
      /: HTTP 404: no model 'judge'$/,
    ],
    [
      { status: 307, headers: { location: `${other.baseUrl}/chat/completions` }, body: "" },
      "ERR_NETWORK",
      /: HTTP 307$/,
    ],
  ] as const) {
    const server = await startSequence(answer);
    const client = clientOf(server);
    await expect(client.complete(request())).rejects.toThrow(message);
    await expect(client.complete(request("again"))).rejects.toMatchObject({ code });
    expect(server.requests).toHaveLength(1);
  }
  expect(other.requests).toHaveLength(0);
});

test("no more requests are under way at a time than allowed", async () => {
  const server = await startServer(async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return says("{}");
  });
  const client = clientOf(server, { concurrency: 3 });
  await Promise.all(Array.from({ length: 12 }, (_, i) => client.complete(request(String(i)))));
  expect(server.requests).toHaveLength(12);
  expect(server.mostAtATime).toBe(3);
});

test("the same is never paid twice: at the same time, by the next client, or at another server", async () => {
  const server = await startServer(({ body }) => says({ echo: body.messages[0]!.content }));
  const options = { cacheDirectory: join(folder, "cache") };
  const client = clientOf(server, options);
  const [a, b] = await Promise.all([client.complete(request()), client.complete(request())]);
  expect(a).toEqual(b);
  await client.complete(request());
  expect(server.requests).toHaveLength(1);

  const other = await startSequence({ status: 500 });
  const second = clientOf(other, options);
  expect(await second.complete(request())).toEqual(a);
  expect(other.requests).toHaveLength(0);
  expect(second.activity).toMatchObject({ answered: 0, cached: 1, usage: { inputTokens: 0, outputTokens: 0 } });
});

test("refusals and truncations were paid and are kept; failures are not", async () => {
  const options = { cacheDirectory: folder, retries: 0 };
  const server = await startSequence(says("{", "length"), says("", "content_filter"), { status: 500 });
  const client = clientOf(server, { ...options, concurrency: 1 });
  for (const text of ["a", "b", "c"]) await client.complete(request(text));
  const working = await startSequence(says("{}"));
  const second = clientOf(working, options);
  const outcomes = [];
  for (const text of ["a", "b", "c"]) outcomes.push((await second.complete(request(text))).outcome);
  expect(outcomes).toEqual(["truncated", "refused", "complete"]);
  expect(working.requests).toHaveLength(1);
});

test("a request's digest depends on everything that determines the answer", () => {
  const base = request();
  const others: ChatRequest[] = [
    { ...base, model: "other" },
    { ...base, maxTokens: 51 },
    { ...base, answer: { ...base.answer, schema: { type: "array" } } },
    { ...base, messages: [{ role: "system", content: "hello" }] },
    { ...base, messages: [...base.messages, ...base.messages] },
  ];
  const digests = new Set([base, ...others].map(requestDigest));
  expect(digests.size).toBe(others.length + 1);
  expect(requestDigest(request())).toBe(requestDigest(base));
});

test("a cached file that was tampered with is named, not believed", async () => {
  const server = await startSequence(says("{}"));
  await clientOf(server, { cacheDirectory: folder }).complete(request());
  const digest = requestDigest(request());
  const path = join(folder, digest.slice(0, 2), `${digest}.json`);
  for (const content of ["{}", (await readFile(path, "utf8")).replace(digest, "another")]) {
    await writeFile(path, content);
    const again = clientOf(server, { cacheDirectory: folder }).complete(request());
    await expect(again).rejects.toMatchObject({ code: "ERR_FORMAT", message: expect.stringContaining(path) });
  }
});

test("a cap on tokens is never exceeded, and what a smaller request needs may still be spent", async () => {
  const { inputTokens, outputTokens } = greatestUsage(request());
  const server = await startServer(() =>
    says("{}", "stop", { prompt_tokens: inputTokens, completion_tokens: outputTokens }),
  );
  const maxTokens = 3.95 * (inputTokens + outputTokens);
  const client = clientOf(server, { maxTokens, concurrency: 8 });
  const results = await Promise.allSettled(
    ["a", "b", "c", "d", "e"].map((text) => client.complete(request(text.repeat(5)))),
  );
  expect(results.map(({ status }) => status).sort()).toEqual([
    "fulfilled",
    "fulfilled",
    "fulfilled",
    "rejected",
    "rejected",
  ]);
  expect(server.requests).toHaveLength(3);
  await expect(client.complete(request("f".repeat(5)))).rejects.toMatchObject({
    code: "ERR_BUDGET",
    message: expect.stringMatching(
      new RegExp(
        `^\\d+ of [\\d.]+ tokens are spent, and the next request may cost up to ${inputTokens + outputTokens} tokens \\(`,
      ),
    ),
  });
  expect(await client.complete(request("g".repeat(5), 5))).toMatchObject({ outcome: "complete" });
});

test("a request that only waits for others' reservations goes on when they turn out cheaper", async () => {
  const server = await startServer(() => says("{}", "stop", { prompt_tokens: 1, completion_tokens: 1 }));
  const { inputTokens, outputTokens } = greatestUsage(request());
  const client = clientOf(server, { maxTokens: inputTokens + outputTokens + 10, concurrency: 4 });
  await Promise.all(["a", "b", "c", "d"].map((text) => client.complete(request(text.repeat(5)))));
  expect(client.activity.usage).toEqual({ inputTokens: 4, outputTokens: 4 });
});

test("the cost is that of the tokens at the given prices, and capped", async () => {
  const server = await startSequence(says("{}"));
  const prices = { input: 2, output: 10 };
  const client = clientOf(server, { prices, maxCost: 0.0024 });
  await client.complete(request("a"));
  expect(client.activity.cost).toBeCloseTo((100 * 2 + 20 * 10) / 1e6, 12);
  for (const text of ["b", "c", "d"]) await client.complete(request(text));
  await expect(client.complete(request("e"))).rejects.toMatchObject({ code: "ERR_BUDGET" });
  expect(client.activity.cost!).toBeLessThanOrEqual(0.0024);
  expect(() => clientOf(server, { maxCost: 1 })).toThrow(/needs the prices/);
});

test("whatever is reserved and settled in whatever order, the caps hold", async () => {
  const amounts = fc.record({ greatest: fc.nat(100), share: fc.double({ min: 0, max: 1, noNaN: true }) });
  await fc.assert(
    fc.asyncProperty(fc.array(amounts, { maxLength: 20 }), fc.nat(300), async (requests, maxTokens) => {
      const spending = new Spending({ maxTokens });
      const outcomes = requests.map(async ({ greatest, share }) => {
        const reservation = await spending.reserve({ inputTokens: greatest, outputTokens: 0 });
        await Promise.resolve();
        reservation.settle({ inputTokens: Math.floor(greatest * share), outputTokens: 0 });
      });
      await Promise.allSettled(outcomes);
      expect(spending.paid.inputTokens).toBeLessThanOrEqual(maxTokens);
    }),
  );
});

test("many requests that wait for one signal are no leak to Node", async () => {
  const warnings: string[] = [];
  const warn = ({ name }: Error): number => warnings.push(name);
  process.on("warning", warn);
  const controller = new AbortController();
  const server = await startServer((_, index) => (index < 40 ? { status: 500 } : says("{}")));
  const client = clientOf(server, { concurrency: 40, firstDelay: 50 });
  await Promise.all(Array.from({ length: 40 }, (_, i) => client.complete(request(String(i)), controller.signal)));
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warn);
  expect(warnings).toEqual([]);
});

test("an aborted request ends at once, in flight or waiting", async () => {
  for (const answer of [{ hangs: true }, { status: 429, headers: { "retry-after": "100" } }] as const) {
    const controller = new AbortController();
    const server = await startServer(() => {
      setTimeout(() => controller.abort(), 20);
      return answer;
    });
    await expect(clientOf(server).complete(request(), controller.signal)).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
    expect(server.requests).toHaveLength(1);
  }
});

test("the key is in no reply, file or error, even where the server repeats it", async () => {
  const produced: string[] = [];
  const escaped = CANARY.replaceAll("/", "\\/");
  for (const answer of [
    says(`the key is ${CANARY}`),
    { body: `{"choices":[{"finish_reason":"stop","message":{"content":"${escaped}"}}]}` },
    { body: { choices: [{ message: { content: null, refusal: CANARY } }] } },
    { status: 401, body: { error: { message: `Incorrect API key provided: ${CANARY}` } } },
    { status: 400, body: CANARY },
    { status: 500, body: `{"error":"${escaped}"}` },
    { body: `no JSON ${CANARY}` },
    { hangs: "broken" },
  ] as const) {
    const server = await startSequence(answer);
    const client = clientOf(server, { cacheDirectory: folder, retries: 1 });
    // Another request each time, so that each is asked; its text holds no key.
    const result = await client.complete(request(`question ${produced.length}`)).catch((error: Error) => error);
    produced.push(result instanceof Error ? `${result.message}${result.stack}${String(result.cause)}` : result.text);
    produced.push(JSON.stringify(client.activity), JSON.stringify(client));
  }
  expect(produced.some((text) => text.includes("[key]"))).toBe(true);
  produced.push(await bytesBelow(folder));
  for (const text of produced) expect(text).not.toContain(CANARY);
});

test("addresses and keys that would leak a key or cannot work are refused, without showing the key", () => {
  const message = (baseUrl: string): string => {
    try {
      new ChatClient({ baseUrl, keyVariable: VARIABLE });
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(message("")).toMatch(/address is empty: expected one such as http/);
  expect(message("127.0.0.1:8080")).toMatch(/must begin with http/);
  expect(message("ftp://example.org/v1")).toMatch(/must begin with http/);
  expect(message("https://user:secret@example.org/v1")).toMatch(/no name, password or query/);
  expect(message("https://user:secret@example.org/v1")).not.toContain("secret");
  expect(message("http://example.org/v1")).toBe(
    "the key in MONOSEM_TEST_KEY would go to example.org unencrypted: use https, or leave the variable empty",
  );
  for (const local of ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:1/v1", "https://example.org/v1"]) {
    expect(message(local), local).toBe("");
  }
  process.env[VARIABLE] = "two words";
  expect(message("https://example.org/v1")).toMatch(/^the environment variable MONOSEM_TEST_KEY holds no key/);
});
