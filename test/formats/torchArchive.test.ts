import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { float32FromBFloat16, float32FromFloat16 } from "../../lib/formats/halfPrecision.js";
import { PickleGlobal, readPickle } from "../../lib/formats/pickle.js";
import { TorchArchive, TorchTensor, type TorchValue } from "../../lib/formats/torchArchive.js";
import { memoryBytes } from "./memoryBytes.js";
import { zip } from "./zipWriter.js";

const fixtures = fileURLToPath(new URL("../fixtures/archives", import.meta.url));

function mapOf(value: TorchValue | undefined): ReadonlyMap<string | number, TorchValue> {
  if (!(value instanceof Map)) throw new Error("no dictionary");
  return value;
}

describe("files that PyTorch wrote hold what PyTorch put in", () => {
  test.each(["tensors.pt", "protocol4.pt"])("%s", async (name) => {
    const expected = JSON.parse(await readFile(`${fixtures}/expected.json`, "utf8")).torch;
    await using file = await TorchArchive.open(`${fixtures}/${name}`);
    const value = mapOf(file.value);
    const tensors = new Map([
      ...mapOf(value.get("tensors")),
      ...mapOf(value.get("state")),
      ["parameter", value.get("parameter")!],
    ] as [string, TorchValue][]);
    expect([...tensors.keys()]).toEqual(Object.keys(expected));
    for (const [key, tensor] of tensors) {
      if (!(tensor instanceof TorchTensor)) throw new Error(`${key} is no tensor`);
      const { dtype, shape, data } = await file.read(tensor);
      const widen = dtype === "F16" ? float32FromFloat16 : dtype === "BF16" ? float32FromBFloat16 : undefined;
      const numbers = widen === undefined ? data : widen(data as Uint16Array);
      expect({ shape, data: Array.from(numbers, Number) }, key).toEqual(expected[key]);
    }
    expect(value.get("nested")).toEqual(
      new Map<string | number, unknown>([
        ["list", [1, -2, 300, 70000, 2 ** 40, -(2 ** 40), 2n ** 62n]],
        ["tuple", [true, false, null]],
        ["text", "Grüße"],
        ["number", 0.25],
        [3, "three"],
        ["size", [3, 4]],
        [
          "ordered",
          new Map<string, unknown>([
            ["a", 1],
            ["b", []],
          ]),
        ],
      ]),
    );
  });

  test("tensors that share a storage say so", async () => {
    await using file = await TorchArchive.open(`${fixtures}/tensors.pt`);
    const tensors = mapOf(mapOf(file.value).get("tensors"));
    const storage = (name: string): string => (tensors.get(name) as TorchTensor).storage;
    expect(storage("sharedRows")).toBe(storage("shared"));
    expect(storage("f32")).not.toBe(storage("shared"));
  });
});

test.each<[string, string, RegExp]>([
  ["hostile/system.pt", "ERR_UNSUPPORTED", /it needs "(posix|nt).system"/],
  ["hostile/eval4.pt", "ERR_UNSUPPORTED", /it needs "builtins.eval"/],
  ["hostile/popen.pt", "ERR_UNSUPPORTED", /it needs "commands.Popen"/],
  ["hostile/getattr.pt", "ERR_UNSUPPORTED", /it needs "__builtin__.getattr"/],
  ["hostile/inst.pt", "ERR_UNSUPPORTED", /the instruction 0x53/],
  ["hostile/inst-first.pt", "ERR_UNSUPPORTED", /it needs "os.system"/],
  ["hostile/newobj.pt", "ERR_UNSUPPORTED", /makes an instance of a class/],
  ["hostile/build.pt", "ERR_UNSUPPORTED", /sets the state of torch.FloatStorage/],
  ["hostile/called-storage.pt", "ERR_FORMAT", /it calls torch.FloatStorage/],
  ["hostile/extension.pt", "ERR_UNSUPPORTED", /the instruction 0x82/],
  ["hostile/deep.pt", "ERR_FORMAT", /nested more than 32 times/],
  ["hostile/deep-marks.pt", "ERR_FORMAT", /nested 100 times/],
  ["hostile/itself.pt", "ERR_FORMAT", /nested more than 32 times/],
  ["hostile/doubling.pt", "ERR_FORMAT", /over 1000000 parts/],
  ["hostile/outside.pt", "ERR_FORMAT", /from 1 does not lie within its storage of 2 elements/],
  ["hostile/short.pt", "ERR_FORMAT", /takes 8589934588 bytes, but "archive\/data\/0" has 8/],
  ["hostile/big-endian.pt", "ERR_UNSUPPORTED", /its byte order is "big"/],
  ["old.pt", "ERR_UNSUPPORTED", /the form of PyTorch before 1.6/],
  ["program.pt", "ERR_UNSUPPORTED", /TorchScript/],
  ["module.pt", "ERR_UNSUPPORTED", /it needs "torch.nn.modules.linear.Linear"/],
  ["expanded.pt", "ERR_UNSUPPORTED", /repeats the 1 elements of its storage/],
  ["plain.npz", "ERR_FORMAT", /holds no data.pkl/],
])("%s is refused, and nothing of it is run", async (name, code, message) => {
  const refusal = await TorchArchive.open(`${fixtures}/${name}`).catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(MonosemError);
  expect(refusal).toMatchObject({ code, message: expect.stringMatching(message) });
});

describe("a pickle that has one value made again and again is refused at the first", () => {
  const opening = "\x80\x02";
  const archive = (...pieces: string[]) =>
    memoryBytes(zip([{ name: "a/data.pkl", content: Buffer.from(pieces.join(""), "latin1") }]), "a.pt");

  test.each<[string, string[], RegExp]>([
    [
      "ordered dictionaries of a list",
      ["ccollections\nOrderedDict\nq\x000]q\x01", "K\x01N\x86a", "\x85q\x020]", "h\x00h\x02Ra".repeat(1000), "."],
      /an ordered dictionary in it is made of a list/,
    ],
    [
      "sizes of 17 numbers",
      ["ctorch\nSize\nq\x000(", "K\x01".repeat(17), "t\x85q\x020N", "h\x00h\x02R0".repeat(1000), "."],
      /a shape in it has 17 dimensions, more than 16/,
    ],
  ])("%s", async (_, pieces, message) => {
    const refusal = await TorchArchive.from(archive(opening, ...pieces)).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "ERR_FORMAT", message: expect.stringMatching(message) });
  });

  test("as Python 3 writes them, both are read", async () => {
    const ordered = "ccollections\nOrderedDict\n)R(K\x01K\x02u";
    const size = `ctorch\nSize\n(${"K\x01".repeat(16)}t\x85R`;
    await using file = await TorchArchive.from(archive(opening, ordered, size, "\x86."));
    expect(file.value).toEqual([new Map([[1, 2]]), Array(16).fill(1)]);
  });
});

describe("limits of pickles", () => {
  const vocabulary = { globals: new Map<string, PickleGlobal>(), persistent: () => null };
  const read = (...pieces: (string | Uint8Array)[]) =>
    readPickle(Buffer.concat(pieces.map((piece) => Buffer.from(piece as string, "latin1"))), vocabulary, "x.pkl");
  const uint32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };

  test("a memo of too many values", () => {
    const puts = Array.from({ length: 500_001 }, (_, i) => Buffer.concat([Buffer.from("r"), uint32(i)]));
    expect(() => read("\x80\x02N", Buffer.concat(puts), ".")).toThrow(/remembers more than 500000 values/);
  });
  test("a stack of too many values", () => {
    expect(() => read("\x80\x02", "N".repeat(100_001), ".")).toThrow(/its stack exceeds 100000 values/);
  });
  test("too many instructions", () => {
    expect(() => read("\x80\x02", "N0".repeat(1_000_001), "N.")).toThrow(/more than 2000000 instructions/);
  });
  test("too many bytes", () => {
    expect(() => read(Buffer.alloc(2 ** 24 + 1))).toThrow(/exceed the limit of 16777216/);
  });
  test.each<[string, (string | Uint8Array)[], RegExp]>([
    ["a text longer than the file", ["\x80\x02X", uint32(1000), "a."], /truncated/],
    ["a text longer than the limit", ["\x80\x02X", uint32(2 ** 30), "a."], /a text in it has 1073741824 bytes/],
    ["an integer of 200 bytes", ["\x80\x02\x8a\xc8", "1".repeat(200), "."], /an integer in it has 200 bytes/],
    ["an empty stack", ["\x80\x02."], /its stack is empty/],
    ["values left over", ["\x80\x02NN."], /1 values remain/],
    ["a mark left over", ["\x80\x02N(.."], /its stack is empty/],
    ["bytes after its end", ["\x80\x02N.N"], /more bytes follow/],
    ["no end", ["\x80\x02N"], /truncated/],
    ["a value never memoised", ["\x80\x02h\x07."], /recalls the value 7/],
    ["a list as a key", ["\x80\x02}]Ns."], /a key in it is a list/],
    ["a key twice", ["\x80\x02}K\x01NsK\x01Ns."], /the key "1" stands twice/],
    ["a key without a value", ["\x80\x02}(Nu."], /a key in it has no value/],
    ["text that is no UTF-8", ["\x80\x02X", uint32(1), "\xff."], /not UTF-8/],
    ["protocol 1", ["\x80\x01N."], /its protocol is 1/],
  ])("%s", (_, pieces, message) => {
    expect(() => read(...pieces)).toThrow(message);
  });

  test("calling what the vocabulary does not build", () => {
    const globals = new Map([["a.b", new PickleGlobal("a.b")]]);
    const bytes = Buffer.from("\x80\x02ca\nb\n)R.", "latin1");
    expect(() => readPickle(bytes, { ...vocabulary, globals }, "x.pkl")).toThrow(/it calls a.b/);
  });
});
