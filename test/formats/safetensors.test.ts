import { constants } from "node:buffer";
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { availableMemory } from "node:process";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type SafetensorsData,
  type SafetensorsDType,
  SafetensorsFile,
  type SafetensorsInput,
  SafetensorsWriter,
  writeSafetensors,
} from "../../lib/formats/safetensors.js";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-safetensors-"));
  path = join(directory, "file.safetensors");
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** A file of any header text and data bytes. */
function fileOf(header: string | Uint8Array, data: Uint8Array = new Uint8Array(), headerLength?: bigint): Buffer {
  const headerBytes = typeof header === "string" ? Buffer.from(header) : Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(headerLength ?? BigInt(headerBytes.length));
  return Buffer.concat([prefix, headerBytes, data]);
}

const tensor = (shape: string, begin: number | string, end: number | string, dtype = "F32") =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

async function openBytes(bytes: Uint8Array): Promise<SafetensorsFile> {
  await writeFile(path, bytes);
  return SafetensorsFile.open(path);
}

const fixtures = new URL("../fixtures/safetensors/", import.meta.url).pathname;

// The same tensors as test/fixtures/safetensors/make_safetensors.py.
const special = [0, -0, 1, -1.5, 0.1, 65504, 6.1035156e-5, 5.9604645e-8, 1e-7, 1e30, Infinity, -Infinity];
const metadata = { format: "pt", toString: "harmless", note: "größe" };
async function referenceTensors(): Promise<Map<string, SafetensorsInput>> {
  await using python = await SafetensorsFile.open(join(fixtures, "python.safetensors"));
  const tensors = new Map<string, SafetensorsInput>([
    ["f64", { shape: [12], data: Float64Array.from(special) }],
    ["f32", { shape: [3, 4], data: Float32Array.from(special) }],
    ["f16", { shape: [2, 3, 2], dtype: "F16", data: (await python.read("f16")).data }],
    ["bf16", { shape: [12], dtype: "BF16", data: (await python.read("bf16")).data }],
    ["i64", { shape: [1, 3], data: BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n, 0n) }],
    ["i32", { shape: [2], data: Int32Array.of(-(2 ** 31), 2 ** 31 - 1) }],
    ["i16", { shape: [3], data: Int16Array.of(-(2 ** 15), 2 ** 15 - 1, 7) }],
    ["i8", { shape: [3], data: Int8Array.of(-128, 127, 5) }],
    ["u8", { shape: [3], data: Uint8Array.of(0, 255, 9) }],
    ["u16", { shape: [2], dtype: "U16", data: Uint16Array.of(0, 65535) }],
    ["u32", { shape: [2], data: Uint32Array.of(0, 2 ** 32 - 1) }],
    ["u64", { shape: [2], data: BigUint64Array.of(0n, 2n ** 63n) }],
    ["bool", { shape: [3], dtype: "BOOL", data: Uint8Array.of(1, 0, 1) }],
    ["scalar", { shape: [], data: Float32Array.of(2.5) }],
    ["empty", { shape: [0, 3], data: new Float32Array() }],
    ["__proto__", { shape: [1], data: Float32Array.of(1) }],
    ['naïve "quoted" 名前', { shape: [1], data: Float32Array.of(2) }],
  ]);
  return tensors;
}

describe("files of the reference implementation", () => {
  test("every dtype, shape, name and metadata string is read as Python wrote it", async () => {
    const expected = await referenceTensors();
    await using file = await SafetensorsFile.open(join(fixtures, "python.safetensors"));
    expect(new Set(file.entries.keys())).toEqual(new Set(expected.keys()));
    expect({ ...file.metadata }).toEqual(metadata);
    for (const [name, { shape, data }] of expected) {
      const read = await file.read(name);
      expect(read.shape).toEqual(shape);
      expect(read.data).toEqual(data);
    }
  });

  test("f16, bf16 and f64 become the f32 that PyTorch makes of them, bit for bit", async () => {
    const golden = JSON.parse(await readFile(join(fixtures, "python.json"), "utf8")) as Record<string, number[]>;
    await using file = await SafetensorsFile.open(join(fixtures, "python.safetensors"));
    for (const name of Object.keys(golden)) {
      const values = await file.readFloat32(name);
      expect([...new Int32Array(values.buffer, values.byteOffset, values.length)], name).toEqual(golden[name]);
    }
    expect(Object.keys(golden)).toContain("__proto__");
  });

  // Accepted by `make_safetensors.py --check monosem.safetensors`, which compares it with the tensors bit for bit.
  test("what is written is the file that Python was shown to read, byte for byte", async () => {
    const tensors = await referenceTensors();
    await writeSafetensors(path, Object.fromEntries(tensors), metadata);
    expect(await readFile(path)).toEqual(await readFile(join(fixtures, "monosem.safetensors")));
  });
});

describe("reading", () => {
  test("any tensors written are read back equal, whole and by rows", async () => {
    const arrays: Record<string, (bytes: ArrayBuffer) => SafetensorsData> = {
      F64: (bytes) => new Float64Array(bytes),
      F32: (bytes) => new Float32Array(bytes),
      F16: (bytes) => new Uint16Array(bytes),
      BF16: (bytes) => new Uint16Array(bytes),
      I64: (bytes) => new BigInt64Array(bytes),
      U64: (bytes) => new BigUint64Array(bytes),
      I32: (bytes) => new Int32Array(bytes),
      U32: (bytes) => new Uint32Array(bytes),
      I16: (bytes) => new Int16Array(bytes),
      U16: (bytes) => new Uint16Array(bytes),
      I8: (bytes) => new Int8Array(bytes),
      U8: (bytes) => new Uint8Array(bytes),
      BOOL: (bytes) => new Uint8Array(bytes),
    };
    const anyTensor = fc
      .tuple(
        fc.constantFrom(...Object.keys(arrays)),
        fc.array(fc.nat(4), { maxLength: 3 }),
        fc.infiniteStream(fc.nat(255)),
      )
      .map(([dtype, shape, bytes]) => {
        const elements = shape.reduce((a, b) => a * b, 1);
        const width = arrays[dtype]!(new ArrayBuffer(8)).BYTES_PER_ELEMENT;
        const buffer = Uint8Array.from({ length: elements * width }, () => bytes.next().value as number).buffer;
        return { shape, dtype: dtype as SafetensorsDType, data: arrays[dtype]!(buffer) };
      });
    const anyName = fc.string({ unit: "binary" }).filter((name) => name !== "__metadata__" && name.isWellFormed());
    const anyText = fc.string({ unit: "binary" }).filter((text) => text.isWellFormed());
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(anyName, anyTensor), { maxLength: 5 }),
        fc.array(fc.tuple(anyText, anyText), { maxLength: 3 }),
        async (tensors, pairs) => {
          const unique = new Map(tensors);
          await writeSafetensors(path, Object.fromEntries(unique), Object.fromEntries(pairs));
          await using file = await SafetensorsFile.open(path);
          expect({ ...file.metadata }).toEqual(Object.fromEntries(pairs));
          expect(new Set(file.entries.keys())).toEqual(new Set(unique.keys()));
          for (const [name, { dtype, shape, data }] of unique) {
            expect(file.entry(name).byteOffset % data.BYTES_PER_ELEMENT).toBe(0);
            expect(await file.read(name)).toEqual({ dtype, shape, data });
            const rows = shape[0];
            if (rows === undefined) continue;
            const first = Math.floor(rows / 2);
            const some = await file.readRows(name, first, rows - first);
            expect(some.shape).toEqual([rows - first, ...shape.slice(1)]);
            expect(some.data).toEqual(data.slice(rows === 0 ? 0 : (data.length / rows) * first));
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  test("a tensor that is not aligned to its elements is read all the same", async () => {
    const data = Buffer.alloc(9);
    data.writeDoubleLE(Math.PI, 1);
    await using file = await openBytes(
      fileOf(`{"a":${tensor("[1]", 0, 1, "U8")},"b":${tensor("[1]", 1, 9, "F64")}}`, data),
    );
    expect((await file.read("b")).data).toEqual(Float64Array.of(Math.PI));
  });

  test("what the reference accepts is accepted: trailing spaces, no tensors, empty tensors among others", async () => {
    await using none = await openBytes(fileOf("{}   \n"));
    expect(none.entries.size).toBe(0);
    const header = `{ "b" : ${tensor("[0]", 4, 4)} , "a" : ${tensor("[1]", 0, 4)}, "c":${tensor("[2,0]", 0, 0)} }  `;
    await using some = await openBytes(fileOf(header, new Uint8Array(4)));
    expect([...some.entries.keys()]).toEqual(["c", "a", "b"]);
    expect((await some.readFloat32("c")).length).toBe(0);
  });

  test("a missing tensor lists the names that there are; a missing file is named", async () => {
    await writeSafetensors(path, { W_enc: { shape: [1], data: Float32Array.of(1) } });
    await using file = await SafetensorsFile.open(path);
    const missing = { code: "ERR_NOT_FOUND", message: expect.stringContaining('"W_enc"') };
    await expect(file.readFloat32("encoder")).rejects.toMatchObject(missing);
    await expect(file.read("constructor")).rejects.toMatchObject(missing);
    await expect(SafetensorsFile.open(join(directory, "nowhere"))).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining("nowhere"),
    });
    await expect(SafetensorsFile.open(directory)).rejects.toMatchObject({ code: "ERR_IO" });
  });

  test("wrong shapes, integer dtypes and rows that do not exist are refused", async () => {
    await writeSafetensors(path, {
      weights: { shape: [2, 3], data: new Float32Array(6) },
      ids: { shape: [2], data: new Int32Array(2) },
      scalar: { shape: [], data: new Float32Array(1) },
    });
    await using file = await SafetensorsFile.open(path);
    await expect(file.readFloat32("weights", [3, 2])).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
      message: expect.stringContaining("[2, 3], expected [3, 2]"),
    });
    await expect(file.readFloat32("ids")).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
    await expect(file.readRows("scalar", 0, 1)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
    for (const [first, rows] of [
      [0, 3],
      [2, 1],
      [-1, 1],
      [0.5, 1],
      [0, -1],
      [Number.NaN, 1],
    ] as const) {
      await expect(file.readRows("weights", first, rows)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    }
    expect((await file.readFloat32Rows("weights", 2, 0)).length).toBe(0);
  });

  describe("tensors of more than 4 GiB, in sparse files", () => {
    const columns = 65_536;

    /** A tensor [rows, 65536] of zeros, but for its last two bytes, which are `last`. */
    async function openSparse(dtype: SafetensorsDType, rows: number, elementBytes: number, last: readonly number[]) {
      const bytes = rows * columns * elementBytes;
      const header = fileOf(`{"t":${tensor(`[${rows},${columns}]`, 0, bytes, dtype)}}`);
      const handle = await open(path, "w");
      await handle.write(header);
      await handle.write(Uint8Array.from(last), 0, last.length, header.length + bytes - last.length);
      await handle.close();
      return await SafetensorsFile.open(path);
    }

    test("their last rows are read", async () => {
      await using file = await openSparse("BF16", 32_770, 2, [0x80, 0x3f]);
      const row = await file.readFloat32Rows("t", 32_769, 1);
      expect([row.length, row[0], row.at(-1)]).toEqual([columns, 0, 1]);
    });

    test.skipIf(availableMemory() < 10 * 2 ** 30)("they are read as a whole", async () => {
      await using file = await openSparse("BF16", 32_770, 2, [0x80, 0x3f]);
      const { data } = await file.read("t");
      expect([data.length, data[0], data.at(-1)]).toEqual([32_770 * columns, 0, 0x3f80]);
    });

    test.skipIf(constants.MAX_LENGTH > 2 ** 40)(
      "what no array holds is refused with its size, before any memory is taken",
      async () => {
        const rows = constants.MAX_LENGTH / columns + 1;
        await using file = await openSparse("U8", rows, 1, [1, 2]);
        await expect(file.read("t")).rejects.toMatchObject({
          code: "ERR_OUT_OF_MEMORY",
          message: expect.stringContaining(`${rows * columns} elements`),
        });
        expect((await file.readRows("t", rows - 1, 1)).data.at(-1)).toBe(2);
      },
    );
  });

  test("a file cut while it is open is an error, not zeros", async () => {
    await writeSafetensors(path, { a: { shape: [1000], data: new Float32Array(1000) } });
    await using file = await SafetensorsFile.open(path);
    await truncate(path, 500);
    await expect(file.read("a")).rejects.toMatchObject({ code: "ERR_FORMAT", message: expect.stringContaining("500") });
  });
});

describe("malformed files", () => {
  const four = new Uint8Array(4);
  const good = tensor("[1]", 0, 4);
  test.each<[string, Uint8Array, string]>([
    ["an empty file", new Uint8Array(), "has 0 bytes"],
    ["half a header length", new Uint8Array(7), "has 7 bytes"],
    ["a header longer than the file", fileOf("{}", four, 7n), "file ends after 14"],
    ["a header longer than the limit", fileOf("{}", four, 100_000_001n), "limit"],
    ["a header length beyond 2^53", fileOf("{}", four, 2n ** 64n - 1n), "limit"],
    ["an empty header", fileOf(""), "start with {"],
    ["a leading space", fileOf(" {}"), "start with {"],
    ["a byte-order mark", fileOf("\uFEFF{}"), "start with {"],
    ["a list", fileOf("[]"), "start with {"],
    ["invalid UTF-8", fileOf(Buffer.concat([Buffer.from('{"'), Buffer.from([0xff]), Buffer.from('":1}')])), "UTF-8"],
    ["an unfinished object", fileOf(`{"a":${good}`, four), "} was expected"],
    ["a trailing comma", fileOf(`{"a":${good},}`, four), '" was expected'],
    ["text after the object", fileOf(`{"a":${good}} x`, four), "more text"],
    ["a null byte after the object", fileOf(`{"a":${good}}\0`, four), "more text"],
    ["an unfinished string", fileOf('{"a', four), "does not end"],
    ["a bad escape", fileOf(`{"\\x":${good}}`, four), "not valid JSON"],
    ["half a surrogate pair", fileOf(`{"\\ud800":${good}}`, four), "surrogate"],
    ["a control character in a string", fileOf(`{"a\nb":${good}}`, four), "not valid JSON"],
    ["a duplicate tensor", fileOf(`{"a":${good},"a":${good}}`, four), "twice"],
    ["a duplicate tensor by escape", fileOf(`{"a":${good},"\\u0061":${good}}`, four), "twice"],
    [
      "a duplicate field",
      fileOf(`{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, four),
      "twice",
    ],
    ["a duplicate metadata key", fileOf('{"__metadata__":{"a":"1","a":"2"}}'), "twice"],
    ["metadata twice", fileOf('{"__metadata__":{},"__metadata__":{}}'), "twice"],
    ["metadata that is no string", fileOf('{"__metadata__":{"a":1}}'), '" was expected'],
    ["metadata that is null", fileOf('{"__metadata__":null}'), "{ was expected"],
    ["a tensor that is no object", fileOf('{"a":[]}'), "{ was expected"],
    ["a missing field", fileOf('{"a":{"dtype":"F32","shape":[1]}}', four), "needs the fields"],
    ["an unknown field", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, four), "unknown field"],
    ["an unknown dtype", fileOf(`{"a":${tensor("[1]", 0, 4, "F33")}}`, four), '"F33"'],
    ["a dtype of the prototype", fileOf(`{"a":${tensor("[1]", 0, 4, "toString")}}`, four), '"toString"'],
    ["a negative dimension", fileOf(`{"a":${tensor("[-1]", 0, 4)}}`, four), "integer"],
    ["a fractional dimension", fileOf(`{"a":${tensor("[1.0]", 0, 4)}}`, four), "integer"],
    ["an exponent", fileOf(`{"a":${tensor("[1e0]", 0, 4)}}`, four), "integer"],
    ["a leading zero", fileOf(`{"a":${tensor("[01]", 0, 4)}}`, four), "integer"],
    ["an integer beyond 2^53", fileOf(`{"a":${tensor("[9007199254740993]", 0, 4)}}`, four), "integer"],
    ["an integer of many digits", fileOf(`{"a":${tensor(`[1${"0".repeat(400)}]`, 0, 4)}}`, four), "integer"],
    [
      "a shape whose size overflows",
      fileOf(`{"a":${tensor("[4294967296,4294967296]", 0, 4)}}`, four),
      "larger than any",
    ],
    ["an overflow hidden by a zero", fileOf(`{"a":${tensor("[4294967296,4294967296,0]", 0, 0)}}`), "larger than any"],
    ["one offset", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, four), "pair"],
    ["three offsets", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, four), "pair"],
    ["offsets in the wrong order", fileOf(`{"a":${tensor("[0]", 4, 0)}}`, four), "pair"],
    ["a range shorter than the shape", fileOf(`{"a":${tensor("[2]", 0, 4)}}`, four), "takes 8 bytes"],
    ["a range longer than the shape", fileOf(`{"a":${tensor("[1]", 0, 8)}}`, new Uint8Array(8)), "takes 4 bytes"],
    ["an overlap", fileOf(`{"a":${good},"b":${good}}`, four), "overlap"],
    [
      "a partial overlap",
      fileOf(`{"a":${tensor("[2]", 0, 8)},"b":${tensor("[1]", 4, 8)}}`, new Uint8Array(8)),
      "overlap",
    ],
    ["a hole", fileOf(`{"a":${good},"b":${tensor("[1]", 8, 12)}}`, new Uint8Array(12)), "hole"],
    ["a hole at the start", fileOf(`{"a":${tensor("[1]", 4, 8)}}`, new Uint8Array(8)), "hole"],
    ["truncated data", fileOf(`{"a":${good}}`, new Uint8Array(3)), "truncated"],
    ["appended data", fileOf(`{"a":${good}}`, new Uint8Array(5)), "appended"],
    ["data without tensors", fileOf("{}", new Uint8Array(1)), "appended"],
  ])("%s is refused", async (_, bytes, reason) => {
    const failure = openBytes(bytes);
    await expect(failure).rejects.toMatchObject({ name: "MonosemError", code: "ERR_FORMAT" });
    await expect(failure).rejects.toThrow(reason);
    await expect(failure).rejects.toThrow(path);
  });

  test("a file truncated at any byte is refused", async () => {
    await writeSafetensors(path, { a: { shape: [3], data: new Float32Array(3) } }, { note: "x" });
    const bytes = await readFile(path);
    for (let length = 0; length < bytes.length; length++) {
      await expect(openBytes(bytes.subarray(0, length))).rejects.toMatchObject({ code: "ERR_FORMAT" });
    }
  });

  test("names of an object's prototype are ordinary names", async () => {
    const header = `{"__metadata__":{"__proto__":"x","constructor":"y"},"__proto__":${good}}`;
    await using file = await openBytes(fileOf(header, new Uint8Array(Float32Array.of(3).buffer)));
    expect(await file.readFloat32("__proto__")).toEqual(Float32Array.of(3));
    expect(Object.keys(file.metadata)).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });
});

describe("headers without end are refused at a limit", () => {
  test("tensors and entries of metadata", async () => {
    const keys = (count: number, value: string) => Array.from({ length: count }, (_, i) => `"${i}":${value}`).join(",");
    const message = "it has more than 500000 tensors and entries of metadata";
    await expect(openBytes(fileOf(`{"__metadata__":{${keys(500_001, '""')}}}`))).rejects.toThrow(message);
    await expect(openBytes(fileOf(`{${keys(500_001, tensor("[0]", 0, 0, "U8"))}}`))).rejects.toThrow(message);
    await using file = await openBytes(fileOf(`{${keys(100_000, tensor("[0]", 0, 0, "U8"))}}`));
    expect(file.entries.size).toBe(100_000);
  });

  test("dimensions, of which no message says more", async () => {
    const header = `{"a":${tensor(`[${"1,".repeat(1_000_000)}2]`, 0, 1, "U8")}}`;
    const refusal = await openBytes(fileOf(header, Uint8Array.of(1))).catch((error: Error) => error);
    expect(refusal).toMatchObject({ code: "ERR_FORMAT", message: expect.stringMatching(/more than 64 numbers/) });
    await using file = await openBytes(
      fileOf(`{"a":${tensor(`[${"1,".repeat(63)}1]`, 0, 1, "U8")}}`, Uint8Array.of(1)),
    );
    expect(file.entries.get("a")!.shape).toHaveLength(64);
  });
});

describe("SafetensorsWriter", () => {
  const specifications = [
    { name: "dense", dtype: "F32", shape: [4, 2] },
    { name: "ids", dtype: "I32", shape: [3] },
  ] as const;

  test("takes the pieces of each tensor in order, in any interleaving", async () => {
    const writer = await SafetensorsWriter.create(path, specifications, { rows: "4" });
    await writer.write("dense", Float32Array.of(1, 2, 3));
    await writer.write("ids", Int32Array.of(7));
    await writer.write("dense", new Float32Array(0));
    await writer.write("dense", Float32Array.of(0, 4, 5, 6, 7, 8).subarray(1));
    await writer.write("ids", Int32Array.of(8, 9));
    expect(await readdir(directory)).not.toContain("file.safetensors");
    await writer.close();
    await using file = await SafetensorsFile.open(path);
    expect(await file.readFloat32("dense", [4, 2])).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    expect((await file.read("ids")).data).toEqual(Int32Array.of(7, 8, 9));
    expect(file.metadata.rows).toBe("4");
    expect(await readdir(directory)).toEqual(["file.safetensors"]);
  });

  test("an incomplete file is never given its name", async () => {
    const writer = await SafetensorsWriter.create(path, specifications);
    await writer.write("dense", new Float32Array(8));
    await expect(writer.close()).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
      message: expect.stringContaining("0 of 12 bytes"),
    });
    expect(await readdir(directory)).toEqual([]);
    const aborted = await SafetensorsWriter.create(path, specifications);
    await aborted.abort();
    expect(await readdir(directory)).toEqual([]);
  });

  test("refuses too much data, the wrong type, unknown and reserved names", async () => {
    const writer = await SafetensorsWriter.create(path, specifications);
    await expect(writer.write("dense", new Float32Array(9))).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
    await expect(writer.write("dense", new Float64Array(1))).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
    await expect(writer.write("sparse", new Float32Array(1))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
    await writer.abort();
    const create = (name: string, shape: number[]) => SafetensorsWriter.create(path, [{ name, dtype: "F32", shape }]);
    await expect(create("__metadata__", [1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(create("\ud800", [1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(SafetensorsWriter.create(path, [], { a: "\udc00" })).rejects.toThrow("Unicode");
    await expect(create("a", [-1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(create("a", [2 ** 40, 2 ** 40])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    const twice = SafetensorsWriter.create(path, [specifications[0], specifications[0]]);
    await expect(twice).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    expect(await readdir(directory)).toEqual([]);
  });
});

describe("writeSafetensors", () => {
  test("refuses data that does not fit its shape, and a Uint16Array of unsaid meaning", async () => {
    const write = (input: SafetensorsInput) => writeSafetensors(path, { a: input });
    await expect(write({ shape: [3], data: new Float32Array(2) })).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
    });
    await expect(write({ shape: [2], data: new Uint16Array(2) })).rejects.toThrow("F16, BF16 or U16");
    await expect(write({ shape: [2], dtype: "F32", data: new Float64Array(2) })).rejects.toMatchObject({
      code: "ERR_DTYPE_MISMATCH",
    });
    expect(await readdir(directory)).toEqual([]);
  });
});
