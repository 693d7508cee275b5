/**
 * Mutated zip archives, NumPy archives and PyTorch files. Every input must be refused with ERR_FORMAT or ERR_UNSUPPORTED,
 * or be read without reading outside of it (memoryBytes throws then), without giving more than its directory says, and
 * without doing anything but building values.
 *
 * Contents are mutated before they are packed, so that their CRC is right and the parsers behind it are reached.
 */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { NpzFile } from "../../lib/formats/npz.js";
import { TorchArchive, TorchTensor, type TorchValue } from "../../lib/formats/torchArchive.js";
import { ZipArchive } from "../../lib/formats/zip.js";
import { memoryBytes } from "../formats/memoryBytes.js";
import { type Member, zip } from "../formats/zipWriter.js";
import { type Below, mutated, random, runs, seed } from "./inputs.js";

const fixtures = new URL("../fixtures/archives/", import.meta.url);

/** Feeds the inputs to a reader; the share of those that it accepts must lie between 1% and 60%. */
async function fuzz(inputOf: (below: Below) => Buffer, read: (input: Buffer) => Promise<void>): Promise<void> {
  const below = random(seed);
  let valid = 0;
  for (let run = 0; run < runs; run++) {
    const input = inputOf(below);
    try {
      await read(input);
      valid++;
    } catch (error) {
      if (!(error instanceof MonosemError) || !["ERR_FORMAT", "ERR_UNSUPPORTED"].includes(error.code)) {
        throw new Error(`not refused properly: ${input.toString("base64")}`, { cause: error });
      }
    }
  }
  // Otherwise the mutations never get past the first check, or never matter.
  expect(valid).toBeGreaterThan(runs / 100);
  expect(valid).toBeLessThan(runs * 0.6);
}

function little(value: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntLE(value, 0, bytes);
  return buffer;
}

const name = (what: string): string => `${runs} mutated ${what} are read or refused (seed ${seed})`;

test(name("zip archives"), { timeout: 0 }, async () => {
  const members: Member[] = [
    { name: "a", content: Buffer.from("first") },
    { name: "b/c", content: Buffer.alloc(300, "second"), method: 8 },
    { name: "d", content: Buffer.alloc(0) },
  ];
  const archives = [zip(members), zip(members, { zip64: true }), zip(members, { comment: "text" }), zip([])];
  const tokens = [
    ...["PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06", "PK\x06\x07"].map((token) =>
      Buffer.from(token, "latin1"),
    ),
    ...[little(0xffffffff, 4), little(0xffff, 2), little(0x7fffffff, 4), little(0, 4), little(1, 2), little(8, 2)],
  ];
  await fuzz(
    (below) => mutated(archives[below(archives.length)]!, tokens, below),
    async (input) => {
      const archive = await ZipArchive.open(memoryBytes(input));
      let stored = 0;
      for (const { name, byteLength, storedBytes } of archive.entries.values()) {
        const bytes = await archive.read(name);
        if (bytes.length !== byteLength) expect.fail(input.toString("base64"));
        stored += storedBytes;
      }
      if (stored > input.length) expect.fail(input.toString("base64"));
    },
  );
});

test(name("NumPy archives"), { timeout: 0 }, async () => {
  const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
  const npy = (text: string) =>
    Buffer.concat([
      Buffer.from("\x93NUMPY\x01\0", "latin1"),
      little(text.length, 2),
      Buffer.from(text),
      Buffer.alloc(24),
    ]);
  const files = [
    npy(header),
    npy(header.replace("False", "True")),
    npy(header.replace("'<f4'", "'<i8'").replace("2, ", "")),
  ];
  const tokens = [
    ...[
      "(",
      ")",
      ",",
      "'",
      "{",
      "}",
      ":",
      "True",
      "'descr'",
      "'shape'",
      "'|O'",
      "9007199254740993",
      "-1",
      "2L",
      "\\x41",
    ],
    ...["\x93NUMPY", "\x02\0", "\x03\0", "\xff\xff"],
  ].map((token) => Buffer.from(token, "latin1"));
  await fuzz(
    (below) =>
      zip([{ name: "a.npy", content: mutated(files[below(files.length)]!, tokens, below), method: below(2) * 8 }]),
    async (input) => {
      await using file = await NpzFile.from(memoryBytes(input));
      const { shape, data } = await file.read("a");
      if (data.length !== shape.reduce((a, b) => a * b, 1) || data.byteLength > 64)
        expect.fail(input.toString("base64"));
    },
  );
});

test(name("PyTorch files"), { timeout: 0 }, async () => {
  const pickles = await Promise.all(
    ["small.pt", "small4.pt"].map(async (file) => {
      const archive = await ZipArchive.open(memoryBytes(readFileSync(new URL(file, fixtures))));
      const folder = file.slice(0, -3);
      const storages: Member[] = [];
      for (const entry of archive.entries.keys()) {
        if (/\/data\/\d+$/.test(entry)) storages.push({ name: entry, content: await archive.read(entry) });
      }
      return { folder, storages, pickle: Buffer.from(await archive.read(`${folder}/data.pkl`)) };
    }),
  );
  const tokens = [
    ...[
      "(",
      ")",
      "]",
      "}",
      "N",
      "R",
      "b",
      "Q",
      "0",
      "t",
      "u",
      "e",
      "a",
      "s",
      "\x81",
      "\x85",
      "\x93",
      "\x94",
      "h\0",
      "q\0",
    ],
    ...[
      "cos\nsystem\n",
      "ctorch\nFloatStorage\n",
      "ccollections\nOrderedDict\n",
      "ctorch._utils\n_rebuild_tensor_v2\n",
    ],
    ...[
      "J\xff\xff\xff\x7f",
      "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
      "K\0",
      "X\xff\xff\xff\xff",
      "X\0\0\0\0",
      "ios\nsystem\n",
    ],
  ].map((token) => Buffer.from(token, "latin1"));
  await fuzz(
    (below) => {
      const { folder, storages, pickle } = pickles[below(pickles.length)]!;
      return zip([{ name: `${folder}/data.pkl`, content: mutated(pickle, tokens, below) }, ...storages]);
    },
    async (input) => {
      await using file = await TorchArchive.from(memoryBytes(input));
      for (const tensor of tensorsIn(file.value)) {
        const { data } = await file.read(tensor);
        const elements = tensor.shape.reduce((a, b) => a * b, 1);
        if (data.length !== elements || data.byteLength > 96) expect.fail(input.toString("base64"));
      }
    },
  );
});

function tensorsIn(value: TorchValue): TorchTensor[] {
  if (value instanceof TorchTensor) return [value];
  if (value instanceof Map) return [...value.values()].flatMap(tensorsIn);
  return Array.isArray(value) ? value.flatMap(tensorsIn) : [];
}
