import { existsSync } from "node:fs";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeDirectory } from "../../lib/formats/makeDirectory.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("makes the folder and the missing ones above it, and leaves an existing one alone", async () => {
  const path = join(folder, "a/b/c");
  await makeDirectory(path);
  await makeDirectory(path);
  expect((await stat(path)).isDirectory()).toBe(true);
});

test("folders below one that is missing can be made at the same time", async () => {
  for (let round = 0; round < 50; round++) {
    const paths = Array.from({ length: 16 }, (_, i) => join(folder, String(round), "replies", String(i % 8)));
    await Promise.all(paths.map((path) => makeDirectory(path)));
    for (const path of paths) expect((await stat(path)).isDirectory()).toBe(true);
  }
});

test("a file in the way is an error that names the folder", async () => {
  await writeFile(join(folder, "file"), "");
  for (const path of [join(folder, "file"), join(folder, "file/below")]) {
    await expect(makeDirectory(path)).rejects.toMatchObject({ code: "ERR_IO", message: expect.stringContaining(path) });
  }
  await expect(makeDirectory(join(folder, "file"))).rejects.toThrow(/: there is a file of that name$/);
});

test.skipIf(!existsSync("/proc/self"))(
  "a file system that makes no folders is an error, not an endless loop",
  async () => {
    await expect(makeDirectory("/proc/monosem/run")).rejects.toMatchObject({ code: "ERR_IO" });
  },
);
