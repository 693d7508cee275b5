import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isLogged, MetricsLog } from "../../lib/training/metricsLog.js";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-"));
  path = join(directory, "metrics.jsonl");
});
afterEach(() => rm(directory, { recursive: true }));

async function write(steps: readonly number[], run = { step: 0, steps: 100, logEvery: 2 }): Promise<void> {
  const log = await MetricsLog.open(path, run);
  for (const step of steps) await log.append({ step });
  await log.close();
}
const read = async (): Promise<number[]> =>
  (await readFile(path, "utf8"))
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line).step);

test("lines are appended as JSON", async () => {
  await write([2, 4]);
  expect(await readFile(path, "utf8")).toBe('{"step":2}\n{"step":4}\n');
});

test("a resumed log holds no line twice: later lines than the checkpoint's step are cut off", async () => {
  await write([2, 4, 6, 8]);
  await write([6], { step: 5, steps: 100, logEvery: 2 });
  expect(await read()).toEqual([2, 4, 6]);
});

test("a torn last line is cut off", async () => {
  await write([2, 4]);
  await appendFile(path, '{"step":6,"lo');
  await write([6], { step: 4, steps: 100, logEvery: 2 });
  expect(await read()).toEqual([2, 4, 6]);
});

test("the last line of a run that is then extended goes, the last line of a finished one stays", async () => {
  const run = { step: 0, steps: 5, logEvery: 2 };
  expect([1, 2, 3, 4, 5].filter((step) => isLogged(step, run))).toEqual([2, 4, 5]);
  await write([2, 4, 5], run);
  await write([], { ...run, step: 5 });
  expect(await read()).toEqual([2, 4, 5]);
  await write([6], { step: 5, steps: 100, logEvery: 2 });
  expect(await read()).toEqual([2, 4, 6]);
});

test("a log in a folder that is gone is refused by its path", async () => {
  await expect(
    MetricsLog.open(join(directory, "missing", "m.jsonl"), { step: 0, steps: 1, logEvery: 1 }),
  ).rejects.toThrow(expect.objectContaining({ code: "ERR_IO", message: expect.stringContaining("m.jsonl") }));
});
