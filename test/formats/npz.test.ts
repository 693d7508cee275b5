import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { float32FromFloat16 } from "../../lib/formats/halfPrecision.js";
import { parseNpyHeader } from "../../lib/formats/npy.js";
import { NpzFile } from "../../lib/formats/npz.js";

const fixtures = fileURLToPath(new URL("../fixtures/archives", import.meta.url));

describe("archives that NumPy wrote hold what NumPy put in", () => {
  test.each(["plain.npz", "compressed.npz"])("%s", async (name) => {
    const expected = JSON.parse(await readFile(`${fixtures}/expected.json`, "utf8")).numpy;
    await using file = await NpzFile.open(`${fixtures}/${name}`);
    expect([...file.entries.keys()]).toEqual(Object.keys(expected));
    for (const key of file.entries.keys()) {
      const { dtype, shape, data } = await file.read(key);
      const numbers = dtype === "F16" ? float32FromFloat16(data as Uint16Array) : data;
      expect({ shape, data: Array.from(numbers, Number) }, key).toEqual(expected[key]);
    }
    await expect(file.read("other")).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });
});

test("arrays of objects, records and big-endian numbers are refused by their type", async () => {
  await expect(NpzFile.open(`${fixtures}/objects.npz`)).rejects.toMatchObject({
    code: "ERR_UNSUPPORTED",
    message: expect.stringMatching(/"x.npy" has elements of type "\|O"/),
  });
  await expect(NpzFile.open(`${fixtures}/bigEndian.npz`)).rejects.toMatchObject({
    message: expect.stringMatching(/">f4"/),
  });
  await expect(NpzFile.open(`${fixtures}/structured.npz`)).rejects.toMatchObject({ code: "ERR_FORMAT" });
  await expect(NpzFile.open(`${fixtures}/tensors.pt`)).rejects.toMatchObject({
    code: "ERR_FORMAT",
    message: expect.stringMatching(/is not an .npz archive: it holds "tensors\/data.pkl"/),
  });
});

describe("headers", () => {
  const good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  const npy = (header: string, version = 1, headerBytes = header.length): Buffer => {
    const start = Buffer.alloc(version === 1 ? 10 : 12);
    start.write("\x93NUMPY", "latin1");
    start[6] = version;
    if (version === 1) start.writeUInt16LE(headerBytes, 8);
    else start.writeUInt32LE(headerBytes, 8);
    return Buffer.concat([start, Buffer.from(header, "latin1")]);
  };
  const parse = (start: Buffer, dataBytes = 24) => parseNpyHeader(start, start.length + dataBytes, "x.npy");

  test.each([
    ["version 1", npy(`${good}\n`)],
    ["version 2", npy(good, 2)],
    ["version 3", npy(`  ${good}  `, 3)],
    ["another order of keys", npy("{'shape':(2,3),'descr':\"<f4\",'fortran_order':False}")],
    ["Python 2's long integers", npy(good.replace("(2, 3)", "(2L, 3L)"))],
  ])("%s", (_, start) => {
    expect(parse(start)).toEqual({ dtype: "F32", shape: [2, 3], fortranOrder: false, dataPosition: start.length });
  });

  test.each<[string, Buffer, RegExp]>([
    ["no magic", Buffer.from("NUMPY".padEnd(30)), /does not begin as one/],
    ["version 4", npy(good, 4), /its version is 4.0/],
    ["truncated", npy(good).subarray(0, 30), /ends within its header/],
    ["longer than the limit", npy(good.padEnd(10_001)), /exceeds the limit of 10000/],
    ["length beyond the file", npy(good, 2, 9999), /ends within its header/],
    ["missing key", npy("{'descr': '<f4', 'shape': (2, 3)}"), /needs the keys descr, fortran_order, shape/],
    ["unknown key", npy(good.replace("'descr'", "'toString': '', 'descr'")), /the key "toString" too many/],
    ["key twice", npy(good.replace("}", "'shape': (6,)}")), /the key "shape" twice/],
    ["code", npy(good.replace("False", "__import__('os')")), /True or False was expected/],
    ["negative dimension", npy(good.replace("2, 3", "-2, 3")), /an integer was expected/],
    ["no tuple", npy(good.replace("(2, 3)", "(6)")), /its shape is no tuple/],
    ["more after it", npy(`${good} {}`), /more text follows/],
    ["overflow", npy(good.replace("2, 3", "9007199254740991, 9007199254740991")), /larger than any file/],
    ["too many dimensions", npy(good.replace("2, 3", "1, ".repeat(40))), /more than 32 dimensions/],
  ])("are refused: %s", (_, start, message) => {
    expect(() => parse(start)).toThrow(
      expect.objectContaining({ code: "ERR_FORMAT", message: expect.stringMatching(message) }),
    );
  });

  test("are refused when another number of elements follows", () => {
    expect(() => parse(npy(good), 20)).toThrow(/takes 24 bytes, but 20 follow/);
    expect(() => parse(npy(good), 28)).toThrow(/takes 24 bytes, but 28 follow/);
  });
});
