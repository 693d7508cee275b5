import { spawn } from "node:child_process";
import { lstat, mkdir, readdir, readFile, readlink, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeEach, expect, test, vi } from "vitest";
import { type DownloadProgress, downloadFiles, type HubSnapshot } from "../../lib/hub/download.js";
import { startTestHub } from "./hubEnvironment.js";
import { firstCommit, gitHash, type HubServer, serve, sha256 } from "./hubServer.js";

const repository = "owner/model";
const config = Buffer.from('{"model_type":"gpt2"}');
const weights = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7919) >> 3));
const files = new Map([
  ["config.json", config],
  ["folder/weights.bin", weights],
]);

let server: HubServer;
let home: string;

beforeEach(async () => {
  ({ server, home } = await startTestHub({ name: repository, files }));
});

const all = (names: readonly string[]): readonly string[] => names;

const download = (options: Parameters<typeof downloadFiles>[3] = {}): Promise<HubSnapshot> =>
  downloadFiles(repository, undefined, all, options);

const root = (): string => join(home, "hub/models--owner--model");
const blob = (): string => join(root(), "blobs", sha256(weights));
const partial = (): string => `${blob()}.partial`;

/** Content that arrives, whatever happened on the way. */
async function expectComplete({ directory }: HubSnapshot): Promise<void> {
  expect(await readFile(join(directory, "config.json"))).toEqual(config);
  expect((await readFile(join(directory, "folder/weights.bin"))).equals(weights)).toBe(true);
  expect((await readdir(join(root(), "blobs"))).sort()).toEqual([gitHash(config), sha256(weights)].sort());
}

const isTransfer = ({ url }: IncomingMessage): boolean => url!.startsWith("/lfs/");

/** Misbehaves in the first transfers of the large file only. */
function inTransfers(count: number, misbehave: (request: IncomingMessage, response: ServerResponse) => void): void {
  let left = count;
  server.misbehave = (request, response) => {
    if (!isTransfer(request) || left === 0) return false;
    left -= 1;
    misbehave(request, response);
    return true;
  };
}

/** Sends the range asked for as far as some bytes, and breaks the connection off. */
function dropAfter(bytes: number): (request: IncomingMessage, response: ServerResponse) => void {
  return ({ headers }, response) => {
    const from = Number(/\d+/.exec(headers.range ?? "0")![0]);
    response.writeHead(from === 0 ? 200 : 206, {
      "content-length": weights.length - from,
      ...(from === 0 ? {} : { "content-range": `bytes ${from}-${weights.length - 1}/${weights.length}` }),
    });
    response.write(weights.subarray(from, from + bytes), () => setTimeout(() => response.destroy(), 20));
  };
}

test("files come into the cache in the layout that is shared with Python", async () => {
  const snapshot = await download();
  expect(snapshot).toMatchObject({ repository, commit: firstCommit, files: ["config.json", "folder/weights.bin"] });
  expect(snapshot.directory).toBe(join(root(), "snapshots", firstCommit));
  await expectComplete(snapshot);
  expect(await readFile(join(root(), "refs/main"), "utf8")).toBe(firstCommit);
  expect(await readlink(join(snapshot.directory, "folder/weights.bin"))).toBe(`../../../blobs/${sha256(weights)}`);
});

test("what is in the cache is not asked for again, and only what is chosen arrives", async () => {
  const choose = (): string[] => ["config.json"];
  const first = await downloadFiles(repository, undefined, choose);
  expect(first.files).toEqual(["config.json"]);
  expect(server.transfersOf("weights.bin")).toHaveLength(0);
  await download();
  await download();
  expect(server.transfersOf("weights.bin")).toHaveLength(1);
  expect(server.transfersOf("config.json")).toHaveLength(1);
});

test("files that stand in the snapshot themselves, where links are not possible, are there", async () => {
  const path = join(root(), "snapshots", firstCommit, "folder/weights.bin");
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, weights);
  await download();
  expect(server.transfersOf("weights.bin")).toHaveLength(0);
  await writeFile(path, weights.subarray(1));
  await expectComplete(await download());
});

test("only a folder is listed, and page after page", async () => {
  const names = await downloadFiles(repository, "folder", all);
  expect(names.files).toEqual(["folder/weights.bin"]);
  server.entriesPerPage = 1;
  await expectComplete(await download());
  expect(server.requests.filter(({ url }) => url.includes("page=1"))).toHaveLength(1);
});

test("progress counts all bytes, small files first", async () => {
  const seen: DownloadProgress[] = [];
  await download({ onProgress: (progress) => seen.push(progress) });
  const totalBytes = config.length + weights.length;
  expect(seen[0]).toMatchObject({ repository, file: "config.json", totalBytes });
  expect(seen.at(-1)).toEqual({ repository, file: "folder/weights.bin", bytes: totalBytes, totalBytes });
  expect(seen.every(({ bytes }, i) => i === 0 || bytes >= seen[i - 1]!.bytes)).toBe(true);
});

test("the token goes to the endpoint, and not to the host of large files that it redirects to", async () => {
  vi.stubEnv("HF_TOKEN", "hf_secret");
  await expectComplete(await download());
  const sentTo = (storage: boolean): Set<string | undefined> =>
    new Set(
      server.requests
        .filter(({ url }) => url.startsWith("/lfs/") === storage)
        .map(({ authorization }) => authorization),
    );
  expect(sentTo(false)).toEqual(new Set(["Bearer hf_secret"]));
  expect(sentTo(true)).toEqual(new Set([undefined]));
});

test("dropped connections are continued where they broke off, as long as there is progress", async () => {
  inTransfers(8, dropAfter(30_000));
  await expectComplete(await download());
  const ranges = server.requests.filter(({ url }) => url.startsWith("/lfs/")).map(({ range }) => range);
  expect(ranges[0]).toBeUndefined();
  expect(ranges.slice(1)).toEqual(Array.from({ length: 8 }, (_, i) => `bytes=${30_000 * (i + 1)}-`));
});

test("a connection that always breaks off at once is given up, and what had arrived is kept and continued", async () => {
  let transfers = 0;
  inTransfers(20, (request, response) => dropAfter(transfers++ === 0 ? 1000 : 0)(request, response));
  await expect(download()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: expect.stringMatching(/owner\/model\/folder\/weights\.bin: stopped at byte 1000 of 300000, 5 times: \w/),
  });
  expect((await stat(partial())).size).toBe(1000);
  server.misbehave = () => false;
  await expectComplete(await download());
  expect(server.transfersOf("weights.bin").at(-1)!.range).toBe("bytes=1000-");
});

test("a server that ignores ranges sends the file from its beginning, once more", async () => {
  await mkdir(dirname(blob()), { recursive: true });
  await writeFile(partial(), weights.subarray(0, 5000));
  inTransfers(1, (_, response) => {
    response.writeHead(200, { "content-length": weights.length }).end(weights);
  });
  await expectComplete(await download());
});

test.each([
  ["shorter", (length: number) => length - 100],
  ["longer", (length: number) => length + 100],
])("a file that is %s than the repository says is refused", async (_, change) => {
  const served = Buffer.alloc(change(weights.length), weights);
  inTransfers(20, (request, response) => serve(request, response, served, {}));
  const refusal = {
    code: "ERR_INTEGRITY",
    message: expect.stringContaining(`300000 bytes by the repository, but ${server.endpoint} has ${served.length}`),
  };
  await expect(download()).rejects.toMatchObject(refusal);
  await expect(lstat(blob())).rejects.toThrow();
});

test("a file that is longer without saying so is refused, too", async () => {
  inTransfers(20, (_, response) => {
    response.writeHead(200);
    response.write(weights);
    response.end("more");
  });
  await expect(download()).rejects.toMatchObject({ code: "ERR_INTEGRITY", message: /more than the 300000 bytes/ });
  await expect(lstat(blob())).rejects.toThrow();
});

test.each(["folder/weights.bin", "config.json"])(
  "%s with other content of the same length is refused and not kept",
  async (name) => {
    const other = Buffer.from(files.get(name)!);
    other[7]! ^= 1;
    server.misbehave = (request, response) => {
      if (!(name === "config.json" ? request.url!.endsWith(name) : isTransfer(request))) return false;
      serve(request, response, other, {});
      return true;
    };
    await expect(download()).rejects.toMatchObject({
      code: "ERR_INTEGRITY",
      message: /another hash.*nothing of it was kept/,
    });
    expect(await readdir(join(root(), "blobs"))).toEqual(name === "config.json" ? [] : [gitHash(config)]);
    server.misbehave = () => false;
    await expectComplete(await download());
  },
);

test("a damaged or overlong beginning that an earlier process left is thrown away", async () => {
  await mkdir(dirname(blob()), { recursive: true });
  for (const left of [Buffer.alloc(7000), Buffer.alloc(weights.length), Buffer.alloc(weights.length + 1)]) {
    await rm(blob(), { force: true });
    await writeFile(partial(), left);
    await expectComplete(await download());
  }
});

test("a server that refuses to continue, always, is given up", async () => {
  await mkdir(dirname(blob()), { recursive: true });
  await writeFile(partial(), weights.subarray(0, 5000));
  inTransfers(20, (_, response) => {
    response.writeHead(416).end();
  });
  await expect(download()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: /stopped at byte 5000.*refuses to continue/,
  });
});

test("failures that pass are tried again: 500, 503, 429 with Retry-After", async () => {
  const answers: [number, Record<string, string>][] = [
    [500, {}],
    [503, { "retry-after": "0" }],
    [429, { "retry-after": "1" }],
    [429, { ratelimit: '"api";r=0;t=0' }],
  ];
  server.misbehave = (request, response) => {
    const answer = request.url!.includes("/revision/") ? answers.shift() : undefined;
    if (answer === undefined) return false;
    response.writeHead(...answer).end();
    return true;
  };
  const start = performance.now();
  await expectComplete(await download());
  expect(performance.now() - start).toBeGreaterThan(1000);
});

test("failures that do not pass end with what was answered and how often it was tried", async () => {
  const answering = async (status: number, headers: Record<string, string> = {}): Promise<void> => {
    server.requests.length = 0;
    server.misbehave = (_, response) => {
      response.writeHead(status, headers).end();
      return true;
    };
    await download();
  };
  await expect(answering(502)).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: /answers with status 502 \(5 tries\)/,
  });
  expect(server.requests).toHaveLength(5);
  await expect(answering(429, { "retry-after": "3600" })).rejects.toMatchObject({
    code: "ERR_RATE_LIMITED",
    message: /try again in 3600 seconds \(1 try\)/,
  });
  expect(server.requests).toHaveLength(1);
  await expect(answering(401, { "x-error-code": "GatedRepo" })).rejects.toMatchObject({
    code: "ERR_ACCESS_DENIED",
    message: /owner\/model is gated: its terms .* set HF_TOKEN/,
  });
  await expect(answering(403)).rejects.toMatchObject({ code: "ERR_ACCESS_DENIED", message: /set HF_TOKEN/ });
  vi.stubEnv("HF_TOKEN", "hf_secret");
  const refused = answering(401);
  await expect(refused).rejects.toMatchObject({
    code: "ERR_ACCESS_DENIED",
    message: /the token given does not open it/,
  });
  await expect(refused).rejects.not.toThrow(/hf_secret/);
  await expect(answering(418)).rejects.toMatchObject({ code: "ERR_NETWORK", message: /status 418/ });
  expect(server.requests).toHaveLength(1);
});

test("what does not exist is said to be missing", async () => {
  await expect(downloadFiles("owner/modle", undefined, all)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: expect.stringContaining(`owner/modle: ${server.endpoint} has no such repository, or it is private`),
  });
  await expect(download({ revision: "v2" })).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: /owner\/model at v2: .* no such revision/,
  });
  await expect(downloadFiles(repository, "foldre", all)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: /owner\/model\/foldre: .* has no such file/,
  });
});

test.each([
  ["to itself", (url: string) => url],
  ["on and on", (url: string) => `${url}x`],
])("a server that redirects %s is refused", async (_, next) => {
  server.misbehave = (request, response) => {
    response.writeHead(302, { location: next(request.url!) }).end();
    return true;
  };
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /redirects in circles/ });
});

test("a redirect to something else than http is refused", async () => {
  server.misbehave = (_, response) => {
    response.writeHead(302, { location: "file:///etc/passwd" }).end();
    return true;
  };
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /redirects to "file:/ });
});

test("file names that lead out of the cache are refused, and nothing is written", async () => {
  for (const path of [
    "../../../escaped",
    "a/../../b",
    "/etc/passwd",
    "C:\\x",
    "a\\..\\b",
    "a//b",
    "",
    ".",
    "a\u0000b",
  ]) {
    server.changeListing = (entries) => [...entries, { ...entries[0], path }];
    await expect(download()).rejects.toMatchObject({ code: "ERR_FORMAT", message: /leads out of its folder/ });
  }
  expect(await readdir(home)).toEqual([]);
  for (const [name, revision] of [
    ["../x", "main"],
    ["a/b/c", "main"],
    ["a/..", "main"],
    ["owner/model", "../../x"],
    ["owner/model", ""],
  ]) {
    await expect(downloadFiles(name!, undefined, all, { revision: revision! })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  }
  await expect(downloadFiles(repository, "../..", all)).rejects.toMatchObject({ code: "ERR_FORMAT" });
});

test("a listing or a commit that a hub does not send is refused", async () => {
  server.changeListing = (entries) => entries.map((entry) => ({ ...entry, oid: "../../x", lfs: undefined }));
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /does not answer as a hub does/ });
  server.misbehave = (_, response) => {
    response.writeHead(200).end('{"sha":"../../x"}');
    return true;
  };
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /does not say which commit/ });
  server.misbehave = (_, response) => {
    response.writeHead(200).end("<html>");
    return true;
  };
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /does not answer as a hub does/ });
});

test("a listing without end is refused", async () => {
  server.misbehave = (request, response) => {
    if (!request.url!.includes("/tree/")) return false;
    response.writeHead(200, { link: `<${server.endpoint}${request.url}>; rel="next"` }).end("[]");
    return true;
  };
  await expect(download()).rejects.toMatchObject({ code: "ERR_NETWORK", message: /listing does not end/ });
});

test("offline, the cache has to do, and says what it lacks", async () => {
  await download();
  const asked = server.requests.length;
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  const snapshot = await download();
  await expectComplete(snapshot);
  expect(snapshot.withoutHub).toMatchObject({ code: "ERR_OFFLINE" });
  expect(server.requests).toHaveLength(asked);
  await expect(downloadFiles("owner/other", undefined, all)).rejects.toMatchObject({
    code: "ERR_OFFLINE",
    message: /HF_HUB_OFFLINE is set, and the cache holds nothing of owner\/other at main/,
  });
  await expect(download({ revision: "v2" })).rejects.toMatchObject({ code: "ERR_OFFLINE" });
});

test("a hub that cannot be reached is replaced by the cache, which says so; without one it is an error", async () => {
  await download();
  await server.stop();
  const snapshot = await download();
  await expectComplete(snapshot);
  expect(snapshot.withoutHub).toMatchObject({
    code: "ERR_NETWORK",
    message: expect.stringContaining("cannot reach http://127.0.0.1"),
  });
  await rm(home, { recursive: true });
  await expect(download()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: /cannot reach .*the cache holds nothing/,
  });
  await mkdir(home);
});

test("an abort ends a download, which continues there the next time", async () => {
  const controller = new AbortController();
  const rest: (() => void)[] = [];
  inTransfers(1, (_, response) => {
    response.writeHead(200, { "content-length": weights.length });
    response.write(weights.subarray(0, 50_000));
    rest.push(() => response.end());
  });
  const aborted = download({
    signal: controller.signal,
    onProgress: ({ bytes }) => {
      if (bytes > 40_000) controller.abort();
    },
  });
  await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect((await stat(partial())).size).toBeGreaterThan(0);
  await expectComplete(await download());
  expect(server.transfersOf("weights.bin").at(-1)!.range).toMatch(/^bytes=\d+-$/);
});

test("a slow server is waited for", async () => {
  inTransfers(1, async (_, response) => {
    response.writeHead(200, { "content-length": weights.length });
    for (let i = 0; i < weights.length; i += 60_000) {
      await delay(100);
      response.write(weights.subarray(i, i + 60_000));
    }
    response.end();
  });
  await expectComplete(await download());
});

test("a full disk is said to be one, and a file too large for it is not begun", async () => {
  await mkdir(dirname(blob()), { recursive: true });
  await symlink("/dev/full", partial());
  await expect(download()).rejects.toMatchObject({
    code: "ERR_IO",
    message: expect.stringMatching(/cannot keep owner\/model\/folder\/weights\.bin: the disk of .* is full/),
  });
  await rm(partial());
  const lfs = { oid: sha256(weights), size: 2 ** 52, pointerSize: 130 };
  server.changeListing = (entries) => entries.map((entry) => ("lfs" in entry ? { ...entry, lfs } : entry));
  const before = server.transfersOf("weights.bin").length;
  await expect(download()).rejects.toMatchObject({
    code: "ERR_IO",
    message: /needs 4503599627370496 more bytes, but .* has room for/,
  });
  expect(server.transfersOf("weights.bin")).toHaveLength(before);
});

/** A process of its own that downloads the repository. */
function startProcess(): {
  readonly kill: () => void;
  readonly firstBytes: Promise<void>;
  readonly directory: Promise<string>;
} {
  const script = fileURLToPath(new URL("downloadOne.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, repository], { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (text) => {
    stdout += text;
  });
  const firstBytes = new Promise<void>((resolve) => {
    child.stderr.on("data", (text) => {
      stderr += text;
      if (stderr.split("\n").some((bytes) => Number(bytes) > 40_000)) resolve();
    });
  });
  const directory = new Promise<string>((resolve, reject) => {
    child.on("close", (code) => (code === 0 ? resolve(stdout) : reject(new Error(`ended with ${code}: ${stderr}`))));
  });
  return { kill: () => child.kill("SIGKILL"), firstBytes, directory };
}

test("a process that is killed in the middle leaves nothing under a final name, and another continues", async () => {
  inTransfers(1, (_, response) => {
    response.writeHead(200, { "content-length": weights.length });
    response.write(weights.subarray(0, 100_000));
  });
  const killed = startProcess();
  const ended = expect(killed.directory).rejects.toThrow();
  await killed.firstBytes;
  killed.kill();
  await ended;
  await expect(lstat(blob())).rejects.toThrow();
  await expect(lstat(join(root(), "refs/main"))).rejects.toThrow();
  const left = (await stat(partial())).size;
  expect(left).toBeGreaterThan(40_000);
  await expectComplete(await download());
  expect(server.transfersOf("weights.bin").at(-1)!.range).toBe(`bytes=${left}-`);
});

test("of processes that want the same file at once, one downloads it", async () => {
  const slow = inTransfers.bind(undefined, 1, async (_: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { "content-length": weights.length });
    response.write(weights.subarray(0, 100_000));
    await delay(1500);
    response.end(weights.subarray(100_000));
  });
  slow();
  const processes = [startProcess(), startProcess(), startProcess()];
  const directories = await Promise.all(processes.map(({ directory }) => directory));
  expect(new Set(directories).size).toBe(1);
  expect(server.transfersOf("weights.bin")).toHaveLength(1);
  await expectComplete(await download());
});

test("a dead process's lock with a time in the future is waited for as long as any other, and said to be", async () => {
  const lock = join(home, "hub/.locks/models--owner--model", `${sha256(weights)}.monosem.lock`);
  await mkdir(lock, { recursive: true });
  const tomorrow = new Date(Date.now() + 86_400_000);
  await utimes(lock, tomorrow, tomorrow);
  const waited: string[] = [];
  await expectComplete(await download({ onWaiting: (path) => waited.push(path) }));
  expect(waited).toEqual([lock]);
  expect(await readdir(dirname(lock))).toEqual([]);
});

test("a file in the place of a lock is an error that says so", async () => {
  const lock = join(home, "hub/.locks/models--owner--model", `${sha256(weights)}.monosem.lock`);
  await mkdir(dirname(lock), { recursive: true });
  await writeFile(lock, "");
  await expect(download()).rejects.toMatchObject({
    code: "ERR_IO",
    message: expect.stringContaining(`${lock} is not the folder that a lock on a download is: remove it`),
  });
});
