/** Parquet files of a hundred bytes that say they hold billions of values. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parquetDocuments } from "../../lib/activations/parquetDocuments.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-parquet-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A field of a Thrift struct in the compact protocol: id, type, bytes. */
type Field = readonly [id: number, type: number, bytes: readonly number[]];

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) + 128);
  }
}
const zigzag = (value: number): number[] => varint(value < 0 ? -2 * value - 1 : 2 * value);
function struct(...fields: Field[]): number[] {
  let last = 0;
  const bytes = fields.flatMap(([id, type, content]) => {
    const begin = ((id - last) << 4) | type;
    last = id;
    return [begin, ...content];
  });
  return [...bytes, 0];
}
const i32 = (id: number, value: number): Field => [id, 5, zigzag(value)];
const i64 = (id: number, value: number): Field => [id, 6, zigzag(value)];
const text = (value: string): number[] => [...varint(value.length), ...Buffer.from(value)];
const list = (id: number, type: number, ...items: number[][]): Field => [
  id,
  9,
  [(items.length << 4) | type, ...items.flat()],
];
const nested = (id: number, bytes: number[]): Field => [id, 12, bytes];

const plain = 0;
const dictionary = 8;
const gzip = 2;

interface Page {
  readonly values: number;
  readonly data: readonly number[];
  /** Of the data once they are decompressed. */
  readonly bytes?: number;
  readonly encoding?: number;
}

/** A page of the first version. */
function dataPage({ values, data, bytes = data.length, encoding = plain }: Page): number[] {
  const header = struct(i32(1, values), i32(2, encoding), i32(3, 3), i32(4, 3));
  return [...struct(i32(1, 0), i32(2, bytes), i32(3, data.length), nested(5, header)), ...data];
}

/** The text "hi" as the value with the index 0. */
const hi = [2, 0, 0, 0, ...Buffer.from("hi")];
const dictionaryPage = [
  ...struct(i32(1, 2), i32(2, hi.length), i32(3, hi.length), nested(7, struct(i32(1, 1), i32(2, plain)))),
  ...hi,
];

/** A run of one value of up to eight bits, in levels with their length in front. */
const run = (length: number, value: number): number[] => [...varint(2 * length), value];
const levels = (...runs: number[]): number[] => [runs.length, 0, 0, 0, ...runs];

/** A file with one column "text" in one row group. */
async function fileOf(rows: number, pages: number[], options: { optional?: boolean; codec?: number } = {}) {
  const { optional = false, codec = 0 } = options;
  const column = struct(
    i32(1, 6),
    list(2, 5, zigzag(plain)),
    list(3, 8, text("text")),
    i32(4, codec),
    i64(5, rows),
    i64(6, pages.length),
    i64(7, pages.length),
    i64(9, 4),
  );
  const group = struct(list(1, 12, struct(i64(2, 4), nested(3, column))), i64(2, pages.length), i64(3, rows));
  const root = struct([4, 8, text("schema")], i32(5, 1));
  const element = struct(i32(1, 6), i32(3, optional ? 1 : 0), [4, 8, text("text")], i32(6, 0));
  const metadata = struct(i32(1, 1), list(2, 12, root, element), i64(3, rows), list(4, 12, group));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(metadata.length);
  const path = join(folder, "text.parquet");
  const magic = Buffer.from("PAR1");
  await writeFile(path, Buffer.concat([magic, Buffer.from(pages), Buffer.from(metadata), length, magic]));
  return path;
}

async function documentsOf(path: string): Promise<string[]> {
  const documents: string[] = [];
  for await (const document of parquetDocuments(path, undefined)) documents.push(document);
  return documents;
}

const most = 2 ** 31 - 1;

test("pages of values, of indices and of nulls are read", async () => {
  expect(await documentsOf(await fileOf(1, dataPage({ values: 1, data: hi })))).toEqual(["hi"]);
  const nulls = [...levels(...run(2, 1)), ...hi, ...hi];
  expect(await documentsOf(await fileOf(2, dataPage({ values: 2, data: nulls }), { optional: true }))).toHaveLength(2);
  const indices = dataPage({ values: 1000, data: [1, ...run(1000, 0)], encoding: dictionary });
  expect(await documentsOf(await fileOf(1000, [...dictionaryPage, ...indices]))).toEqual(Array(1000).fill("hi"));
  const packed = [...gzipSync(Buffer.from(hi))];
  const compressed = dataPage({ values: 1, data: packed, bytes: hi.length });
  expect(await documentsOf(await fileOf(1, compressed, { codec: gzip }))).toEqual(["hi"]);
});

test("a million nulls in a run are no strings, and no error of the format", async () => {
  const page = dataPage({ values: 2 ** 20, data: levels(...run(2 ** 20, 0)) });
  const refusal = documentsOf(await fileOf(2 ** 20, page, { optional: true }));
  await expect(refusal).rejects.toThrow(/row 0 of .*text\.parquet should have a string under "text"/);
});

describe("is refused, and nothing of that size is made: ", () => {
  test.each<[string, () => Promise<string>, string, RegExp]>([
    [
      "fewer than no rows",
      () => fileOf(-5, dataPage({ values: 1, data: hi })),
      "ERR_FORMAT",
      /text\.parquet is no readable parquet file: a row group has -5 rows/,
    ],
    [
      "too many rows at once",
      () => fileOf(most, dataPage({ values: most, data: levels(...run(most, 0)) }), { optional: true }),
      "ERR_UNSUPPORTED",
      /a row group of .*text\.parquet has 2147483647 rows, .* at most 8388608/,
    ],
    [
      "more values than rows",
      () => fileOf(1, dataPage({ values: most, data: levels(...run(most, 0)) }), { optional: true }),
      "ERR_FORMAT",
      /a page has 2147483647 values for 1 rows/,
    ],
    [
      "a run of nulls beyond them",
      () => fileOf(1, dataPage({ values: 1, data: levels(...run(most, 0)) }), { optional: true }),
      "ERR_FORMAT",
      /a run has 2147483647 values where 1 are left/,
    ],
    [
      "a run of indices beyond them",
      () =>
        fileOf(1, [...dictionaryPage, ...dataPage({ values: 1, data: [1, ...run(most, 0)], encoding: dictionary })]),
      "ERR_FORMAT",
      /a run has 2147483647 values where 1 are left/,
    ],
    [
      "packed indices beyond them",
      () =>
        fileOf(1, [...dictionaryPage, ...dataPage({ values: 1, data: [1, ...varint(most)], encoding: dictionary })]),
      "ERR_FORMAT",
      /a run has 8589934584 values where 1 are left/,
    ],
    [
      "a run of a length of endless bytes",
      () => fileOf(1, dataPage({ values: 1, data: levels(...Array(8).fill(0x80), 0) }), { optional: true }),
      "ERR_FORMAT",
      /a run's length has more than 32 bits/,
    ],
    [
      "a page that grows",
      () => fileOf(1, dataPage({ values: 1, data: [...gzipSync(Buffer.alloc(1000))], bytes: most }), { codec: gzip }),
      "ERR_FORMAT",
      /its pages would grow to more than 67108864 bytes: a bomb/,
    ],
    [
      "a page of a negative size",
      () => fileOf(1, struct(i32(1, 0), i32(2, 5), i32(3, -5), nested(5, struct(i32(1, 1), i32(2, 0))))),
      "ERR_FORMAT",
      /a page has -5 bytes/,
    ],
  ])("%s", async (_, path, code, message) => {
    await expect(documentsOf(await path())).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("values that repeat the one before again and again", async () => {
    // Deltas of 2000 lengths: the first is 100,000, and no other differs from it.
    const blocks = Array.from({ length: 16 }, () => [...zigzag(0), 0, 0, 0, 0]).flat();
    const lengths = [...varint(128), ...varint(4), ...varint(2000), ...zigzag(100_000), ...blocks];
    const path = await fileOf(2000, dataPage({ values: 2000, data: [...lengths, ...lengths], encoding: 7 }));
    await expect(documentsOf(path)).rejects.toThrow(/its pages would grow to more than 67108864 bytes: a bomb/);
  });

  test("metadata beyond any", async () => {
    const path = join(folder, "metadata.parquet");
    const length = Buffer.alloc(4);
    length.writeUInt32LE(2 ** 24 + 1);
    await writeFile(path, Buffer.concat([Buffer.from("PAR1"), Buffer.alloc(100), length, Buffer.from("PAR1")]));
    await expect(documentsOf(path)).rejects.toThrow(/its metadata of 16777217 bytes exceed 16777216/);
  });
});
