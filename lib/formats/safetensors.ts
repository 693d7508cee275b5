/**
 * Reading and writing safetensors files. What a file may look like is in safetensorsHeader.ts; here are the bytes.
 *
 * Numbers are little-endian in the file, as they are in the memory of every machine that the engine runs on.
 */
import type { FileHandle } from "node:fs/promises";
import { MonosemError } from "../errors.js";
import { AtomicFile } from "./atomicFile.js";
import { FileBytes, ioError, requireArray } from "./fileBytes.js";
import {
  checkedByteLength,
  hasLoneSurrogate,
  headerLengthBytes,
  maximumHeaderBytes,
  parseHeader,
  quote,
  readHeaderLength,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsHeader,
  safetensorsDTypeBytes,
} from "./safetensorsHeader.js";
import { arrayOf, isFloatingPoint, type SafetensorsArray, type SafetensorsData, toFloat32 } from "./tensorArray.js";

export type { SafetensorsDType, SafetensorsEntry } from "./safetensorsHeader.js";
export type { SafetensorsArray, SafetensorsData } from "./tensorArray.js";

/** Longest single write: the system takes at most 2^31 - 1 bytes at once. */
const transferBytes = 2 ** 30;

/**
 * An open safetensors file, of which tensors and rows are read when they are asked for; whoever opens it closes it.
 *
 * The header is checked as a whole when the file is opened. Nothing is allocated for a tensor before it is known that
 * the file holds its bytes, so that memory never exceeds a small multiple of the file's length.
 */
export class SafetensorsFile {
  readonly path: string;
  /** By name, in the order of their bytes in the file. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** The strings under `__metadata__`; without a prototype. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #bytes: FileBytes;

  private constructor(bytes: FileBytes, header: SafetensorsHeader) {
    this.path = bytes.path;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.#bytes = bytes;
  }

  /**
   * Opens a file and checks its header.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_FORMAT when it is malformed or truncated, ERR_IO
   *   when it cannot be read
   */
  static async open(path: string): Promise<SafetensorsFile> {
    const bytes = await FileBytes.open(path);
    try {
      const fileBytes = bytes.byteLength;
      const prefix = await bytes.read(0, Math.min(headerLengthBytes, fileBytes));
      const headerBytes = readHeaderLength(prefix, fileBytes, path);
      const header = await bytes.read(headerLengthBytes, headerBytes);
      return new SafetensorsFile(bytes, parseHeader(header, fileBytes, path));
    } catch (error) {
      await bytes.close();
      throw error;
    }
  }

  /**
   * The entry of a tensor.
   *
   * @throws MonosemError ERR_NOT_FOUND listing the names that the file has
   */
  entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `${this.path} has no tensor ${quote(name)}; it has ${listNames([...this.entries.keys()])}`,
      );
    }
    return entry;
  }

  /**
   * Reads a tensor as it stands in the file.
   *
   * @throws MonosemError ERR_NOT_FOUND for an unknown name, ERR_DISPOSED after `close`, ERR_FORMAT when the file shrank, ERR_OUT_OF_MEMORY, ERR_IO
   */
  async read(name: string): Promise<SafetensorsArray> {
    const { dtype, shape, byteOffset, byteLength } = this.entry(name);
    return { dtype, shape, data: await this.#elements(dtype, byteOffset, byteLength) };
  }

  /**
   * Reads `rows` consecutive entries of the first dimension, shape [rows, ...].
   *
   * @throws MonosemError as `read`; ERR_INVALID_ARGUMENT for rows that the tensor does not have, ERR_SHAPE_MISMATCH for
   *   a tensor without dimensions
   */
  async readRows(name: string, firstRow: number, rows: number): Promise<SafetensorsArray> {
    const { dtype, shape, byteOffset, byteLength } = this.entry(name);
    const available = shape[0];
    if (available === undefined) {
      throw new MonosemError("ERR_SHAPE_MISMATCH", `${quote(name)} in ${this.path} is a scalar: it has no rows`);
    }
    if (!isIndex(firstRow) || !isIndex(rows) || firstRow + rows > available) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `rows ${firstRow} to ${firstRow + rows} were asked of ${quote(name)} in ${this.path}, which has ${available}`,
      );
    }
    const rowBytes = available === 0 ? 0 : byteLength / available;
    const data = await this.#elements(dtype, byteOffset + firstRow * rowBytes, rows * rowBytes);
    return { dtype, shape: [rows, ...shape.slice(1)], data };
  }

  /**
   * Reads a floating-point tensor as f32: f16 and bf16 exactly, f64 rounded to nearest.
   *
   * @param expectedShape - when given, another shape is refused
   * @throws MonosemError as `read`; ERR_DTYPE_MISMATCH for integers, ERR_SHAPE_MISMATCH
   */
  async readFloat32(name: string, expectedShape?: readonly number[]): Promise<Float32Array> {
    const { shape } = this.#floatingPointEntry(name);
    if (expectedShape !== undefined && !sameShape(shape, expectedShape)) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${quote(name)} in ${this.path} has shape [${shape.join(", ")}], expected [${expectedShape.join(", ")}]`,
      );
    }
    return toFloat32(await this.read(name));
  }

  /**
   * As `readRows`, as f32.
   *
   * @throws MonosemError as `readRows`; ERR_DTYPE_MISMATCH for integers
   */
  async readFloat32Rows(name: string, firstRow: number, rows: number): Promise<Float32Array> {
    this.#floatingPointEntry(name);
    return toFloat32(await this.readRows(name, firstRow, rows));
  }

  async close(): Promise<void> {
    await this.#bytes.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #elements(dtype: SafetensorsDType, position: number, byteLength: number): Promise<SafetensorsData> {
    requireArray(byteLength / safetensorsDTypeBytes[dtype], this.path);
    return new arrayOf[dtype](await this.#bytes.readBuffer(position, byteLength));
  }

  #floatingPointEntry(name: string): SafetensorsEntry {
    const entry = this.entry(name);
    if (!isFloatingPoint(entry.dtype)) {
      throw new MonosemError(
        "ERR_DTYPE_MISMATCH",
        `${quote(name)} in ${this.path} has dtype ${entry.dtype}, expected F32, F16, BF16 or F64`,
      );
    }
    return entry;
  }
}

/** Name, dtype and shape of a tensor that will be written. */
export interface SafetensorsSpecification {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
}

/**
 * Writes a file whose tensors' shapes are known beforehand, piece by piece: the pieces of one tensor in order, the
 * tensors in any order. The file appears under its name when it is closed, complete; until then, and when the process
 * dies, only a temporary beside it exists.
 */
export class SafetensorsWriter {
  readonly #file: AtomicFile;
  readonly #tensors: ReadonlyMap<string, { readonly entry: SafetensorsEntry; written: number }>;

  private constructor(file: AtomicFile, entries: Iterable<SafetensorsEntry>) {
    this.#file = file;
    this.#tensors = new Map([...entries].map((entry) => [entry.name, { entry, written: 0 }]));
  }

  /**
   * Begins a file. Tensors are laid out as the reference implementation does, wide dtypes first and then by name, so
   * that each is aligned to its elements.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for an impossible shape, a name used twice or reserved, ERR_IO
   */
  static async create(
    path: string,
    tensors: readonly SafetensorsSpecification[],
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<SafetensorsWriter> {
    const { header, entries } = layOut(path, tensors, metadata);
    const file = await AtomicFile.create(path);
    try {
      await writeBytes(file.handle, path, 0, header);
    } catch (error) {
      await file.abort();
      throw error;
    }
    return new SafetensorsWriter(file, entries);
  }

  /**
   * Appends elements to a tensor.
   *
   * @param data - of the array type of the tensor's dtype (f16 and bf16: bits in a Uint16Array)
   * @throws MonosemError ERR_NOT_FOUND, ERR_DTYPE_MISMATCH, ERR_SHAPE_MISMATCH for more elements than its shape holds,
   *   ERR_IO
   */
  async write(name: string, data: SafetensorsData): Promise<void> {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) {
      const names = listNames([...this.#tensors.keys()]);
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `no tensor ${quote(name)} was announced for ${this.#file.path}: ${names}`,
      );
    }
    const { entry } = tensor;
    checkArrayType(name, entry.dtype, data);
    if (tensor.written + data.byteLength > entry.byteLength) {
      const elementBytes = safetensorsDTypeBytes[entry.dtype];
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${quote(name)} of shape [${entry.shape.join(", ")}] has room for ` +
          `${(entry.byteLength - tensor.written) / elementBytes} more elements, got ${data.length}`,
      );
    }
    const position = entry.byteOffset + tensor.written;
    tensor.written += data.byteLength;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    await writeBytes(this.#file.handle, this.#file.path, position, bytes);
  }

  /**
   * Flushes the file and gives it its name.
   *
   * @throws MonosemError ERR_SHAPE_MISMATCH naming a tensor that is not complete (the file is then aborted), ERR_IO
   */
  async close(): Promise<void> {
    try {
      for (const [name, { entry, written }] of this.#tensors) {
        if (written !== entry.byteLength) {
          throw new MonosemError(
            "ERR_SHAPE_MISMATCH",
            `${quote(name)} of ${this.#file.path} is incomplete: ${written} of ${entry.byteLength} bytes were written`,
          );
        }
      }
      await this.#file.commit();
    } catch (error) {
      await this.#file.abort();
      throw error;
    }
  }

  /** Gives the file up and removes its temporary; never throws. */
  async abort(): Promise<void> {
    await this.#file.abort();
  }
}

/** A tensor to write; the dtype follows from the array except for a Uint16Array, which may be F16, BF16 or U16. */
export interface SafetensorsInput {
  readonly shape: readonly number[];
  readonly data: SafetensorsData;
  readonly dtype?: SafetensorsDType;
}

/**
 * Writes a whole file, atomically.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH or ERR_DTYPE_MISMATCH when data does not fit its shape or dtype,
 *   ERR_INVALID_ARGUMENT, ERR_IO
 */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, SafetensorsInput>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const specifications = Object.entries(tensors).map(([name, { shape, data, dtype }]) => {
    const specification = { name, shape, dtype: dtype ?? dtypeOf(name, data) };
    const elements = shape.reduce((product, dimension) => product * dimension, 1);
    if (elements !== data.length) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${quote(name)} of shape [${shape.join(", ")}] needs ${elements} elements, got ${data.length}`,
      );
    }
    checkArrayType(name, specification.dtype, data);
    return specification;
  });
  const writer = await SafetensorsWriter.create(path, specifications, metadata);
  try {
    for (const [name, { data }] of Object.entries(tensors)) await writer.write(name, data);
    await writer.close();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function layOut(
  path: string,
  tensors: readonly SafetensorsSpecification[],
  metadata: Readonly<Record<string, string>>,
): { header: Uint8Array; entries: SafetensorsEntry[] } {
  const ordered = [...tensors].sort(
    (a, b) => safetensorsDTypeBytes[b.dtype] - safetensorsDTypeBytes[a.dtype] || (a.name < b.name ? -1 : 1),
  );
  // Built as text: in an object, names like __proto__ would vanish and names like "1" would move to the front.
  const members: string[] = [];
  for (const text of Object.entries(metadata).flat()) {
    if (hasLoneSurrogate(text)) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `the metadata ${quote(text)} for ${path} is not valid Unicode`);
    }
  }
  if (Object.keys(metadata).length > 0) members.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const ranges: { specification: SafetensorsSpecification; begin: number; byteLength: number }[] = [];
  const names = new Set(["__metadata__"]);
  let begin = 0;
  for (const specification of ordered) {
    const { name, dtype, shape } = specification;
    if (names.has(name)) {
      const reason = name === "__metadata__" ? "is reserved" : "stands twice";
      throw new MonosemError("ERR_INVALID_ARGUMENT", `the tensor name ${quote(name)} for ${path} ${reason}`);
    }
    names.add(name);
    if (hasLoneSurrogate(name)) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `the tensor name ${quote(name)} for ${path} is not valid Unicode`);
    }
    const byteLength = checkedByteLength(shape, dtype);
    if (byteLength === undefined) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${quote(name)} cannot have the shape [${shape.join(", ")}]`);
    }
    const range = JSON.stringify({ dtype, shape, data_offsets: [begin, begin + byteLength] });
    members.push(`${JSON.stringify(name)}:${range}`);
    ranges.push({ specification, begin, byteLength });
    begin += byteLength;
  }
  const json = Buffer.from(`{${members.join(",")}}`);
  // Spaces pad the header so that the data begins at a multiple of 8 bytes.
  const headerBytes = Math.ceil(json.length / 8) * 8;
  if (headerBytes > maximumHeaderBytes) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `the header of ${path} exceeds ${maximumHeaderBytes} bytes`);
  }
  const header = Buffer.alloc(headerLengthBytes + headerBytes, " ");
  header.writeBigUInt64LE(BigInt(headerBytes));
  json.copy(header, headerLengthBytes);
  const entries = ranges.map(({ specification, begin, byteLength }) => {
    return { ...specification, byteOffset: header.length + begin, byteLength };
  });
  return { header, entries };
}

function dtypeOf(name: string, data: SafetensorsData): SafetensorsDType {
  if (data instanceof Uint16Array) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${quote(name)} is a Uint16Array: say whether F16, BF16 or U16`);
  }
  for (const dtype of Object.keys(arrayOf) as SafetensorsDType[]) {
    if (data instanceof arrayOf[dtype]) return dtype;
  }
  throw new MonosemError("ERR_INVALID_ARGUMENT", `${quote(name)} is no typed array that a safetensors file can hold`);
}

function checkArrayType(name: string, dtype: SafetensorsDType, data: SafetensorsData): void {
  if (!(data instanceof arrayOf[dtype])) {
    throw new MonosemError(
      "ERR_DTYPE_MISMATCH",
      `${quote(name)} has dtype ${dtype}, which is written from a ${arrayOf[dtype].name}, not a ${data.constructor.name}`,
    );
  }
}

async function writeBytes(handle: FileHandle, path: string, position: number, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const length = Math.min(transferBytes, bytes.byteLength - done);
    try {
      done += (await handle.write(bytes, done, length, position + done)).bytesWritten;
    } catch (error) {
      throw ioError("write", path, error);
    }
  }
}

function listNames(names: readonly string[]): string {
  if (names.length === 0) return "no tensors";
  const shown = names.slice(0, 20).map(quote).join(", ");
  return names.length > 20 ? `${shown} and ${names.length - 20} more` : shown;
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dimension, axis) => dimension === b[axis]);
}

function isIndex(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
