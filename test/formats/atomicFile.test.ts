import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import {
  removeTemporaries,
  replacePairOfFiles,
  writeDirectoryAtomically,
  writeFileAtomically,
} from "../../lib/formats/atomicFile.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-atomic-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe("writeFileAtomically", () => {
  test("writes text, bytes, nothing, and what a function writes, and leaves no temporary", async () => {
    const path = join(directory, "a");
    await writeFileAtomically(path, "grüße");
    expect(await readFile(path, "utf8")).toBe("grüße");
    await writeFileAtomically(path, new Uint8Array([1, 0, 2]));
    expect([...(await readFile(path))]).toEqual([1, 0, 2]);
    await writeFileAtomically(path, (handle) => handle.writeFile("by hand"));
    expect(await readFile(path, "utf8")).toBe("by hand");
    await writeFileAtomically(path, "");
    expect(await readFile(path, "utf8")).toBe("");
    expect(await readdir(directory)).toEqual(["a"]);
  });

  test("keeps the previous file and removes the temporary when the content fails", async () => {
    const path = join(directory, "a");
    await writeFileAtomically(path, "before");
    const failure = writeFileAtomically(path, async (handle) => {
      await handle.writeFile("half");
      throw new RangeError("no more");
    });
    await expect(failure).rejects.toMatchObject({ code: "ERR_IO", message: expect.stringContaining(path) });
    await expect(failure).rejects.toMatchObject({ cause: expect.any(RangeError) });
    expect(await readFile(path, "utf8")).toBe("before");
    expect(await readdir(directory)).toEqual(["a"]);
  });

  test("passes a MonosemError of the content through", async () => {
    const error = new MonosemError("ERR_ABORTED", "stop");
    await expect(writeFileAtomically(join(directory, "a"), () => Promise.reject(error))).rejects.toBe(error);
  });

  test("names the path when the directory is missing, or when a folder stands in the way", async () => {
    const missing = join(directory, "no", "such", "a");
    await expect(writeFileAtomically(missing, "x")).rejects.toMatchObject({
      code: "ERR_IO",
      message: `cannot write ${missing}: ENOENT: no such file or directory`,
    });
    await mkdir(join(directory, "folder", "inner"), { recursive: true });
    await expect(writeFileAtomically(join(directory, "folder"), "x")).rejects.toMatchObject({ code: "ERR_IO" });
    expect(await readdir(directory)).toEqual(["folder"]);
  });

  test("a writer killed at any moment leaves a complete file", async () => {
    const path = join(directory, "state");
    const module = new URL("../../lib/formats/atomicFile.ts", import.meta.url).pathname;
    // Loads the TypeScript through the same transformer that runs the tests.
    const program = `
      import { createServer } from "vite";
      const server = await createServer({ configFile: false, logLevel: "silent", server: { middlewareMode: true, ws: false }, optimizeDeps: { noDiscovery: true } });
      const { writeFileAtomically } = await server.ssrLoadModule(${JSON.stringify(module)});
      for (let i = 0; ; i++) await writeFileAtomically(${JSON.stringify(path)}, Buffer.alloc(200_000, i % 256));
    `;
    for (const extraWrites of [0, 3, 11]) {
      await rm(path, { force: true });
      const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "ignore" });
      const closed = new Promise((resolve) => child.once("close", resolve));
      while (!existsSync(path) && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 2));
      await new Promise((resolve) => setTimeout(resolve, extraWrites));
      child.kill("SIGKILL");
      await closed;
      const content = await readFile(path);
      expect(content.length).toBe(200_000);
      expect(content.every((byte) => byte === content[0])).toBe(true);
    }
  });
});

describe("writeDirectoryAtomically", () => {
  const fillWith = (text: string) => async (temporary: string) => {
    await mkdir(join(temporary, "inner"));
    await writeFile(join(temporary, "inner", "file"), text);
  };
  const content = (name: string) => readFile(join(directory, name, "inner", "file"), "utf8");

  test("makes a folder, and replaces it as a whole", async () => {
    await writeDirectoryAtomically(join(directory, "sae"), fillWith("one"));
    expect(await content("sae")).toBe("one");
    await writeFile(join(directory, "sae", "stale"), "");
    await writeDirectoryAtomically(`${join(directory, "sae")}/`, fillWith("two"));
    expect(await content("sae")).toBe("two");
    expect(await readdir(join(directory, "sae"))).toEqual(["inner"]);
    expect(await readdir(directory)).toEqual(["sae"]);
  });

  test("keeps the previous folder and removes the temporary when filling fails", async () => {
    const path = join(directory, "sae");
    await writeDirectoryAtomically(path, fillWith("one"));
    const failure = writeDirectoryAtomically(path, async (temporary) => {
      await writeFile(join(temporary, "half"), "");
      throw new Error("disk on fire");
    });
    await expect(failure).rejects.toMatchObject({ code: "ERR_IO", message: expect.stringContaining("disk on fire") });
    expect(await content("sae")).toBe("one");
    expect(await readdir(directory)).toEqual(["sae"]);
  });

  test("puts a folder back that a kill between the two renames left aside", async () => {
    const path = join(directory, "sae");
    await writeDirectoryAtomically(path, fillWith("one"));
    await rename(path, join(directory, ".sae.previous"));
    await expect(writeDirectoryAtomically(path, () => Promise.reject(new Error("again")))).rejects.toThrow("again");
    expect(await content("sae")).toBe("one");
    await writeDirectoryAtomically(path, fillWith("two"));
    expect(await readdir(directory)).toEqual(["sae"]);
  });
});

describe("replacePairOfFiles", () => {
  const pair = { key: "key", other: "other" };
  const fillWith = (text: string) => async (temporary: string) => {
    await writeFile(join(temporary, "other"), text);
    await writeFile(join(temporary, "key"), text);
  };
  const content = async (): Promise<string[]> =>
    Promise.all(["key", "other"].map((name) => readFile(join(directory, name), "utf8").catch(() => "none")));

  test("replaces both, keeps other files and what a living process writes, and sweeps what a dead one left", async () => {
    const { pid: dead } = spawnSync(process.execPath, ["--version"]);
    const living = `.other.${process.pid}.0123456789ab.tmp`;
    for (const name of ["README.md", living, `.other.${dead}.0123456789ab.tmp`]) {
      await writeFile(join(directory, name), "");
    }
    await replacePairOfFiles(directory, pair, fillWith("one"));
    await replacePairOfFiles(directory, pair, fillWith("two"));
    expect(await content()).toEqual(["two", "two"]);
    expect((await readdir(directory)).sort()).toEqual([living, "README.md", "key", "other"].sort());
  });

  test("keeps the old pair when the new one cannot be written or put in place", async () => {
    await replacePairOfFiles(directory, pair, fillWith("one"));
    const full = replacePairOfFiles(directory, pair, () => Promise.reject(new Error("disk full")));
    await expect(full).rejects.toMatchObject({ code: "ERR_IO", message: expect.stringContaining("disk full") });
    const half = replacePairOfFiles(directory, pair, (temporary) => writeFile(join(temporary, "key"), "two"));
    await expect(half).rejects.toMatchObject({ code: "ERR_IO", message: expect.stringContaining(directory) });
    expect(await content()).toEqual(["one", "one"]);
    expect((await readdir(directory)).sort()).toEqual(["key", "other"]);
  });

  test("a kill before any change of a name leaves the old pair, the new one or no key, and the next call repairs it", async () => {
    const module = new URL("../../lib/formats/atomicFile.ts", import.meta.url).pathname;
    const program = `
      import files from "node:fs/promises";
      import { syncBuiltinESMExports } from "node:module";
      import { createServer } from "vite";
      const server = await createServer({ configFile: false, logLevel: "silent", server: { middlewareMode: true, ws: false }, optimizeDeps: { noDiscovery: true } });
      const { replacePairOfFiles } = await server.ssrLoadModule(${JSON.stringify(module)});
      let left = Number(process.argv[1]);
      for (const name of ["mkdir", "rename", "rm"]) {
        const original = files[name];
        files[name] = (...args) => {
          if (left-- === 0) process.kill(process.pid, "SIGKILL");
          return original(...args);
        };
      }
      syncBuiltinESMExports();
      await replacePairOfFiles(${JSON.stringify(directory)}, { key: "key", other: "other" }, async (folder) => {
        await files.writeFile(folder + "/other", "new");
        await files.writeFile(folder + "/key", "new");
      });
      process.exit(0);
    `;
    const seen = new Set<string>();
    for (let calls = 0; ; calls++) {
      await replacePairOfFiles(directory, pair, fillWith("old"));
      expect((await readdir(directory)).sort()).toEqual(["key", "other"]);
      const child = spawnSync(process.execPath, ["--input-type=module", "-e", program, String(calls)]);
      const left = (await content()).join(" ");
      seen.add(left);
      expect(left).toMatch(/^(old old|new new|none (old|new))$/);
      if (child.signal === null) {
        expect(child.status, String(child.stderr)).toBe(0);
        break;
      }
    }
    expect(seen).toContain("none new");
  });
});

test("removeTemporaries removes what killed writers left, and nothing else", async () => {
  await removeTemporaries(join(directory, "missing"));
  for (const name of [".a.jsonl.12.0123456789ab.tmp", ".hidden.tmp", "a.jsonl"])
    await writeFile(join(directory, name), "");
  await mkdir(join(directory, ".sae.12.0123456789ab.tmp", "inner"), { recursive: true });
  await removeTemporaries(directory);
  expect((await readdir(directory)).sort()).toEqual([".hidden.tmp", "a.jsonl"]);
});
