/**
 * Checkpoints: `checkpoints/step-N/` with everything that a run needs to continue bit for bit. A checkpoint is written
 * under a temporary name, flushed and renamed, so under its own name it is complete; what damages it later (a failing
 * disk, a truncating copy) is found by its checksums, and it is passed over for the one before.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Json, SourceState } from "../activations/source.js";
import { MonosemError } from "../errors.js";
import { ioError, removeTemporaries, writeDirectoryAtomically } from "../formats/atomicFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { SafetensorsFile, writeSafetensors } from "../formats/safetensors.js";
import type { InputScales } from "./inputScaling.js";

/** A named array of a checkpoint. */
export interface CheckpointArray {
  readonly shape: readonly number[];
  readonly data: Float32Array | Float64Array | Int32Array;
}

export interface Checkpoint {
  /** Steps finished. */
  readonly step: number;
  /** Tokens trained on. */
  readonly tokens: number;
  /** Steps that had no effect, because something in them was not finite. */
  readonly skippedSteps: number;
  /** Factors on the activations, by SAE. */
  readonly inputScales: Readonly<Record<string, InputScales>>;
  /** The configuration that a resumed run must share. */
  readonly configuration: Json;
  /** Parameters, moments and counters by name. */
  readonly arrays: Readonly<Record<string, CheckpointArray>>;
  readonly source: SourceState;
}

const formatVersion = 2;
const kept = 2;
const stateFile = "state.json";
const arraysFile = "training.safetensors";
const sourceFile = "source.safetensors";

const stateSchema = z.object({
  formatVersion: z.literal(formatVersion),
  step: z.int().nonnegative(),
  tokens: z.int().nonnegative(),
  skippedSteps: z.int().nonnegative(),
  inputScales: z.record(
    z.string(),
    z.object({ input: z.array(z.number().positive()), output: z.array(z.number().positive()) }),
  ),
  configuration: z.json(),
  source: z.json(),
  /** sha256 of the other files */
  checksums: z.object({ [arraysFile]: z.string(), [sourceFile]: z.string() }),
});

/**
 * Writes `step-N` under `directory` and then removes all but the last two.
 *
 * @throws MonosemError ERR_IO when the file system refuses. Where it refuses the new checkpoint (a full disk, for example)
 *   no part of it is left and the earlier ones are untouched; old ones that could not be removed go with the next.
 */
export async function writeCheckpoint(directory: string, checkpoint: Checkpoint): Promise<void> {
  const { arrays, source, ...rest } = checkpoint;
  await makeDirectory(directory);
  await removeTemporaries(directory);
  await writeDirectoryAtomically(join(directory, `step-${checkpoint.step}`), async (folder) => {
    await writeSafetensors(join(folder, arraysFile), arrays);
    await writeSafetensors(join(folder, sourceFile), source.tensors);
    const checksums = {
      [arraysFile]: await sha256(join(folder, arraysFile)),
      [sourceFile]: await sha256(join(folder, sourceFile)),
    };
    await writeFile(
      join(folder, stateFile),
      `${JSON.stringify({ formatVersion, ...rest, source: source.state, checksums }, null, 2)}\n`,
    );
  });
  try {
    for (const step of (await checkpointSteps(directory)).slice(kept)) {
      await rm(join(directory, `step-${step}`), { recursive: true, force: true });
    }
  } catch (error) {
    throw ioError(`cannot remove old checkpoints from ${directory}`, error);
  }
}

/**
 * The newest checkpoint under `directory` that is whole; undefined when the folder is missing or holds none.
 *
 * @throws MonosemError ERR_FORMAT when there are checkpoints but none is whole, naming what is wrong with the newest.
 */
export async function readLatestCheckpoint(directory: string): Promise<Checkpoint | undefined> {
  let newestProblem: unknown;
  for (const step of await checkpointSteps(directory)) {
    try {
      return await readCheckpoint(join(directory, `step-${step}`), step);
    } catch (error) {
      newestProblem ??= error;
    }
  }
  if (newestProblem === undefined) return undefined;
  throw new MonosemError(
    "ERR_FORMAT",
    `no checkpoint under ${directory} is whole; of the newest: ${(newestProblem as Error).message}`,
    { cause: newestProblem },
  );
}

async function readCheckpoint(folder: string, step: number): Promise<Checkpoint> {
  const state = stateSchema.parse(JSON.parse(await readFile(join(folder, stateFile), "utf8")));
  if (state.step !== step) throw new MonosemError("ERR_FORMAT", `${folder} says that it is of step ${state.step}`);
  for (const [name, expected] of Object.entries(state.checksums)) {
    if ((await sha256(join(folder, name))) !== expected) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${join(folder, name)} is damaged: its sha256 is not the one in ${stateFile}`,
      );
    }
  }
  const { checksums: _, formatVersion: __, source, configuration, ...rest } = state;
  return {
    ...rest,
    configuration: configuration as Json,
    arrays: await readArrays(join(folder, arraysFile)),
    source: {
      state: source as Json,
      tensors: (await readArrays(join(folder, sourceFile))) as SourceState["tensors"],
    },
  };
}

async function readArrays(path: string): Promise<Record<string, CheckpointArray>> {
  await using file = await SafetensorsFile.open(path);
  const arrays: Record<string, CheckpointArray> = {};
  for (const name of file.entries.keys()) {
    const { shape, data } = await file.read(name);
    if (!(data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array)) {
      throw new MonosemError("ERR_FORMAT", `${path}: tensor ${name} is of a type that no checkpoint holds`);
    }
    arrays[name] = { shape, data };
  }
  return arrays;
}

/** Newest first. */
async function checkpointSteps(directory: string): Promise<number[]> {
  const steps = (await entriesOf(directory)).flatMap((name) => /^step-(\d+)$/.exec(name)?.[1] ?? []);
  return steps.map(Number).sort((a, b) => b - a);
}

async function entriesOf(directory: string): Promise<string[]> {
  const found = await stat(directory).catch(() => undefined);
  return found?.isDirectory() ? readdir(directory) : [];
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
