/** Activations in safetensors files, as one long list of rows. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MonosemError } from "../errors.js";
import { SafetensorsFile } from "../formats/safetensors.js";
import { type ActivationManifest, readManifest } from "./manifest.js";
import { originMetadata } from "./origin.js";
import type { ActivationHook, Json } from "./source.js";

/** How activations may be stored. */
export type StoredDType = "F32" | "F16" | "BF16";

/** Rows in the dtype of the file: f32, or the bits of f16 and bf16. */
export type StoredRows = Float32Array | Uint16Array;

interface Shard {
  readonly file: SafetensorsFile;
  /** Index of its first row in the whole list. */
  readonly firstRow: number;
  readonly rows: number;
}

/** Bytes handled between two turns of the event loop: well below a millisecond. */
const bytesPerTurn = 2 ** 20;

/** A run of consecutive rows within one shard. */
export interface RowRange {
  readonly firstRow: number;
  readonly rows: number;
}

/** The rows of one file, or of all shards of a folder, one shard after the other. */
export class ActivationShards {
  readonly rows: number;
  /** Of all tensors together. */
  readonly dIn: number;
  /** The tensors, which lie side by side in a row. */
  readonly tensors: readonly ActivationHook[];
  readonly dtype: StoredDType;
  /** Where they come from, as far as a manifest says: see `originMetadata`. */
  readonly metadata: Readonly<Record<string, Json>>;
  readonly #shards: readonly Shard[];

  private constructor(
    tensors: readonly ActivationHook[],
    dtype: StoredDType,
    shards: readonly Shard[],
    manifest: ActivationManifest | undefined,
  ) {
    this.metadata =
      manifest === undefined
        ? {}
        : originMetadata({ ...manifest, processing: manifest.processing, hooks: [manifest.hook] });
    this.tensors = tensors;
    this.dtype = dtype;
    this.dIn = tensors.reduce((sum, { width }) => sum + width, 0);
    this.#shards = shards;
    this.rows = shards.reduce((sum, shard) => sum + shard.rows, 0);
  }

  /**
   * Opens a file, or a folder: the shards that its manifest names, in that order; without a manifest, all its
   * .safetensors files by name.
   *
   * @param tensor - the name of the tensor, [rows, dIn], or of several that have the same rows and are to lie side by
   *   side; by default the manifest's, or "activations"
   * @throws MonosemError ERR_NOT_FOUND for a missing file, folder or tensor, ERR_FORMAT for malformed, truncated or
   *   disagreeing files, ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH, ERR_IO
   */
  static async open(path: string, tensor?: string | readonly string[]): Promise<ActivationShards> {
    const isDirectory = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
    const manifest = isDirectory ? await readManifest(path) : undefined;
    if (manifest?.complete === false) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${path} is incomplete: storing activations was interrupted after ${manifest.rows} rows. Continue it, or ` +
          "remove its manifest.json to use the shards that there are",
      );
    }
    const names = manifest?.shards.map(({ file }) => file) ?? (isDirectory ? await shardNames(path) : undefined);
    const tensors = [tensor ?? manifest?.tensor ?? "activations"].flat();
    const shards: Shard[] = [];
    try {
      for (const shardPath of names?.map((file) => join(path, file)) ?? [path]) {
        const firstRow = shards.reduce((sum, { rows }) => sum + rows, 0);
        const file = await SafetensorsFile.open(shardPath);
        shards.push({ file, firstRow, rows: file.entries.get(tensors[0]!)?.shape[0] ?? 0 });
        for (const name of tensors) checkShard(file, name, shards[0]!.file);
        checkSameRows(file, tensors);
        const promised = manifest?.shards[shards.length - 1]?.rows;
        if (promised !== undefined && promised !== shards.at(-1)!.rows) {
          throw new MonosemError(
            "ERR_FORMAT",
            `${shardPath} has ${shards.at(-1)!.rows} rows, but the manifest says ${promised}`,
          );
        }
      }
      const { file } = shards[0]!;
      const widths = tensors.map((name) => ({ name, width: file.entry(name).shape[1]! }));
      const opened = new ActivationShards(widths, file.entry(tensors[0]!).dtype as StoredDType, shards, manifest);
      if (
        manifest !== undefined &&
        tensors.length === 1 &&
        (manifest.dIn !== opened.dIn || manifest.dtype !== opened.dtype)
      ) {
        throw new MonosemError(
          "ERR_FORMAT",
          `the shards in ${path} are ${opened.dtype} of width ${opened.dIn}, but its manifest says ` +
            `${manifest.dtype} of width ${manifest.dIn}`,
        );
      }
      return opened;
    } catch (error) {
      for (const { file } of shards) await file.close();
      throw error;
    }
  }

  /** All rows in runs of at most `rowsPerRange`, none of which crosses the border of a shard. */
  ranges(rowsPerRange: number): RowRange[] {
    const ranges: RowRange[] = [];
    for (const { firstRow, rows } of this.#shards) {
      for (let row = 0; row < rows; row += rowsPerRange) {
        ranges.push({ firstRow: firstRow + row, rows: Math.min(rowsPerRange, rows - row) });
      }
    }
    return ranges;
  }

  /** An array for `rows` rows in the dtype of the files. */
  allocate(rows: number): StoredRows {
    const size = rows * this.dIn;
    return this.dtype === "F32" ? new Float32Array(size) : new Uint16Array(size);
  }

  /** The files, in the order of their rows. */
  get paths(): readonly string[] {
    return this.#shards.map(({ file }) => file.path);
  }

  get rowBytes(): number {
    return this.dIn * (this.dtype === "F32" ? 4 : 2);
  }

  /** How many rows are handled between two turns of the event loop. */
  get rowsPerTurn(): number {
    return Math.max(1, Math.floor(bytesPerTurn / this.rowBytes));
  }

  /**
   * Reads consecutive rows, across shards where necessary, piece by piece, so that the event loop turns in between.
   *
   * @param into - receives them, from its row `intoRow` on
   */
  async read({ firstRow, rows }: RowRange, into: StoredRows, intoRow: number): Promise<void> {
    const end = firstRow + rows;
    for (const shard of this.#shards) {
      const from = Math.max(firstRow, shard.firstRow);
      const to = Math.min(end, shard.firstRow + shard.rows);
      for (let row = from; row < to; row += this.rowsPerTurn) {
        const count = Math.min(this.rowsPerTurn, to - row);
        const at = (intoRow + row - firstRow) * this.dIn;
        const place = { firstRow: row - shard.firstRow, rows: count };
        await this.#readPiece(shard.file, place, into.subarray(at, at + count * this.dIn));
      }
    }
  }

  async #readPiece(file: SafetensorsFile, { firstRow, rows }: RowRange, into: StoredRows): Promise<void> {
    let column = 0;
    for (const { name, width } of this.tensors) {
      const { data } = await file.readRows(name, firstRow, rows);
      const values = data as StoredRows;
      if (width === this.dIn) into.set(values);
      else {
        for (let row = 0; row < rows; row++) {
          into.set(values.subarray(row * width, (row + 1) * width), row * this.dIn + column);
        }
      }
      column += width;
    }
  }

  /** Row of the whole list by the file that it is in, for messages. */
  describeRow(row: number): string {
    const { file, firstRow } = this.#shards.findLast((shard) => shard.firstRow <= row)!;
    return `row ${row - firstRow} (the first is 0) of ${file.path}`;
  }

  async close(): Promise<void> {
    for (const { file } of this.#shards) await file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Tensors that lie side by side have a row each for every token, in one dtype. */
function checkSameRows(file: SafetensorsFile, [first, ...others]: readonly string[]): void {
  const expected = file.entry(first!);
  for (const name of others) {
    const { shape, dtype } = file.entry(name);
    if (shape[0] === expected.shape[0] && dtype === expected.dtype) continue;
    throw new MonosemError(
      "ERR_FORMAT",
      `${JSON.stringify(name)} in ${file.path} is ${dtype} with ${shape[0]} rows, but ${JSON.stringify(first)} is ` +
        `${expected.dtype} with ${expected.shape[0]}: tensors to be used together must agree`,
    );
  }
}

function checkShard(file: SafetensorsFile, name: string, first: SafetensorsFile): void {
  const { shape, dtype } = file.entry(name);
  const what = `${JSON.stringify(name)} in ${file.path}`;
  if (shape.length !== 2 || shape[1] === 0) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `${what} has shape [${shape.join(", ")}], expected [rows, dIn]: flatten all but the last dimension`,
    );
  }
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
    throw new MonosemError("ERR_DTYPE_MISMATCH", `${what} has dtype ${dtype}, expected F32, F16 or BF16`);
  }
  const reference = first.entry(name);
  if (dtype !== reference.dtype || shape[1] !== reference.shape[1]) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${what} is ${dtype} of width ${shape[1]}, but ${first.path} is ${reference.dtype} of width ` +
        `${reference.shape[1]}: all shards must agree`,
    );
  }
}

async function shardNames(directory: string): Promise<string[]> {
  let all: string[];
  try {
    all = await readdir(directory);
  } catch (error) {
    throw new MonosemError("ERR_IO", `cannot read the folder ${directory}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const names = all.filter((name) => name.endsWith(".safetensors") && !name.startsWith("."));
  if (names.length === 0) {
    throw new MonosemError("ERR_NOT_FOUND", `${directory} has neither a manifest.json nor .safetensors files`);
  }
  return names.sort();
}
