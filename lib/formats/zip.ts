/**
 * Reading zip archives from strangers: stored and deflated entries, ZIP64 (PKWARE's APPNOTE 6.3.10).
 *
 * The central directory is the only index that is believed, and it must account for itself: it ends where the end record
 * begins, its entries do not overlap, none begins inside it. An entry's local header must repeat its name and method. An
 * archive that two programs would read differently (two end records, duplicate names) is refused, as are encryption and
 * archives of several disks. Nothing is allocated for an entry before the file is known to hold its bytes, and a deflated
 * one grows by at most the factor below.
 */
import { promisify } from "node:util";
import { constants, crc32, inflateRaw } from "node:zlib";
import { MonosemError } from "../errors.js";
import { allocate, type ByteSource } from "./fileBytes.js";
import { quote } from "./safetensorsHeader.js";

/** One file in an archive. */
export interface ZipEntry {
  readonly name: string;
  readonly deflated: boolean;
  /** As it lies in the archive. */
  readonly storedBytes: number;
  /** Once it is inflated. */
  readonly byteLength: number;
  readonly crc32: number;
  /** Of its local header. */
  readonly position: number;
  /** Where its bytes must have ended: the next local header, or the central directory. */
  readonly limit: number;
}

/** Deflate never does better than 1032 : 1. Weights are not such; what exceeds this is a bomb. */
const maximumRatio = 100;
/** Small enough to be inflated whatever the ratio. */
const alwaysInflated = 2 ** 24;
const maximumEntries = 100_000;
const maximumDirectoryBytes = 2 ** 25;
/** Of one deflated entry: what zlib takes at once. */
const maximumDeflatedBytes = 2 ** 31 - 1;

const endSignature = 0x06054b50;
const endBytes = 22;
const end64LocatorSignature = 0x07064b50;
const end64LocatorBytes = 20;
const end64Signature = 0x06064b50;
const end64Bytes = 56;
const directorySignature = 0x02014b50;
const directoryEntryBytes = 46;
const localSignature = 0x04034b50;
const localHeaderBytes = 30;
const maximumCommentBytes = 0xffff;
const zip64Field = 0x0001;
/** In flags: encrypted, patch data, strongly encrypted, masked headers. */
const refusedFlags = 0x0001 | 0x0020 | 0x0040 | 0x2000;

/** What zlib gives with the option `info`: the bytes, and an engine that knows how many it was fed. */
interface Inflated {
  readonly buffer: Uint8Array<ArrayBuffer>;
  readonly engine: { readonly bytesWritten: number };
}

const inflate = promisify(inflateRaw) as unknown as (bytes: Uint8Array, options: object) => Promise<Inflated>;

/** An open archive, of which entries are read when they are asked for. */
export class ZipArchive {
  readonly path: string;
  /** By name, in the order of the central directory. */
  readonly entries: ReadonlyMap<string, ZipEntry>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, entries: ReadonlyMap<string, ZipEntry>) {
    this.path = source.path;
    this.entries = entries;
    this.#source = source;
  }

  /**
   * Reads and checks the central directory. The archive takes the source over once it is open.
   *
   * @throws MonosemError ERR_FORMAT when it is malformed or truncated, ERR_UNSUPPORTED for encryption and methods other
   *   than stored and deflated, ERR_IO
   */
  static async open(source: ByteSource): Promise<ZipArchive> {
    const { position, byteLength, count } = await findDirectory(source);
    const directory = await source.read(position, byteLength);
    return new ZipArchive(source, parseDirectory(directory, position, count, source.path));
  }

  /**
   * Reads an entry and checks its CRC.
   *
   * @throws MonosemError ERR_NOT_FOUND for an unknown name, ERR_FORMAT when it is not what the directory says,
   *   ERR_OUT_OF_MEMORY, ERR_IO
   */
  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.entry(name);
    const stored = await this.#source.read(await this.#dataPosition(entry), entry.storedBytes);
    const bytes = entry.deflated ? await this.#inflate(entry, stored) : stored;
    if (crc32(bytes) !== entry.crc32) {
      throw malformed(this.path, `the bytes of ${quote(name)} do not have the CRC that the directory says`);
    }
    return bytes;
  }

  /**
   * Reads the beginning of an entry, at most `length` bytes; fewer when it is shorter or compresses that well. The CRC,
   * which is of all bytes, is not checked.
   *
   * @throws MonosemError as `read`
   */
  async readStart(name: string, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.entry(name);
    const position = await this.#dataPosition(entry);
    const stored = await this.#source.read(position, Math.min(length, entry.storedBytes));
    if (!entry.deflated) return stored;
    try {
      const { buffer } = await inflate(stored, { info: true, finishFlush: constants.Z_SYNC_FLUSH });
      return buffer.subarray(0, length);
    } catch (cause) {
      throw malformed(this.path, `${quote(name)} cannot be inflated: ${(cause as Error).message}`);
    }
  }

  /** @throws MonosemError ERR_NOT_FOUND */
  entry(name: string): ZipEntry {
    const entry = this.entries.get(name);
    if (entry !== undefined) return entry;
    const names = [...this.entries.keys()].slice(0, 20).map(quote).join(", ");
    throw new MonosemError("ERR_NOT_FOUND", `${this.path} has no entry ${quote(name)}; it has ${names || "none"}`);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Where the bytes of an entry begin, after its local header. */
  async #dataPosition({ name, deflated, position, storedBytes, limit }: ZipEntry): Promise<number> {
    const nameBytes = Buffer.from(name);
    const header = await this.#source.read(position, localHeaderBytes + nameBytes.length);
    const view = viewOf(header);
    if (view.getUint32(0, true) !== localSignature) {
      throw malformed(this.path, `no local header of ${quote(name)} stands at ${position}`);
    }
    const sameName =
      view.getUint16(26, true) === nameBytes.length && nameBytes.equals(header.subarray(localHeaderBytes));
    if (!sameName || view.getUint16(8, true) !== (deflated ? 8 : 0)) {
      throw malformed(this.path, `the local header of ${quote(name)} has another name or method than the directory`);
    }
    const begin = position + header.length + view.getUint16(28, true);
    if (begin + storedBytes > limit) {
      throw malformed(this.path, `the bytes of ${quote(name)} reach into what follows them`);
    }
    return begin;
  }

  async #inflate({ name, byteLength }: ZipEntry, stored: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
    if (byteLength === 0) return allocate(0, this.path);
    let inflated: Inflated;
    try {
      inflated = await inflate(stored, { info: true, maxOutputLength: byteLength });
    } catch (cause) {
      throw malformed(this.path, `${quote(name)} cannot be inflated: ${(cause as Error).message}`);
    }
    const { buffer, engine } = inflated;
    if (buffer.length !== byteLength || engine.bytesWritten !== stored.length) {
      throw malformed(
        this.path,
        `${quote(name)} inflates from ${engine.bytesWritten} to ${buffer.length} bytes, but the directory says from ` +
          `${stored.length} to ${byteLength}`,
      );
    }
    return buffer;
  }
}

/** Finds the end record, and through it the central directory. */
async function findDirectory(
  source: ByteSource,
): Promise<{ readonly position: number; readonly byteLength: number; readonly count: number }> {
  const { path, byteLength: fileBytes } = source;
  const tailBytes = Math.min(fileBytes, end64LocatorBytes + endBytes + maximumCommentBytes);
  const tail = await source.read(fileBytes - tailBytes, tailBytes);
  const view = viewOf(tail);
  const ends: number[] = [];
  for (let at = tailBytes - endBytes; at >= 0; at--) {
    const fits =
      view.getUint32(at, true) === endSignature && at + endBytes + view.getUint16(at + 20, true) === tailBytes;
    if (fits) ends.push(at);
  }
  const [at] = ends;
  if (at === undefined) throw malformed(path, "no end record closes it: it is truncated, or something else");
  if (ends.length > 1) throw malformed(path, "more than one end record closes it");

  const disks = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
  const end = {
    countHere: view.getUint16(at + 8, true),
    count: view.getUint16(at + 10, true),
    byteLength: view.getUint32(at + 12, true),
    position: view.getUint32(at + 16, true),
    directoryEnd: fileBytes - tailBytes + at,
  };
  const located =
    at >= end64LocatorBytes && view.getUint32(at - end64LocatorBytes, true) === end64LocatorSignature
      ? await readEnd64(source, fileBytes - tailBytes + at - end64LocatorBytes, end)
      : end;
  if (disks.some((disk) => disk !== 0) || located.countHere !== located.count) {
    throw malformed(path, "it is one of several disks");
  }
  const { position, byteLength, count, directoryEnd } = located;
  if (position + byteLength !== directoryEnd) {
    throw malformed(
      path,
      `its directory should lie from ${position} to ${position + byteLength}, but what closes it begins at ${directoryEnd}`,
    );
  }
  if (count > maximumEntries || byteLength > maximumDirectoryBytes) {
    throw malformed(path, `its directory of ${count} entries and ${byteLength} bytes exceeds the limits`);
  }
  return { position, byteLength, count };
}

interface EndRecord {
  readonly countHere: number;
  readonly count: number;
  readonly byteLength: number;
  readonly position: number;
  readonly directoryEnd: number;
}

/** The ZIP64 end record, through the locator that stands right before the plain one. */
async function readEnd64(source: ByteSource, locatorPosition: number, end: EndRecord): Promise<EndRecord> {
  const { path } = source;
  const locator = viewOf(await source.read(locatorPosition, end64LocatorBytes));
  const position = safeUint64(locator, 8, path);
  if (locator.getUint32(4, true) !== 0 || locator.getUint32(16, true) > 1) {
    throw malformed(path, "it is one of several disks");
  }
  if (position + end64Bytes !== locatorPosition) {
    throw malformed(path, "its ZIP64 end record does not stand before its locator");
  }
  const record = viewOf(await source.read(position, end64Bytes));
  const isRecord = record.getUint32(0, true) === end64Signature && safeUint64(record, 4, path) === end64Bytes - 12;
  if (!isRecord || record.getUint32(16, true) !== 0 || record.getUint32(20, true) !== 0) {
    throw malformed(path, "its ZIP64 end record is none");
  }
  const end64 = {
    countHere: safeUint64(record, 24, path),
    count: safeUint64(record, 32, path),
    byteLength: safeUint64(record, 40, path),
    position: safeUint64(record, 48, path),
    directoryEnd: position,
  };
  const agrees = (narrow: number, wide: number, saturated: number) => narrow === saturated || narrow === wide;
  if (
    !agrees(end.count, end64.count, 0xffff) ||
    !agrees(end.byteLength, end64.byteLength, 0xffffffff) ||
    !agrees(end.position, end64.position, 0xffffffff)
  ) {
    throw malformed(path, "its two end records contradict each other");
  }
  return end64;
}

function parseDirectory(
  directory: Uint8Array,
  directoryPosition: number,
  count: number,
  path: string,
): ReadonlyMap<string, ZipEntry> {
  const view = viewOf(directory);
  const found: (Omit<ZipEntry, "limit"> & { readonly atLeastUntil: number })[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let index = 0; index < count; index++) {
    if (at + directoryEntryBytes > directory.length || view.getUint32(at, true) !== directorySignature) {
      throw malformed(path, `entry ${index} of its directory is none`);
    }
    const nameEnd = at + directoryEntryBytes + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const entryEnd = extraEnd + view.getUint16(at + 32, true);
    if (entryEnd > directory.length) throw malformed(path, `entry ${index} of its directory is cut off`);
    const nameBytes = directory.subarray(at + directoryEntryBytes, nameEnd);
    const name = decodeName(nameBytes, index, path);
    if (names.has(name)) throw malformed(path, `the name ${quote(name)} stands twice in its directory`);
    names.add(name);

    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    if ((flags & refusedFlags) !== 0) throw unsupported(path, `${quote(name)} is encrypted or patched`);
    if (method !== 0 && method !== 8) {
      throw unsupported(
        path,
        `${quote(name)} is compressed by method ${method}; stored (0) and deflated (8) can be read`,
      );
    }
    const sizes = {
      byteLength: view.getUint32(at + 24, true),
      storedBytes: view.getUint32(at + 20, true),
      position: view.getUint32(at + 42, true),
    };
    const { byteLength, storedBytes, position } = widened(sizes, directory.subarray(nameEnd, extraEnd), name, path);
    const entry = {
      name,
      deflated: method === 8,
      storedBytes,
      byteLength,
      position,
      crc32: view.getUint32(at + 16, true),
    };
    checkSizes(entry, path);
    found.push({ ...entry, atLeastUntil: position + localHeaderBytes + nameBytes.length + storedBytes });
    at = entryEnd;
  }
  if (at !== directory.length)
    throw malformed(path, `${directory.length - at} bytes follow its directory's last entry`);

  const limits = new Map<string, number>();
  const byPosition = [...found].sort((a, b) => a.position - b.position);
  for (const [index, { name, atLeastUntil }] of byPosition.entries()) {
    const limit = byPosition[index + 1]?.position ?? directoryPosition;
    if (atLeastUntil > limit)
      throw malformed(path, `${quote(name)} overlaps what follows it, or lies outside the file`);
    limits.set(name, limit);
  }
  return new Map(
    found.map(({ atLeastUntil: _, ...entry }) => [entry.name, { ...entry, limit: limits.get(entry.name)! }]),
  );
}

function checkSizes({ name, deflated, storedBytes, byteLength }: Omit<ZipEntry, "limit">, path: string): void {
  if (!deflated) {
    if (storedBytes === byteLength) return;
    throw malformed(path, `${quote(name)} is stored, but its two sizes are ${storedBytes} and ${byteLength}`);
  }
  if (storedBytes > maximumDeflatedBytes || byteLength > maximumDeflatedBytes) {
    throw unsupported(path, `${quote(name)} is deflated and has 2 GiB or more; write the archive without compression`);
  }
  if (byteLength > alwaysInflated && byteLength > maximumRatio * storedBytes) {
    throw malformed(
      path,
      `${quote(name)} would grow from ${storedBytes} to ${byteLength} bytes, more than ${maximumRatio} times: a zip bomb`,
    );
  }
}

interface Sizes {
  readonly byteLength: number;
  readonly storedBytes: number;
  readonly position: number;
}

/** Those that are saturated come from the ZIP64 field, in this order. */
function widened(sizes: Sizes, extra: Uint8Array, name: string, path: string): Sizes {
  const saturated = 0xffffffff;
  if (Object.values(sizes).every((size) => size !== saturated)) return sizes;
  const view = viewOf(extra);
  for (let at = 0; at + 4 <= extra.length; ) {
    const end = at + 4 + view.getUint16(at + 2, true);
    if (end > extra.length) break;
    if (view.getUint16(at, true) === zip64Field) {
      let next = at + 4;
      const wide = (size: number): number => {
        if (size !== saturated) return size;
        next += 8;
        if (next > end) throw malformed(path, `the ZIP64 field of ${quote(name)} is too short`);
        return safeUint64(view, next - 8, path);
      };
      return {
        byteLength: wide(sizes.byteLength),
        storedBytes: wide(sizes.storedBytes),
        position: wide(sizes.position),
      };
    }
    at = end;
  }
  throw malformed(path, `${quote(name)} needs a ZIP64 field and has none`);
}

function decodeName(bytes: Uint8Array, index: number, path: string): string {
  let name: string | undefined;
  try {
    name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // refused below
  }
  if (name === undefined || name.includes("\0")) {
    throw malformed(path, `the name of entry ${index} of its directory is not UTF-8 text`);
  }
  return name;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function safeUint64(view: DataView, position: number, path: string): number {
  const value = view.getBigUint64(position, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed(path, `it has a size of ${value} bytes`);
  return Number(value);
}

function malformed(path: string, reason: string): MonosemError {
  return new MonosemError("ERR_FORMAT", `${path} is not a valid zip archive: ${reason}`);
}

function unsupported(path: string, reason: string): MonosemError {
  return new MonosemError("ERR_UNSUPPORTED", `${path} is a zip archive of a kind that is not read: ${reason}`);
}
