/** Storing a model's activations in files, to train on them more than once. */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { checkOptions, checkText, type OptionNames, refuseArgument } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { removeTemporaries } from "../formats/atomicFile.js";
import { FolderLock } from "../formats/folderLock.js";
import { bfloat16FromFloat32 } from "../formats/halfPrecision.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { SafetensorsWriter } from "../formats/safetensors.js";
import {
  type ActivationModel,
  checkHarvest,
  Harvest,
  type HarvestedRows,
  type HarvestOptions,
  harvestOptionNames,
} from "./harvest.js";
import { type ActivationManifest, readManifest, writeManifest } from "./manifest.js";

export interface StoreActivationsOptions extends HarvestOptions {
  readonly hook: string;
  /** Stop after the pass that reaches this many rows. Default: the whole corpus, once. */
  readonly rows?: number | undefined;
  /** "BF16" halves the size and rounds each number to 8 significant bits. Default "F32". */
  readonly dtype?: "F32" | "BF16" | undefined;
  /** A shard ends with the pass that reaches this size; it is held in memory until it is written. Default 256 MiB. */
  readonly shardBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after each pass with the rows that are stored or about to be. */
  readonly onProgress?: ((rows: number) => void) | undefined;
}

const optionNames: OptionNames<StoreActivationsOptions> = {
  ...harvestOptionNames,
  rows: true,
  dtype: { F32: true, BF16: true },
  shardBytes: true,
  signal: "signal",
  onProgress: "function",
};

const tensor = "activations";
const defaultShardBytes = 2 ** 28;

/**
 * Runs a model over a corpus once, and writes the activations at a hook point into `directory`, in the order of the
 * text: shards `activations-00000.safetensors` ... with one tensor "activations" [rows, dIn] each, and a manifest.json,
 * which StoredActivations reads.
 *
 * Shards and manifest are written atomically, the manifest anew after each shard. When the work was interrupted, the same
 * call continues after the last whole shard and produces the same files; when everything is there, it does nothing.
 *
 * @returns what manifest.json says
 * @throws MonosemError ERR_CONFIG when the folder holds activations stored with other options, or other files, or when
 *   another process works there; ERR_INVALID_ARGUMENT for arguments that are not what they must be, and for options that do
 *   not exist; ERR_ABORTED, with all whole shards kept; ERR_NON_FINITE when the model produced NaN or infinity; as Harvest;
 *   ERR_IO
 */
export async function storeActivations(
  directory: string,
  options: StoreActivationsOptions,
): Promise<ActivationManifest> {
  checkArguments(directory, options);
  const { rows: rowsWanted = Number.POSITIVE_INFINITY, dtype = "F32", shardBytes = defaultShardBytes } = options;
  const { model, hook, corpus, contextSize, prependBos, excludeSpecialTokens, batchPrompts } = options;
  const harvesting = { model, hook, corpus, contextSize, prependBos, excludeSpecialTokens, batchPrompts };
  const harvest = new Harvest({ ...harvesting, repeat: false });
  await makeDirectory(directory);
  using _lock = await FolderLock.acquire(directory, { what: "the folder of activations", signal: options.signal });
  let manifest = await beginOrContinue(directory, options, dtype, harvest);
  await removeTemporaries(directory);
  harvest.seek(manifest.position);
  const rowsPerShard = Math.ceil(shardBytes / (harvest.dIn * (dtype === "F32" ? 4 : 2)));
  while (!manifest.complete) {
    const before = manifest.rows;
    const enough = Math.min(before + rowsPerShard, rowsWanted);
    const parts: (Float32Array | Uint16Array)[] = [];
    let rows = before;
    let ended = false;
    let queued: Promise<HarvestedRows | undefined> | undefined;
    try {
      while (!ended && rows < enough) {
        throwIfAborted(options.signal, "storing activations");
        const pass = await (queued ?? harvest.next(options.signal));
        queued = undefined;
        ended = pass === undefined;
        if (pass === undefined) continue;
        using activations = pass.activations;
        const read = readFinite(activations, options);
        rows += pass.rows;
        // The model runs on while this pass is read. The next shard's first pass is not its concern: where that begins,
        // the manifest says where this one ends.
        if (rows < enough) queued = harvest.next(options.signal);
        queued?.catch(() => undefined); // should the read fail first
        const part = await read;
        parts.push(dtype === "F32" ? part : bfloat16FromFloat32(part));
        options.onProgress?.(rows);
      }
    } finally {
      (await queued?.catch(() => undefined))?.activations.dispose();
    }
    const shards = [...manifest.shards];
    if (rows > before) {
      const file = `activations-${String(shards.length).padStart(5, "0")}.safetensors`;
      await writeShard(join(directory, file), dtype, [rows - before, harvest.dIn], parts);
      shards.push({ file, rows: rows - before });
    }
    manifest = { ...manifest, shards, rows, complete: ended || rows >= rowsWanted, position: harvest.position };
    await writeManifest(directory, manifest);
  }
  return manifest;
}

function checkArguments(directory: string, options: StoreActivationsOptions): void {
  const what = "storeActivations";
  checkText(`${what}: directory`, "the path of a folder", directory);
  checkOptions(what, options, optionNames);
  checkHarvest(what, options);
  checkText(`${what}: hook`, "the name of one hook point", options.hook);
  const { rows, shardBytes } = options;
  for (const [name, value] of Object.entries({ rows, shardBytes })) {
    if (value !== undefined && !(typeof value === "number" && value >= 1)) {
      refuseArgument(`${what}: ${name}`, "a positive number", value);
    }
  }
}

async function beginOrContinue(
  directory: string,
  options: StoreActivationsOptions,
  dtype: "F32" | "BF16",
  harvest: Harvest,
): Promise<ActivationManifest> {
  const { model, hook, corpus, contextSize, prependBos, excludeSpecialTokens } = options;
  const identity = {
    model: model.config.name,
    hook,
    tokenizer: tokenizerFingerprint(model.tokenizer),
    corpus: corpus.fingerprint,
    contextSize,
    prependBos,
    excludeSpecialTokens,
    processing: model.config.processing,
    tensor,
    dtype,
    dIn: harvest.dIn,
  };
  const found = await readManifest(directory);
  if (found === undefined) {
    await requireEmptyDirectory(directory);
    const shards: ActivationManifest["shards"] = [];
    const position = harvest.position;
    return { formatVersion: 1, ...identity, rows: 0, shards, complete: false, position };
  }
  for (const [key, value] of Object.entries(identity)) {
    const there = found[key as keyof typeof identity];
    if (JSON.stringify(there) !== JSON.stringify(value)) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${directory} holds activations stored with ${key} ${JSON.stringify(there)}, not ${JSON.stringify(value)}: ` +
          "choose another folder",
      );
    }
  }
  // More rows may be asked for than the last time; at the end of the corpus there are none to add.
  const { rows: rowsWanted = Number.POSITIVE_INFINITY } = options;
  return { ...found, complete: found.complete && found.rows >= rowsWanted };
}

/** Shards without a manifest are what an interruption before the first manifest left: they are written again. */
async function requireEmptyDirectory(directory: string): Promise<void> {
  const names = await readdir(directory).catch((error: Error) => {
    throw new MonosemError("ERR_IO", `cannot read the folder ${directory}: ${error.message}`, { cause: error });
  });
  const foreign = names.find((name) => !name.startsWith(".") && !/^activations-\d+\.safetensors$/.test(name));
  if (foreign !== undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      `${directory} holds ${JSON.stringify(foreign)}, which is no stored activation: choose an empty folder`,
    );
  }
}

async function writeShard(
  path: string,
  dtype: "F32" | "BF16",
  shape: readonly number[],
  parts: readonly (Float32Array | Uint16Array)[],
): Promise<void> {
  const writer = await SafetensorsWriter.create(path, [{ name: tensor, dtype, shape }]);
  try {
    for (const part of parts) await writer.write(tensor, part);
    await writer.close();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** Activations, which must be numbers: a sum in float64 of float32 numbers is finite exactly when all of them are. */
async function readFinite(activations: Tensor, { model, hook }: StoreActivationsOptions): Promise<Float32Array> {
  using sum = model.device.zeros([1], "f64");
  model.device.kernels.sum(activations, sum);
  const [values, total] = await Promise.all([activations.readFloat32(), sum.readScalar()]);
  if (!Number.isFinite(total)) {
    throw new MonosemError("ERR_NON_FINITE", `the activations at hook point ${hook} hold NaN or infinity`);
  }
  return values;
}

/** SHA-256 of the texts of all tokens, in order of their ids. */
export function tokenizerFingerprint(tokenizer: ActivationModel["tokenizer"]): string {
  const texts = tokenizer.tokenTexts(Array.from({ length: tokenizer.vocabularySize }, (_, id) => id));
  return createHash("sha256").update(JSON.stringify(texts)).digest("hex");
}
