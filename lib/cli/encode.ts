import { type FileHandle, open, realpath, rm } from "node:fs/promises";
import type { Command } from "commander";
import { ActivationShards, type StoredDType, type StoredRows } from "../activations/activationShards.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { ioError, temporaryName } from "../formats/atomicFile.js";
import { float32FromBFloat16, float32FromFloat16 } from "../formats/halfPrecision.js";
import { SafetensorsWriter } from "../formats/safetensors.js";
import type { Sae } from "../sae/sae.js";
import { loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  positiveInteger,
  precisionOption,
  threadsOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { type Progress, startProgress } from "./progress.js";

interface EncodeFlags extends DeviceFlags {
  readonly sae: string;
  readonly activations: string;
  readonly tensor?: readonly string[];
  readonly output: string;
  readonly dense?: boolean;
  readonly batchSize: number;
}

export function registerEncode(program: Command): void {
  program
    .command("encode")
    .summary("write the latents of stored activations")
    .description(
      `Encodes stored activations [rows, dIn] and writes the active latents of every
row: those that are not 0.

The output is sparse unless --dense is given. The entries of row r are those
from rowOffsets[r] to rowOffsets[r + 1] in
  indices     I32 [entries]   active latents, ascending within a row
  values      F32 [entries]   their activations, above 0 unless the SAE is of an
                              architecture with negative latents
  rowOffsets  I64 [rows + 1]
and the file's metadata holds dSae. With --dense it is
  latents     F32 [rows, dSae]
Rows are streamed: memory does not grow with their number.`,
    )
    .requiredOption("--sae <dir>", "folder of the SAE, or file of one from another system")
    .requiredOption("--activations <file>", "safetensors file, or folder of shards, of activations")
    .requiredOption("--output <file>", "safetensors file to write")
    .option("--tensor <name...>", 'tensor in the file, of a crosscoder several (default: "activations")')
    .option("--dense", "write all latents of every row")
    .option("--batch-size <n>", "rows encoded at once", positiveInteger, 1024)
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem encode --sae runs/first/sae --activations heldout.safetensors --output latents.safetensors
  monosem encode --sae runs/first/sae --activations heldout.safetensors --output dense.safetensors --dense`,
    )
    .action((flags: EncodeFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => encode(flags, device, signal))),
    );
}

async function encode(flags: EncodeFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkOutputFiles(flags.output);
  using sae = await loadSae(flags.sae, device, signal);
  await using shards = await ActivationShards.open(flags.activations, flags.tensor);
  const { dIn, dSae } = sae.config;
  if (shards.dIn !== dIn) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `the activations in ${flags.activations} are ${shards.dIn} wide, but the SAE reads ${dIn}: they are of another model or hook`,
    );
  }
  await refuseWritingOver(shards, flags.output);
  const { rows } = shards;
  const progress = startProgress("encoding", rows, "rows");
  try {
    const batches = encodeBatches(shards, sae, flags.batchSize, signal, progress);
    const entries = flags.dense
      ? await writeDense(flags.output, rows, dSae, batches)
      : await writeSparse(flags.output, rows, dSae, batches);
    progress.stop();
    const l0 = rows === 0 ? 0 : entries / rows;
    const done = `${rows} rows, ${entries} active latents (${l0.toFixed(2)} per row) -> ${flags.output}`;
    process.stdout.write(`${visibleText(done)}\n`);
  } finally {
    progress.stop();
  }
}

async function refuseWritingOver(shards: ActivationShards, output: string): Promise<void> {
  const written = await realpath(output).catch(() => undefined);
  for (const path of shards.paths) {
    if ((await realpath(path)) !== written) continue;
    throw new MonosemError("ERR_CONFIG", `--output ${output} is a file of the activations themselves: choose another`);
  }
}

/** The rows as codes, batch by batch; each is disposed when the next is asked for. */
async function* encodeBatches(
  shards: ActivationShards,
  sae: Sae,
  batchSize: number,
  signal: AbortSignal,
  progress: Progress,
): AsyncGenerator<Codes> {
  const { rows, dIn } = shards;
  for (let first = 0; first < rows; first += batchSize) {
    if (signal.aborted) throw new MonosemError("ERR_ABORTED", "encoding was interrupted; nothing was written");
    const count = Math.min(batchSize, rows - first);
    const stored = shards.allocate(count);
    await shards.read({ firstRow: first, rows: count }, stored, 0);
    const data = asFloat32(stored, shards.dtype);
    const bad = data.findIndex((value) => !Number.isFinite(value));
    if (bad !== -1) {
      const row = shards.describeRow(first + Math.floor(bad / dIn));
      throw new MonosemError("ERR_NON_FINITE", `${row} holds ${data[bad]}`);
    }
    using activations = sae.device.tensor(data, [count, dIn]);
    using codes = sae.encode(activations);
    yield codes;
    progress.update(first + count);
  }
}

function asFloat32(stored: StoredRows, dtype: StoredDType): Float32Array {
  if (stored instanceof Float32Array) return stored;
  return dtype === "F16" ? float32FromFloat16(stored) : float32FromBFloat16(stored);
}

async function writeDense(path: string, rows: number, dSae: number, batches: AsyncIterable<Codes>): Promise<number> {
  const writer = await SafetensorsWriter.create(path, [{ name: "latents", dtype: "F32", shape: [rows, dSae] }]);
  let entries = 0;
  try {
    for await (const codes of batches) {
      using dense = codes.device.kernels.densify(codes);
      const latents = await dense.readFloat32();
      for (const value of latents) if (value !== 0) entries += 1;
      await writer.write("latents", latents);
    }
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.close();
  return entries;
}

/** How many entries there are is only known at the end, so everything waits in files beside the output. */
async function writeSparse(path: string, rows: number, dSae: number, batches: AsyncIterable<Codes>): Promise<number> {
  await using indices = await Spool.create(path);
  await using values = await Spool.create(path);
  await using rowOffsets = await Spool.create(path);
  let entries = 0;
  await rowOffsets.append(BigInt64Array.of(0n));
  for await (const codes of batches) {
    const active = activeEntries(await codes.read(), entries);
    entries += active.indices.length;
    await indices.append(active.indices);
    await values.append(active.values);
    await rowOffsets.append(active.rowEnds);
  }
  const writer = await SafetensorsWriter.create(
    path,
    [
      { name: "indices", dtype: "I32", shape: [entries] },
      { name: "values", dtype: "F32", shape: [entries] },
      { name: "rowOffsets", dtype: "I64", shape: [rows + 1] },
    ],
    { dSae: String(dSae) },
  );
  try {
    for await (const piece of rowOffsets.pieces()) await writer.write("rowOffsets", new BigInt64Array(piece));
    for await (const piece of indices.pieces()) await writer.write("indices", new Int32Array(piece));
    for await (const piece of values.pieces()) await writer.write("values", new Float32Array(piece));
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.close();
  return entries;
}

/**
 * Without entries that were selected but are not active: 0, as in a TopK row with fewer than k positive pre-activations.
 * `rowEnds` counts on from `entriesBefore`.
 */
function activeEntries(
  codes: Awaited<ReturnType<Codes["read"]>>,
  entriesBefore: number,
): { rowEnds: BigInt64Array; indices: Int32Array; values: Float32Array } {
  const rows = codes.rowOffsets.length - 1;
  const rowEnds = new BigInt64Array(rows);
  const indices = new Int32Array(codes.features.length);
  const values = new Float32Array(codes.features.length);
  let kept = 0;
  for (let row = 0; row < rows; row++) {
    for (let entry = codes.rowOffsets[row]!; entry < codes.rowOffsets[row + 1]!; entry++) {
      const value = codes.values[entry]!;
      if (value === 0) continue;
      indices[kept] = codes.features[entry]!;
      values[kept] = value;
      kept += 1;
    }
    rowEnds[row] = BigInt(entriesBefore + kept);
  }
  return { rowEnds, indices: indices.subarray(0, kept), values: values.subarray(0, kept) };
}

const PIECE_BYTES = 2 ** 20; // a whole number of elements of any dtype

/**
 * Elements that wait on the disk, beside the output, until their number is known. Where the system lets an open file lose its
 * name, it does so at once, and not even a kill leaves it behind.
 */
class Spool {
  readonly #output: string;
  readonly #handle: FileHandle;
  /** The name that is left to remove. */
  readonly #path: string | undefined;

  private constructor(output: string, handle: FileHandle, path: string | undefined) {
    this.#output = output;
    this.#handle = handle;
    this.#path = path;
  }

  static async create(output: string): Promise<Spool> {
    const path = temporaryName(output);
    try {
      const handle = await open(path, "wx+");
      if (process.platform === "win32") return new Spool(output, handle, path);
      await rm(path);
      return new Spool(output, handle, undefined);
    } catch (error) {
      throw ioError(`cannot write ${output}`, error);
    }
  }

  async append(elements: Int32Array | Float32Array | BigInt64Array): Promise<void> {
    try {
      await this.#handle.writeFile(new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength));
    } catch (error) {
      throw ioError(`cannot write ${this.#output}`, error);
    }
  }

  async *pieces(): AsyncGenerator<ArrayBuffer> {
    const { size } = await this.#handle.stat();
    for (let position = 0; position < size; ) {
      const piece = await this.#read(position, Math.min(PIECE_BYTES, size - position));
      yield piece;
      position += piece.byteLength;
    }
  }

  async #read(position: number, bytes: number): Promise<ArrayBuffer> {
    const piece = new ArrayBuffer(bytes);
    try {
      const { bytesRead } = await this.#handle.read(new Uint8Array(piece), 0, bytes, position);
      if (bytesRead === bytes) return piece;
      throw new Error(`what was gathered for it ends at byte ${position + bytesRead}, not at ${position + bytes}`);
    } catch (error) {
      throw ioError(`cannot write ${this.#output}`, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
    if (this.#path !== undefined) await rm(this.#path, { force: true });
  }
}
