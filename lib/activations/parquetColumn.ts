/**
 * The values of one flat column of a row group of a parquet file from strangers, page by page.
 *
 * The library that decodes pages believes what stands in them: how many values there are, how long a run is, how far a
 * page grows. Hundred bytes can say 2^31 of each. So pages are decompressed here, under a budget, and what they say is
 * compared with the number of rows before they are decoded.
 */
import type { AsyncBuffer, ColumnMetaData, DecodedArray, PageHeader, SchemaTree } from "hyparquet";
import { parquetHeader, readPage } from "hyparquet/src/column.js";
import { convert, DEFAULT_PARSERS } from "hyparquet/src/convert.js";
import { decompressPage } from "hyparquet/src/datapage.js";
import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { compressors } from "hyparquet-compressors";

type Decoder = Parameters<typeof readPage>[2];

/** Text shrinks ten times at best, repeated documents somewhat more; what exceeds this is a bomb. */
const maximumRatio = 100;
/** Small enough to be inflated whatever the ratio. */
const alwaysInflated = 2 ** 26;

/**
 * Reads a column.
 *
 * @param column - of byte arrays
 * @param schemaPath - the root and the column, which has no parts and no lists
 * @param rows - of the row group; as many values come back, or fewer where the pages end before
 * @throws Error saying what is malformed
 */
export async function readParquetColumn(
  file: AsyncBuffer,
  column: ColumnMetaData,
  schemaPath: readonly [SchemaTree, SchemaTree],
  rows: number,
): Promise<unknown[]> {
  const [, { element }] = schemaPath;
  const begin = Number(column.dictionary_page_offset || column.data_page_offset);
  const bytes = new Uint8Array(await file.slice(begin, begin + Number(column.total_compressed_size)));
  const decoder: Decoder = {
    ...column,
    pathInSchema: column.path_in_schema,
    element,
    schemaPath: [...schemaPath],
    parsers: DEFAULT_PARSERS,
    codec: "UNCOMPRESSED",
  };
  const reader = { view: new DataView(bytes.buffer), offset: 0 };
  const budget = new Budget(bytes.length);
  const values: unknown[] = [];
  let dictionary: DecodedArray | undefined;
  while (values.length < rows && reader.offset < bytes.length) {
    const header = parquetHeader(reader);
    const stored = header.compressed_page_size;
    if (!(stored >= 0 && stored <= bytes.length - reader.offset)) throw new Error(`a page has ${stored} bytes`);
    const page = plainPage(bytes.subarray(reader.offset, reader.offset + stored), header, column, budget);
    reader.offset += stored;
    const optional = element.repetition_type !== "REQUIRED";
    requireCounts(page, header, { left: rows - values.length, optional, budget });
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
    const data = readPage(
      { view, offset: 0 },
      plainHeader(header, page.length),
      decoder,
      dictionary,
      undefined,
      0,
    ).data;
    if (header.type === "DICTIONARY_PAGE") dictionary = convert(data ?? [], decoder);
    else for (const value of data ?? []) values.push(value);
  }
  return values;
}

/** Bytes that pages may grow to, all of a column together. */
class Budget {
  readonly #most: number;
  #grown = 0;

  constructor(storedBytes: number) {
    this.#most = Math.max(alwaysInflated, maximumRatio * storedBytes);
  }

  /** @throws Error */
  take(bytes: number): void {
    if (!(bytes >= 0)) throw new Error(`a page has ${bytes} bytes`);
    this.#grown += bytes;
    if (this.#grown > this.#most) throw new Error(`its pages would grow to more than ${this.#most} bytes: a bomb`);
  }
}

/** A page without compression; the levels in front of the values of a second version's are never compressed. */
function plainPage(stored: Uint8Array, header: PageHeader, { codec }: ColumnMetaData, budget: Budget): Uint8Array {
  const second = header.data_page_header_v2;
  const levelBytes =
    header.type === "DATA_PAGE_V2" && second !== undefined
      ? second.definition_levels_byte_length + second.repetition_levels_byte_length
      : 0;
  if (!(levelBytes >= 0 && levelBytes <= stored.length)) throw new Error(`a page has levels of ${levelBytes} bytes`);
  const pageBytes = header.uncompressed_page_size;
  budget.take(pageBytes);
  const valueBytes = pageBytes - levelBytes;
  // What has no bytes is not compressed either, whatever the header says.
  if (codec === "UNCOMPRESSED" || second?.is_compressed === false || valueBytes === 0) {
    if (stored.length === pageBytes) return stored;
    throw new Error(`a page of ${stored.length} bytes says that it has ${pageBytes}`);
  }
  const compressed = stored.subarray(levelBytes);
  const values = decompressPage(compressed, valueBytes, codec, compressors);
  if (levelBytes === 0) return values;
  const page = new Uint8Array(levelBytes + values.length);
  page.set(stored.subarray(0, levelBytes));
  page.set(values, levelBytes);
  return page;
}

function plainHeader(header: PageHeader, byteLength: number): PageHeader {
  const second = header.data_page_header_v2;
  return {
    ...header,
    compressed_page_size: byteLength,
    uncompressed_page_size: byteLength,
    ...(second === undefined ? {} : { data_page_header_v2: { ...second, is_compressed: false } }),
  };
}

interface Expected {
  /** Rows that have no value yet. */
  readonly left: number;
  /** Whether values may be null. */
  readonly optional: boolean;
  readonly budget: Budget;
}

/** @throws Error when a page says that it holds more than there are rows */
function requireCounts(page: Uint8Array, header: PageHeader, { left, optional, budget }: Expected): void {
  if (header.type === "DICTIONARY_PAGE") {
    const count = header.dictionary_page_header?.num_values ?? 0;
    // A value takes a bit or more.
    if (!(count >= 0 && count <= 8 * page.length))
      throw new Error(`a dictionary of ${page.length} bytes has ${count} values`);
    return;
  }
  const second = header.type === "DATA_PAGE_V2" ? header.data_page_header_v2 : undefined;
  const said = second ?? header.data_page_header;
  const count = said?.num_values ?? 0;
  if (!(count >= 0 && count <= left)) throw new Error(`a page has ${count} values for ${left} rows`);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  let at = 0;
  let nulls = 0;
  if (second !== undefined) {
    nulls = second.num_nulls;
    if (!(nulls >= 0 && nulls <= count)) throw new Error(`a page has ${nulls} nulls among ${count} values`);
    at = second.repetition_levels_byte_length;
    if (optional) requireRuns(view, at, 1, count);
    at += second.definition_levels_byte_length;
  } else if (optional) {
    nulls = count - requireRuns(view, 4, 1, count);
    at = 4 + view.getUint32(0, true);
  }
  const encoding = said?.encoding;
  if (encoding === "RLE") throw new Error("it encodes text as truth values");
  if (encoding === "PLAIN_DICTIONARY" || encoding === "RLE_DICTIONARY") {
    // Indices of no bits are all 0; only pages of the second version have runs of them.
    const width = count > nulls ? view.getUint8(at) : 0;
    if (width > 0 || (second !== undefined && count > nulls)) requireRuns(view, at + 1, width, count - nulls);
  } else if (encoding === "DELTA_BYTE_ARRAY") {
    // Each value repeats the beginning of the one before: the values together may be longer than their page by far.
    const reader = { view, offset: at };
    for (const _ of ["prefixes", "suffixes"]) {
      const lengths = new Int32Array(count - nulls);
      deltaBinaryUnpack(reader, lengths.length, lengths);
      for (const length of lengths) budget.take(length);
    }
  }
}

/**
 * Runs of equal and of packed values (parquet's hybrid encoding) that hold `count` values, padded to a multiple of eight.
 *
 * @returns how many of them are 1, of values of one bit
 * @throws Error for a run that is longer
 */
function requireRuns(view: DataView, begin: number, width: number, count: number): number {
  let ones = 0;
  let at = begin;
  for (let seen = 0; seen < count; ) {
    let header = 0;
    let byte = 0x80;
    for (let shift = 0; byte >= 0x80; shift += 7) {
      if (shift > 28) throw new Error("a run's length has more than 32 bits");
      byte = view.getUint8(at++);
      header += (byte & 0x7f) * 2 ** shift;
    }
    const packed = header % 2 === 1;
    const length = Math.floor(header / 2) * (packed ? 8 : 1);
    const left = count - seen;
    if (length > left + (packed ? 7 : 0)) throw new Error(`a run has ${length} values where ${left} are left`);
    const bytes = packed ? (length / 8) * width : Math.ceil(width / 8);
    if (width === 1)
      ones += packed ? onesOf(view, at, Math.min(length, left)) : Number(view.getUint8(at) === 1) * length;
    at += bytes;
    seen += length;
  }
  return ones;
}

function onesOf(view: DataView, begin: number, count: number): number {
  let ones = 0;
  for (let i = 0; i < count; i++) ones += (view.getUint8(begin + (i >> 3)) >> (i & 7)) & 1;
  return ones;
}
