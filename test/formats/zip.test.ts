import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { ZipArchive } from "../../lib/formats/zip.js";
import { memoryBytes } from "./memoryBytes.js";
import { type Member, zip } from "./zipWriter.js";

const text = (content: string): Uint8Array => new Uint8Array(Buffer.from(content));
const letters: Member[] = [
  { name: "a", content: text("first") },
  { name: "folder/b", content: text("second ".repeat(50)), method: 8 },
  { name: "empty", content: text("") },
  { name: "ü", content: text("third"), method: 8 },
];

async function contents(archive: Buffer): Promise<Record<string, string>> {
  const zipArchive = await ZipArchive.open(memoryBytes(archive));
  const read: [string, string][] = [];
  for (const name of zipArchive.entries.keys()) read.push([name, Buffer.from(await zipArchive.read(name)).toString()]);
  return Object.fromEntries(read);
}

const expected = Object.fromEntries(letters.map(({ name, content }) => [name, Buffer.from(content).toString()]));

test("stored and deflated entries are read, with a comment and as ZIP64 too", async () => {
  expect(await contents(zip(letters))).toEqual(expected);
  expect(await contents(zip(letters, { comment: "a comment" }))).toEqual(expected);
  expect(await contents(zip(letters, { zip64: true }))).toEqual(expected);
  expect(await contents(zip([]))).toEqual({});
});

test("the beginning of an entry is read without the rest", async () => {
  const archive = await ZipArchive.open(memoryBytes(zip(letters)));
  expect(Buffer.from(await archive.readStart("a", 3)).toString()).toBe("fir");
  expect(Buffer.from(await archive.readStart("folder/b", 100)).toString()).toMatch(/^second /);
  await expect(archive.read("c")).rejects.toMatchObject({ code: "ERR_NOT_FOUND", message: /no entry "c".*"a"/ });
});

test("what Python writes is read, with data descriptors and padding", async () => {
  const path = fileURLToPath(new URL("../fixtures/archives/tensors.pt", import.meta.url));
  const archive = await ZipArchive.open(memoryBytes(await readFile(path)));
  expect(Buffer.from(await archive.read("tensors/byteorder")).toString()).toBe("little");
  for (const { name, byteLength } of archive.entries.values()) {
    expect((await archive.read(name)).length).toBe(byteLength);
  }
});

describe("an archive that does not account for itself is refused", () => {
  const twice = [letters[0]!, { ...letters[0]!, content: text("other") }];
  const [a] = letters as [Member];
  const bomb = { name: "bomb", content: new Uint8Array(2 ** 25), method: 8 };
  test.each<[string, Buffer, string, RegExp]>([
    ["cut off", zip(letters).subarray(0, -1), "ERR_FORMAT", /no end record/],
    ["empty", Buffer.alloc(0), "ERR_FORMAT", /no end record/],
    [
      "two end records",
      zip([], { comment: `${zip([]).toString("latin1")}` }),
      "ERR_FORMAT",
      /more than one end record/,
    ],
    [
      "something before it",
      zip(letters, { prefix: 4, directoryPosition: 90 }),
      "ERR_FORMAT",
      /its directory should lie/,
    ],
    ["more entries than it has", zip(letters, { count: 5 }), "ERR_FORMAT", /entry 4 of its directory is none/],
    ["fewer entries than it has", zip(letters, { count: 3 }), "ERR_FORMAT", /bytes follow its directory's last entry/],
    ["a name twice", zip(twice), "ERR_FORMAT", /"a" stands twice/],
    ["an entry over the next", zip([a, { ...a, name: "b", claims: { position: 3 } }]), "ERR_FORMAT", /overlaps/],
    ["an entry outside", zip([{ ...a, claims: { position: 1e6 } }]), "ERR_FORMAT", /lies outside the file/],
    [
      "a stored size too large",
      zip([{ ...a, claims: { storedBytes: 1e6, byteLength: 1e6 } }]),
      "ERR_FORMAT",
      /overlaps/,
    ],
    [
      "two sizes of what is stored",
      zip([{ ...a, claims: { byteLength: 9 } }]),
      "ERR_FORMAT",
      /its two sizes are 5 and 9/,
    ],
    ["a bomb", zip([bomb]), "ERR_FORMAT", /more than 100 times: a zip bomb/],
    ["encryption", zip([{ ...a, flags: 1 }]), "ERR_UNSUPPORTED", /encrypted/],
    ["another method", zip([{ ...a, method: 14 }]), "ERR_UNSUPPORTED", /compressed by method 14/],
  ])("%s", async (_, archive, code, message) => {
    await expect(contents(archive)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test.each<[string, Member, RegExp]>([
    ["a wrong CRC", { ...a, claims: { crc32: 1 } }, /do not have the CRC/],
    ["another name in the local header", { ...a, localName: "b" }, /has another name or method/],
    ["more than the directory says", { ...letters[1]!, claims: { byteLength: 20 } }, /cannot be inflated/],
    ["less than the directory says", { ...letters[1]!, claims: { byteLength: 2000 } }, /the directory says/],
  ])("when it is read: %s", async (_, member, message) => {
    await expect(contents(zip([member]))).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(message),
    });
  });
});
