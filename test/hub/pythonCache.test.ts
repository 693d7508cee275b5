import { execFile } from "node:child_process";
import { readdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { downloadFiles } from "../../lib/hub/download.js";
import { startTestHub, type TestHub } from "./hubEnvironment.js";
import { firstCommit } from "./hubServer.js";

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/hub/${name}`, import.meta.url));
const repository = "owner/model";
const names = ["config.json", "folder/below/small.json", "folder/weights.bin", "same.bin"];
/** A Python that has huggingface_hub, to make the golden listing anew. */
const python = process.env.MONOSEM_PYTHON;

function start(): Promise<TestHub> {
  const large = Buffer.alloc(5000, "content");
  return startTestHub({
    name: repository,
    files: new Map([
      ["config.json", Buffer.from("{}")],
      ["folder/below/small.json", Buffer.from("[]")],
      ["folder/weights.bin", large],
      ["same.bin", large],
    ]),
  });
}

/** What python_cache.py prints. */
async function listing(cache: string): Promise<Record<string, object>> {
  const entries = await readdir(cache, { recursive: true, withFileTypes: true });
  const listed: [string, object][] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    const key = relative(cache, path);
    if (entry.isDirectory() || key.startsWith(".locks")) continue;
    if (entry.isSymbolicLink()) listed.push([key, { link: await readlink(path) }]);
    else if (key.includes("/refs/")) listed.push([key, { text: await readFile(path, "utf8") }]);
    else listed.push([key, { bytes: (await stat(path)).size }]);
  }
  return Object.fromEntries(listed.sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function golden(): Promise<unknown> {
  return JSON.parse(await readFile(fixture("python-cache.json"), "utf8"));
}

test.skipIf(python === undefined)(
  "huggingface_hub makes the golden listing anew, and each finds the other's files",
  async () => {
    const { home, server } = await start();
    const cache = join(home, "hub");
    const run = async (): Promise<unknown> => {
      const env = { ...process.env, HF_HUB_CACHE: cache, HF_HUB_DISABLE_TELEMETRY: "1" };
      const { stdout } = await promisify(execFile)(python!, [fixture("python_cache.py"), repository, ...names], {
        env,
      });
      return JSON.parse(stdout);
    };
    const transfers = (): number =>
      server.requests.filter(({ method, url }) => method === "GET" && /resolve|lfs/.test(url)).length;
    await writeFile(fixture("python-cache.json"), `${JSON.stringify(await run(), null, 2)}\n`);
    const made = transfers();
    const { directory, commit } = await downloadFiles(repository, undefined, (all) => all);
    expect(commit).toBe(firstCommit);
    expect(await readFile(join(directory, "config.json"), "utf8")).toBe("{}");
    expect(transfers()).toBe(made);
    const other = join(home, "other");
    const env = { ...process.env, HF_HUB_CACHE: other };
    const ours = fileURLToPath(new URL("downloadOne.mjs", import.meta.url));
    await promisify(execFile)(process.execPath, [ours, repository], { env });
    const before = transfers();
    await promisify(execFile)(python!, [fixture("python_cache.py"), repository, ...names], { env });
    expect(transfers()).toBe(before);
  },
);

test("the cache holds, name by name, what Python's huggingface_hub makes of the same repository", async () => {
  const { home } = await start();
  await downloadFiles(repository, undefined, (all) => all);
  expect(await listing(join(home, "hub"))).toEqual(await golden());
});
