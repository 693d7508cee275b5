import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Checkpoint, readLatestCheckpoint, writeCheckpoint } from "../../lib/training/checkpoint.js";
import { runInChild } from "./childProcess.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-"));
});
afterEach(() => rm(directory, { recursive: true }));

function checkpointOf(step: number): Checkpoint {
  return {
    step,
    tokens: step * 10,
    skippedSteps: 2,
    inputScales: { "": { input: [1.5], output: [1.5] } },
    configuration: { sae: { k: 3 } },
    arrays: {
      encoder: { shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => step + i / 7) },
      tokensSinceFired: { shape: [2], data: Float64Array.of(step, 2 ** 40) },
    },
    source: {
      state: { position: step, nested: [1, null, "x"] },
      tensors: {
        order: { shape: [2], data: Int32Array.of(-1, step) },
        rows: { shape: [0, 3], data: new Float32Array(0) },
      },
    },
  };
}

const write = (step: number): Promise<void> => writeCheckpoint(directory, checkpointOf(step));
const stepFound = async (): Promise<number | undefined> => (await readLatestCheckpoint(directory))?.step;

test("what is written is read, to the bit", async () => {
  await write(7);
  expect(await readLatestCheckpoint(directory)).toEqual(checkpointOf(7));
});

test("there is no checkpoint in a missing or an empty folder", async () => {
  expect(await readLatestCheckpoint(join(directory, "missing"))).toBeUndefined();
  expect(await stepFound()).toBeUndefined();
});

test("the last two are kept, by number and not by name", async () => {
  for (const step of [8, 9, 10, 100]) await write(step);
  expect((await readdir(directory)).sort()).toEqual(["step-10", "step-100"]);
  expect(await stepFound()).toBe(100);
});

test.each([
  ["a truncated array file", (folder: string) => truncate(join(folder, "training.safetensors"), 100)],
  ["a flipped bit", (folder: string) => flipBit(join(folder, "training.safetensors"))],
  ["a flipped bit in the source's state", (folder: string) => flipBit(join(folder, "source.safetensors"))],
  ["a truncated state file", (folder: string) => truncate(join(folder, "state.json"), 50)],
  ["a missing state file", (folder: string) => rm(join(folder, "state.json"))],
  ["an empty folder", async (folder: string) => rm(folder, { recursive: true }).then(() => mkdir(folder))],
])("%s makes the checkpoint before it the one to continue from", async (_, damage) => {
  await write(1);
  await write(2);
  await damage(join(directory, "step-2"));
  expect(await stepFound()).toBe(1);
  await damage(join(directory, "step-1"));
  await expect(stepFound()).rejects.toMatchObject({ code: "ERR_FORMAT" });
});

test("a checkpoint under another's name is not taken", async () => {
  await write(1);
  await rename(join(directory, "step-1"), join(directory, "step-5"));
  await expect(stepFound()).rejects.toThrow(/step 1/);
});

test("what a killed writer left is not read, and swept by the next write", async () => {
  await write(1);
  const leftover = join(directory, ".step-2.123.0123456789ab.tmp");
  await mkdir(leftover);
  await writeFile(join(leftover, "training.safetensors"), "half");
  expect(await stepFound()).toBe(1);
  await write(3);
  expect((await readdir(directory)).sort()).toEqual(["step-1", "step-3"]);
});

test("a folder that cannot be written gives ERR_IO and leaves earlier checkpoints", async () => {
  await write(1);
  const file = join(directory, "file");
  await writeFile(file, "");
  await expect(writeCheckpoint(join(file, "checkpoints"), checkpointOf(2))).rejects.toMatchObject({ code: "ERR_IO" });
  expect(await stepFound()).toBe(1);
});

test("a checkpoint interrupted by SIGKILL leaves the previous one loadable", async () => {
  for (const furtherWrites of [0, 1, 4]) {
    const before = (await stepFound()) ?? 0;
    const child = runInChild("./checkpointWriter.ts", "writeForever", [directory, before + 1]);
    const closed = once(child, "close");
    let written = 0;
    for await (const chunk of child.stdout) {
      written = Number(String(chunk).trim().split("\n").at(-1));
      if (written > before + furtherWrites) break;
    }
    child.kill("SIGKILL");
    await closed;
    expect(await stepFound()).toBeGreaterThanOrEqual(written);
  }
});

async function flipBit(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(path, bytes);
}
