/**
 * NumPy's `.npy` files from strangers, inside `.npz` archives (numpy.lib.format, versions 1.0 to 3.0): magic, version,
 * header length, a header that is a Python dictionary of exactly `descr`, `fortran_order` and `shape`, the elements.
 *
 * Only plain little-endian numbers are read. A `descr` of objects would be a pickle, and is refused.
 */
import { MonosemError } from "../errors.js";
import { checkedByteLength, quote, type SafetensorsDType } from "./safetensorsHeader.js";

export interface NpyHeader {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Whether the first index varies fastest. */
  readonly fortranOrder: boolean;
  /** Of the first element. */
  readonly dataPosition: number;
}

/** NumPy's own limit for headers of untrusted files is 10,000. */
export const maximumNpyHeaderBytes = 10_000;
const maximumDimensions = 32;
const expectedKeys = ["descr", "fortran_order", "shape"];

const magic = [0x93, ...Buffer.from("NUMPY")];

const dtypes: ReadonlyMap<string, SafetensorsDType> = new Map([
  ["<f8", "F64"],
  ["<f4", "F32"],
  ["<f2", "F16"],
  ["<i8", "I64"],
  ["<i4", "I32"],
  ["<i2", "I16"],
  ["|i1", "I8"],
  ["<u8", "U64"],
  ["<u4", "U32"],
  ["<u2", "U16"],
  ["|u1", "U8"],
  ["|b1", "BOOL"],
]);

/**
 * Parses a header and checks it against the length of the file.
 *
 * @param start - the first bytes of the file, of which the header is to be a part
 * @param fileBytes - length of the whole file
 * @param what - the file's name, for messages
 * @throws MonosemError ERR_FORMAT, or ERR_UNSUPPORTED for elements that are no plain little-endian numbers
 */
export function parseNpyHeader(start: Uint8Array, fileBytes: number, what: string): NpyHeader {
  const malformed = (reason: string) => new MonosemError("ERR_FORMAT", `${what} is not a valid .npy file: ${reason}`);
  if (start.length < 10 || magic.some((byte, index) => start[index] !== byte)) {
    throw malformed("it does not begin as one");
  }
  const [major, minor] = [start[6]!, start[7]!];
  if (major < 1 || major > 3 || minor !== 0)
    throw malformed(`its version is ${major}.${minor}; 1.0 to 3.0 can be read`);
  const lengthBytes = major === 1 ? 2 : 4;
  if (start.length < 8 + lengthBytes) throw malformed("it is truncated");
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const headerBytes = lengthBytes === 2 ? view.getUint16(8, true) : view.getUint32(8, true);
  const dataPosition = 8 + lengthBytes + headerBytes;
  if (headerBytes > maximumNpyHeaderBytes) {
    throw malformed(`its header of ${headerBytes} bytes exceeds the limit of ${maximumNpyHeaderBytes}`);
  }
  if (dataPosition > start.length) throw malformed("it ends within its header");
  const text = Buffer.from(start.buffer, start.byteOffset + 8 + lengthBytes, headerBytes).toString("latin1");
  const { descr, fortranOrder, shape } = new HeaderParser(text, malformed).parse();

  const dtype = dtypes.get(descr);
  if (dtype === undefined) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `${what} has elements of type ${quote(descr)}; those read are ${[...dtypes.keys()].join(", ")}`,
    );
  }
  const byteLength = checkedByteLength(shape, dtype);
  if (byteLength === undefined) throw malformed(`its shape (${shape.join(", ")}) is larger than any file`);
  if (dataPosition + byteLength !== fileBytes) {
    throw malformed(
      `its shape (${shape.join(", ")}) of ${quote(descr)} takes ${byteLength} bytes, but ${fileBytes - dataPosition} follow`,
    );
  }
  return { dtype, shape, fortranOrder, dataPosition };
}

/** A parser of the one dictionary that a header is, keys in any order. */
class HeaderParser {
  readonly #text: string;
  readonly #malformed: (reason: string) => MonosemError;
  #position = 0;

  constructor(text: string, malformed: (reason: string) => MonosemError) {
    this.#text = text;
    this.#malformed = malformed;
  }

  parse(): { descr: string; fortranOrder: boolean; shape: readonly number[] } {
    let descr: string | undefined;
    let fortranOrder: boolean | undefined;
    let shape: readonly number[] | undefined;
    this.#take(/\{/y, "{");
    while (!this.#accepts(/\}/y)) {
      const key = this.#string();
      this.#take(/:/y, ":");
      if (key === "descr" && descr === undefined) descr = this.#string();
      else if (key === "fortran_order" && fortranOrder === undefined) {
        fortranOrder = this.#take(/True|False/y, "True or False") === "True";
      } else if (key === "shape" && shape === undefined) shape = this.#integers();
      else
        throw this.#malformed(
          `its header has the key ${quote(key)} ${expectedKeys.includes(key) ? "twice" : "too many"}`,
        );
      if (this.#accepts(/,/y)) continue;
      this.#take(/\}/y, ", or }");
      break;
    }
    this.#skipSpace();
    if (this.#position < this.#text.length) throw this.#malformed("more text follows its header's dictionary");
    if (descr === undefined || fortranOrder === undefined || shape === undefined) {
      throw this.#malformed(`its header needs the keys ${expectedKeys.join(", ")}`);
    }
    return { descr, fortranOrder, shape };
  }

  #integers(): readonly number[] {
    const integers: number[] = [];
    this.#take(/\(/y, "(");
    while (!this.#accepts(/\)/y)) {
      const integer = Number(this.#take(/(?:0|[1-9][0-9]{0,15})L?/y, "an integer").replace("L", ""));
      if (!Number.isSafeInteger(integer)) throw this.#malformed("its shape has an integer beyond 2^53");
      integers.push(integer);
      if (integers.length > maximumDimensions)
        throw this.#malformed(`it has more than ${maximumDimensions} dimensions`);
      if (this.#accepts(/,/y)) continue;
      if (integers.length === 1) throw this.#malformed("its shape is no tuple");
      this.#take(/\)/y, ", or )");
      break;
    }
    return integers;
  }

  /** Without escapes: none of the strings that may stand here has any. */
  #string(): string {
    return this.#take(/'[^'\\]*'|"[^"\\]*"/y, "a string").slice(1, -1);
  }

  #take(pattern: RegExp, expected: string): string {
    const found = this.#match(pattern);
    if (found === undefined) {
      throw this.#malformed(`${expected} was expected at character ${this.#position} of its header`);
    }
    return found;
  }

  #accepts(pattern: RegExp): boolean {
    return this.#match(pattern) !== undefined;
  }

  #match(pattern: RegExp): string | undefined {
    this.#skipSpace();
    pattern.lastIndex = this.#position;
    const found = pattern.exec(this.#text)?.[0];
    this.#position += found?.length ?? 0;
    return found;
  }

  #skipSpace(): void {
    while (" \t\n".includes(this.#text[this.#position] ?? "x")) this.#position += 1;
  }
}
