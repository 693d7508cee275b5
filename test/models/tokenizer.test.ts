import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeAll, expect, test } from "vitest";
import { Tokenizer } from "../../lib/models/tokenizer.js";
import { textFixture, tinyGpt2Directory } from "./tinyGpt2.js";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await Tokenizer.load(tinyGpt2Directory);
});

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

/** A copy of the tiny model's tokenizer with other files. */
async function folderWith(files: Record<string, unknown>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "monosem-tokenizer-"));
  folders.push(folder);
  await cp(join(tinyGpt2Directory, "tokenizer.json"), join(folder, "tokenizer.json"));
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}

test("texts become the ids that the model was trained on, and ids the texts", async () => {
  const { tokenizerExamples } = JSON.parse(await readFile(textFixture, "utf8"));
  for (const { ids, text } of tokenizerExamples) {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(tokenizer.tokenTexts(ids).join("")).toBe(text);
  }
  expect(tokenizer.vocabularySize).toBe(2048);
});

test("BOS and EOS of id 0 are there, and encoding adds neither", () => {
  expect(tokenizer.bosTokenId).toBe(0);
  expect(tokenizer.eosTokenId).toBe(0);
  expect([...tokenizer.specialTokenIds]).toEqual([0]);
  expect(tokenizer.encode("The")).not.toContain(0);
  expect(tokenizer.encode("")).toEqual([]);
  expect(tokenizer.decode([])).toBe("");
  expect(tokenizer.encode("<|endoftext|>")).toEqual([0]);
  expect(tokenizer.decode([0])).toBe("<|endoftext|>");
});

test("every text without lone surrogates comes back exactly; a lone surrogate comes back as U+FFFD", () => {
  const texts = fc.oneof(
    fc.string({ unit: "binary" }), // any code points, surrogate pairs included
    fc.string({ unit: "grapheme" }),
    fc.string({ unit: fc.constantFrom(" ", "\n", "\t", ".", "'s", " n't", "\u00a0", "\ufeff", "\0", "a") }),
    fc.string({ unit: fc.constantFrom("\ud83d", "\ude00", "\ud800", "x", "😀") }),
  );
  fc.assert(
    fc.property(texts, (text) => {
      const ids = tokenizer.encode(text);
      // A TextEncoder does to lone surrogates what UTF-8 demands.
      expect(tokenizer.decode(ids)).toBe(
        new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text)),
      );
      expect(ids.every((id) => id >= 0 && id < 2048)).toBe(true);
    }),
  );
});

test("the text of one token keeps spaces and line breaks, shows broken UTF-8 as escapes, and never throws", () => {
  const textsOf = (text: string): string[] => tokenizer.tokenTexts(tokenizer.encode(text));
  expect(textsOf(" the\n")).toEqual([" the", "\n"]);
  expect(textsOf("é").join("")).toMatch(/^(é|\\xC3\\xA9)$/);
  expect(textsOf("😀").join("")).toMatch(/^(😀|\\xF0\\x9F\\x98\\x80)$/);
  expect(tokenizer.tokenText(0)).toBe("<|endoftext|>");
  for (const id of [2048, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(tokenizer.tokenText(id)).toBe(`[${id}]`);
  }
  for (let id = 0; id < 2048; id++) expect(tokenizer.tokenText(id)).not.toContain("\ufffd");
});

test("decoding an id that does not exist is refused and names it", () => {
  expect(() => tokenizer.decode([5, 2048])).toThrow(/token id 2048 at position 1/);
});

test("BOS and EOS come from tokenizer_config.json, else from config.json, and may be absent", async () => {
  const named = await Tokenizer.load(
    await folderWith({
      "tokenizer_config.json": { bos_token: { content: "<|endoftext|>" }, eos_token: "!" },
      "config.json": { bos_token_id: 7 },
    }),
  );
  expect([named.bosTokenId, named.eosTokenId]).toEqual([0, tokenizer.encode("!")[0]]);
  const numbered = await Tokenizer.load(await folderWith({ "config.json": { bos_token_id: 0, eos_token_id: null } }));
  expect([numbered.bosTokenId, numbered.eosTokenId]).toEqual([0, undefined]);
  const bare = await Tokenizer.load(await folderWith({}));
  expect([bare.bosTokenId, bare.eosTokenId]).toEqual([undefined, undefined]);
});

test("a folder without a usable tokenizer is refused with the file's name", async () => {
  await expect(Tokenizer.load(join(tmpdir(), "monosem-no-such-folder"))).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: expect.stringContaining("tokenizer.json"),
  });
  const other = join(await folderWith({ "notes.txt": "x" }), "notes.txt");
  await expect(Tokenizer.load(other)).rejects.toMatchObject({
    code: "ERR_FORMAT",
    message: expect.stringMatching(
      /notes\.txt is no tokenizer: a tokenizer is a folder with tokenizer\.json, .*llama2\.c$/,
    ),
  });
  for (const below of [join(other, "tokenizer.json"), join(other, "tokenizer.bin"), join(other, "folder")]) {
    await expect(Tokenizer.load(below)).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringMatching(/^[^:]* does not exist/),
    });
  }
  const load = async (files: Record<string, unknown>): Promise<Tokenizer> => Tokenizer.load(await folderWith(files));
  await expect(load({ "tokenizer.json": "{" })).rejects.toMatchObject({ code: "ERR_FORMAT" });
  await expect(load({ "tokenizer.json": "[]" })).rejects.toMatchObject({ code: "ERR_FORMAT" });
  await expect(load({ "tokenizer.json": {} })).rejects.toMatchObject({ code: "ERR_FORMAT" });
  await expect(load({ "tokenizer_config.json": { bos_token: "<s>" } })).rejects.toThrow(/bos_token "<s>" is not in/);
});
