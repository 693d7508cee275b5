/**
 * The header of a safetensors file, parsed strictly: it comes from strangers.
 *
 * A file is: u64 little-endian header length; the header, a JSON object in UTF-8, padded with spaces; the tensors' bytes.
 * The rules are those of the reference implementation (huggingface/safetensors, tensor.rs): header of at most 100 MB that
 * starts with `{`; every tensor's byte range as long as its shape and dtype say; the ranges in order without holes or
 * overlaps, covering the rest of the file exactly. Stricter than it where parsers are known to differ, because a file
 * that two programs read differently is an attack: duplicate keys, unknown fields, and numbers that are not plain
 * non-negative integers are refused.
 */
import { MonosemError } from "../errors.js";

/** The dtypes that monosem reads and writes, with their bytes per element. */
export const safetensorsDTypeBytes = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  U16: 2,
  U32: 4,
  U64: 8,
} as const;

/** An element type, by its name in the file. */
export type SafetensorsDType = keyof typeof safetensorsDTypeBytes;

/** Where one tensor lies in the file. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** From the beginning of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** What a header says. */
export interface SafetensorsHeader {
  /** In the order of their bytes in the file. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Has no prototype, so that no key of the file can reach one. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Longest header that the reference implementation accepts, in bytes. */
export const maximumHeaderBytes = 100_000_000;

/** Tensors and entries of the metadata. The reference implementation has no limit; the largest checkpoints have 100,000. */
const maximumNames = 500_000;

/** NumPy's and PyTorch's limit. */
const maximumDimensions = 64;

/** Bytes of the header length that opens a file. */
export const headerLengthBytes = 8;

/**
 * Checks the length field of a file.
 *
 * @param prefix - the first 8 bytes of the file
 * @param fileBytes - length of the whole file
 * @returns the header's length in bytes: it fits into the file and is at most 100 MB
 * @throws MonosemError ERR_FORMAT
 */
export function readHeaderLength(prefix: Uint8Array, fileBytes: number, path: string): number {
  if (prefix.length < headerLengthBytes) {
    throw malformed(path, `it has ${prefix.length} bytes, and a header length alone takes ${headerLengthBytes}`);
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, headerLengthBytes).getBigUint64(0, true);
  if (length > BigInt(maximumHeaderBytes)) {
    throw malformed(path, `its header length is ${length}, more than the limit of ${maximumHeaderBytes} bytes`);
  }
  const headerBytes = Number(length);
  if (headerBytes > fileBytes - headerLengthBytes) {
    throw malformed(path, `its header should take ${headerBytes} bytes, but the file ends after ${fileBytes} bytes`);
  }
  return headerBytes;
}

/**
 * Parses and checks a header.
 *
 * @param header - the bytes between the length field and the data
 * @param fileBytes - length of the whole file
 * @throws MonosemError ERR_FORMAT naming the file and what is wrong in it
 */
export function parseHeader(header: Uint8Array, fileBytes: number, path: string): SafetensorsHeader {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw new MonosemError("ERR_FORMAT", `${path} is not a valid safetensors file: its header is not UTF-8`, { cause });
  }
  const { tensors, metadata } = new HeaderParser(text, path).parse();
  const dataStart = headerLengthBytes + header.length;
  const dataBytes = fileBytes - dataStart;
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const entries = new Map<string, SafetensorsEntry>();
  let expectedBegin = 0;
  for (const { name, dtype, shape, begin, end } of tensors) {
    const byteLength = checkedByteLength(shape, dtype);
    if (byteLength === undefined) {
      throw malformed(path, `the shape [${shape.join(", ")}] of ${quote(name)} is larger than any file`);
    }
    if (end - begin !== byteLength) {
      throw malformed(
        path,
        `${quote(name)} of shape [${shape.join(", ")}] and dtype ${dtype} takes ${byteLength} bytes, ` +
          `but its data_offsets are [${begin}, ${end}]`,
      );
    }
    if (begin !== expectedBegin) {
      throw malformed(
        path,
        `the bytes of ${quote(name)} begin at ${begin}, but the tensors before it end at ${expectedBegin}: ` +
          `${begin < expectedBegin ? "they overlap" : "there is a hole between them"}`,
      );
    }
    entries.set(name, { name, dtype, shape, byteOffset: dataStart + begin, byteLength });
    expectedBegin = end;
  }
  if (expectedBegin !== dataBytes) {
    throw malformed(
      path,
      `its tensors take ${expectedBegin} bytes, but ${dataBytes} bytes follow the header: ` +
        `${dataBytes < expectedBegin ? "the file is truncated" : "something was appended"}`,
    );
  }
  return { entries, metadata };
}

/**
 * Bytes of a tensor, or undefined when the shape has a negative or fractional dimension, or when any partial product is
 * beyond 2^53 - 1.
 */
export function checkedByteLength(shape: readonly number[], dtype: SafetensorsDType): number | undefined {
  let bytes: number = safetensorsDTypeBytes[dtype];
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) return undefined;
    bytes *= dimension;
    if (!Number.isSafeInteger(bytes)) return undefined;
  }
  return bytes;
}

/** A name from a file, safe and short enough for a message. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}...` : name);
}

/** Such strings have no UTF-8 form; JavaScript's JSON accepts them, the reference implementation does not. */
export function hasLoneSurrogate(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

function malformed(path: string, reason: string): MonosemError {
  return new MonosemError("ERR_FORMAT", `${path} is not a valid safetensors file: ${reason}`);
}

const integerPattern = /(?:0|[1-9][0-9]{0,15})(?![0-9.eE])/y;

interface TensorInfo {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * A parser of exactly the JSON that a header may hold: an object of objects of strings, integers and lists of integers.
 * JSON.parse would keep the last of duplicate keys and accept 1e2, 1.0 and integers that it rounds. Nothing here
 * recurses, so no nesting can exhaust the stack.
 */
class HeaderParser {
  readonly #text: string;
  readonly #path: string;
  #position = 0;
  #names = 0;

  constructor(text: string, path: string) {
    this.#text = text;
    this.#path = path;
  }

  parse(): { tensors: TensorInfo[]; metadata: Record<string, string> } {
    const tensors: TensorInfo[] = [];
    const metadata: Record<string, string> = Object.create(null) as Record<string, string>;
    if (this.#text[0] !== "{") throw this.#error("it does not start with {");
    this.#object("the header", (name) => {
      this.#countName();
      if (name === "__metadata__") {
        this.#object("__metadata__", (key) => {
          this.#countName();
          metadata[key] = this.#string();
        });
      } else {
        tensors.push(this.#tensor(name));
      }
    });
    this.#skipSpace();
    if (this.#position < this.#text.length) throw this.#error("more text follows its object");
    return { tensors, metadata };
  }

  #countName(): void {
    this.#names += 1;
    if (this.#names > maximumNames)
      throw this.#error(`it has more than ${maximumNames} tensors and entries of metadata`);
  }

  #tensor(name: string): TensorInfo {
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.#object(quote(name), (key) => {
      if (key === "dtype") dtype = this.#string();
      else if (key === "shape") shape = this.#integers();
      else if (key === "data_offsets") offsets = this.#integers();
      else throw this.#error(`${quote(name)} has the unknown field ${quote(key)}`);
    });
    if (dtype === undefined || shape === undefined || offsets === undefined) {
      throw this.#error(`${quote(name)} needs the fields dtype, shape and data_offsets`);
    }
    if (!Object.hasOwn(safetensorsDTypeBytes, dtype)) {
      const known = Object.keys(safetensorsDTypeBytes).join(", ");
      throw this.#error(`the dtype of ${quote(name)} is ${quote(dtype)}, and those understood are ${known}`);
    }
    const [begin, end] = offsets;
    if (offsets.length !== 2 || begin === undefined || end === undefined || begin > end) {
      throw this.#error(`the data_offsets of ${quote(name)} are not a pair [begin, end]`);
    }
    return { name, dtype: dtype as SafetensorsDType, shape, begin, end };
  }

  /** Reads an object; `member` reads the value of each key. */
  #object(what: string, member: (key: string) => void): void {
    this.#expect("{");
    const seen = new Set<string>();
    if (this.#accept("}")) return;
    do {
      const key = this.#string();
      if (seen.has(key)) throw this.#error(`the key ${quote(key)} stands twice in ${what}`);
      seen.add(key);
      this.#expect(":");
      member(key);
    } while (this.#accept(","));
    this.#expect("}");
  }

  #integers(): number[] {
    const integers: number[] = [];
    this.#expect("[");
    if (this.#accept("]")) return integers;
    do {
      integers.push(this.#integer());
      if (integers.length > maximumDimensions) throw this.#error(`a list has more than ${maximumDimensions} numbers`);
    } while (this.#accept(","));
    this.#expect("]");
    return integers;
  }

  #integer(): number {
    this.#skipSpace();
    integerPattern.lastIndex = this.#position;
    const digits = integerPattern.exec(this.#text)?.[0];
    const integer = Number(digits);
    if (digits === undefined || !Number.isSafeInteger(integer)) {
      throw this.#error("an integer from 0 to 2^53 - 1 was expected");
    }
    this.#position += digits.length;
    return integer;
  }

  #string(): string {
    this.#expect('"');
    const text = this.#text;
    const begin = this.#position;
    let end = begin;
    while (text[end] !== '"') {
      if (end >= text.length) throw this.#error("a string does not end");
      end += text[end] === "\\" ? 2 : 1;
    }
    this.#position = end + 1;
    let parsed: string;
    try {
      // Escapes, and the control characters that JSON forbids, are the platform's to judge: it is one string token.
      parsed = JSON.parse(text.slice(begin - 1, end + 1)) as string;
    } catch {
      throw this.#error("a string is not valid JSON", begin);
    }
    if (hasLoneSurrogate(parsed)) throw this.#error("a string has half of a surrogate pair", begin);
    return parsed;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#error(`${character} was expected`);
  }

  #accept(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#position] !== character) return false;
    this.#position += 1;
    return true;
  }

  #skipSpace(): void {
    while (" \t\n\r".includes(this.#text[this.#position] ?? "x")) this.#position += 1;
  }

  #error(reason: string, position: number = this.#position): MonosemError {
    return malformed(this.#path, `${reason} (character ${position} of its header)`);
  }
}
