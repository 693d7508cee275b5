import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Corpus } from "../../lib/activations/corpus.js";
import { documentPieces } from "../../lib/activations/documentPieces.js";
import { filesMatching } from "../../lib/activations/fileGlob.js";
import { MonosemError } from "../../lib/errors.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-corpus-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function write(path: string, content: string | Uint8Array = ""): Promise<void> {
  await mkdir(join(directory, path, ".."), { recursive: true });
  await writeFile(join(directory, path), content);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

describe("patterns of files", () => {
  beforeEach(async () => {
    for (const path of ["b.txt", "a.txt", "a.md", ".hidden.txt", "sub/c.txt", "sub/deep/d.txt", ".git/e.txt"]) {
      await write(path);
    }
    await symlink(directory, join(directory, "sub", "loop"));
  });

  test.each<[string, string[]]>([
    ["*.txt", ["a.txt", "b.txt"]],
    ["?.txt", ["a.txt", "b.txt"]],
    ["a.*", ["a.md", "a.txt"]],
    ["**/*.txt", ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"]],
    ["sub/**", ["sub/c.txt", "sub/deep/d.txt"]],
    ["**/deep/**/*.txt", ["sub/deep/d.txt"]],
    ["**/**/d.txt", ["sub/deep/d.txt"]],
    ["*/c.txt", ["sub/c.txt"]],
    [".*.txt", [".hidden.txt"]],
    [".git/*", [".git/e.txt"]],
    ["sub/../b.txt", ["b.txt"]],
    ["*a*.*t*", ["a.txt"]],
  ])("%s", async (pattern, expected) => {
    const found = await filesMatching(join(directory, "x").slice(0, -1) + pattern);
    expect(found.map((path) => relative(directory, path))).toEqual(expected);
    expect((await filesMatching(join(relative(process.cwd(), directory), "/") + pattern)).length).toBe(expected.length);
  });

  test.each(["*.csv", "nowhere/*.txt", "a.txt/b", "sub", "*/**/[a].txt"])(
    "%s, which matches nothing, is named",
    async (pattern) => {
      await expect(filesMatching(join(directory, pattern))).rejects.toMatchObject({
        code: "ERR_NOT_FOUND",
        message: expect.stringContaining(pattern),
      });
    },
  );

  test("a name matches a pattern of stars as a regular expression would", async () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "*", "?"), minLength: 1, maxLength: 8 });
    const name = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 8 });
    await mkdir(join(directory, "names"));
    await fc.assert(
      fc.asyncProperty(letters, name, async (pattern, file) => {
        const path = join(directory, "names", file);
        await writeFile(path, "");
        const expected = new RegExp(`^${pattern.replaceAll("*", ".*").replaceAll("?", ".")}$`).test(file);
        const found = await filesMatching(join(directory, "names", pattern)).catch(() => []);
        await rm(path);
        expect(found).toEqual(expected ? [path] : []);
      }),
    );
  });
});

describe("Corpus", () => {
  test("a .txt file is one document, a .jsonl file one per line, patterns in the order given, each file once", async () => {
    await write("b.txt", "second\n\nfile");
    await write("a.txt", "first");
    await write("more/c.jsonl", '{"text":"third","id":1}\r\n\n  \n{"text":"größer \\ud83d\\ude00"}');
    const corpus = await Corpus.fromFiles([
      join(directory, "more/*"),
      join(directory, "*.txt"),
      join(directory, "a.txt"),
    ]);
    expect(await collect(corpus.documents())).toEqual(["third", "größer 😀", "first", "second\n\nfile"]);
    expect(await collect(corpus.documents())).toHaveLength(4);
    const pieces = await collect(corpus.pieces(1));
    expect(pieces.map(({ document, piece, text }) => [document, piece, text])).toEqual([
      [1, 0, "größer 😀"],
      [2, 0, "first"],
      [3, 0, "second\n\nfile"],
    ]);
  });

  test("text longer than the disk's chunks, with characters across their borders, comes out whole", async () => {
    const text = `a${"😀 größe\n".repeat(30_000)}`;
    await write("long.txt", text);
    await write("long.jsonl", `${JSON.stringify({ text })}\n${JSON.stringify({ text: "short" })}\n`);
    const corpus = await Corpus.fromFiles([join(directory, "*")]);
    expect(await collect(corpus.documents())).toEqual([text, "short", text]);
    const pieces = await collect(corpus.pieces(2));
    expect(pieces.map((piece) => piece.text).join("")).toBe(text);
    expect(pieces.every((piece, index) => piece.document === 2 && piece.piece === index)).toBe(true);
  });

  test.each<[string, string]>([
    ['{"text":"fine"}\n{"text":1}\n', 'bad.jsonl:2 should be a JSON object with a string under "text"'],
    ['{"text":"fine"}\n\n{"text":', "bad.jsonl:3 is not JSON"],
    ['["text"]', "bad.jsonl:1 should"],
    ["null", "bad.jsonl:1 should"],
    ['{"body":"x"}', "bad.jsonl:1 should"],
  ])("a bad line is named by file and number: %j", async (content, message) => {
    await write("bad.jsonl", content);
    const corpus = await Corpus.fromFiles([join(directory, "bad.jsonl")]);
    const failure = collect(corpus.documents());
    await expect(failure).rejects.toMatchObject({ code: "ERR_FORMAT" });
    await expect(failure).rejects.toThrow(message);
  });

  test("bytes that are not UTF-8, other kinds of files, and no files are refused", async () => {
    await write("latin.txt", Uint8Array.of(0x67, 0x72, 0xfc, 0xdf));
    await write("cut.txt", Uint8Array.of(0x67, 0xf0, 0x9f));
    await write("table.csv", "a,b");
    for (const name of ["latin.txt", "cut.txt"]) {
      const corpus = await Corpus.fromFiles([join(directory, name)]);
      await expect(collect(corpus.documents())).rejects.toMatchObject({
        code: "ERR_FORMAT",
        message: expect.stringContaining(name),
      });
    }
    await expect(Corpus.fromFiles([join(directory, "*")])).rejects.toThrow("table.csv is no .txt");
    await writeFile(join(directory, "array.json"), "[]");
    const json = Corpus.fromFiles([join(directory, "array.json")]);
    await expect(json).rejects.toThrow('as .jsonl it would hold an object with "text" in each line');
    await expect(Corpus.fromFiles([])).rejects.toMatchObject({ code: "ERR_CONFIG" });
    await expect(Corpus.fromFiles([join(directory, "*.jsonl")])).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });

  test("the fingerprint tells corpora apart", async () => {
    await write("a.txt", "one");
    await write("b.txt", "two");
    const of = async (...names: string[]) =>
      (await Corpus.fromFiles(names.map((name) => join(directory, name)))).fingerprint;
    const before = await of("a.txt", "b.txt");
    expect(await of("*.txt")).toBe(before);
    expect(await of("b.txt", "a.txt")).not.toBe(before);
    await write("b.txt", "three");
    expect(await of("*.txt")).not.toBe(before);
    const fromMemory = ["ab", "c"].join("\0");
    expect(Corpus.fromDocuments(["ab", "c"]).fingerprint).not.toBe(Corpus.fromDocuments(["a", "bc"]).fingerprint);
    expect(Corpus.fromDocuments([fromMemory]).fingerprint).not.toBe(Corpus.fromDocuments(["ab", "c"]).fingerprint);
  });

  test("reading stops when the signal fires", async () => {
    const corpus = Corpus.fromDocuments(["a", "b", "c"]);
    const controller = new AbortController();
    const read: string[] = [];
    const reading = (async () => {
      for await (const document of corpus.documents(controller.signal)) {
        read.push(document);
        if (document === "b") controller.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(read).toEqual(["a", "b"]);
  });
});

describe("pieces of a document", () => {
  const words = fc.stringMatching(/^[a-z]{1,9}$/);
  const separators = fc.constantFrom(" ", "\n", "  ", "\n\n", "\t");
  const prose = fc
    .array(fc.tuple(words, separators), { minLength: 3000, maxLength: 9000 })
    .map((parts) => parts.flat().join(""));

  test("put together are the document, however it arrives, cut before single spaces between words", async () => {
    await fc.assert(
      fc.asyncProperty(prose, fc.integer({ min: 1, max: 30_000 }), async (text, chunkLength) => {
        const chunks: string[] = [];
        for (let i = 0; i < text.length; i += chunkLength) chunks.push(text.slice(i, i + chunkLength));
        const pieces = await collect(documentPieces(chunks));
        expect(pieces.join("")).toBe(text);
        expect(pieces).toEqual(await collect(documentPieces([text])));
        for (const piece of pieces.slice(1)) expect(piece).toMatch(/^[ \n]\S/);
        for (const piece of pieces.slice(0, -1)) {
          expect(piece.length).toBeLessThanOrEqual(2048);
          expect(piece).toMatch(/\S$/);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("text without spaces is cut all the same, never inside a character", async () => {
    const text = `x${"😀".repeat(40_000)}`;
    const pieces = await collect(documentPieces([text]));
    expect(pieces.join("")).toBe(text);
    expect(pieces.length).toBeGreaterThan(3);
    for (const piece of pieces) expect(piece).not.toMatch(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/);
    expect(await collect(documentPieces([]))).toEqual([]);
    expect(await collect(documentPieces(["", "a"]))).toEqual(["a"]);
  });

  describe("parquet files", () => {
    const fixture = (name: string): string =>
      fileURLToPath(new URL(`../fixtures/corpus/${name}.parquet`, import.meta.url));

    test.each(["none", "snappy", "gzip", "zstd"])(
      "compressed by %s: one document per row, in all row groups",
      async (name) => {
        const documents = await collect((await Corpus.fromFiles([fixture(name)])).documents());
        expect(documents).toHaveLength(25);
        for (const [i, text] of documents.entries()) {
          expect(text).toBe(`document ${i}: größer 😀\n${"word ".repeat(i % 7)}`);
        }
      },
    );

    test("reading begins at any document, and goes on with other files", async () => {
      await write("last.txt", "the end");
      const corpus = await Corpus.fromFiles([fixture("snappy"), join(directory, "last.txt")]);
      const pieces = await collect(corpus.pieces(23));
      expect(pieces.map(({ document, text }) => [document, text.slice(0, 11)])).toEqual([
        [23, "document 23"],
        [24, "document 24"],
        [25, "the end"],
      ]);
    });

    test.each([
      ["no-text", /no-text\.parquet has no column "text"/],
      ["numbers", /row 0 of .*numbers\.parquet should have a string/],
      ["null", /row 1 of .*null\.parquet should have a string/],
    ])("%s is refused by name", async (name, message) => {
      const corpus = await Corpus.fromFiles([fixture(name)]);
      const failure = collect(corpus.documents());
      await expect(failure).rejects.toMatchObject({ code: "ERR_FORMAT", message: expect.stringMatching(message) });
    });

    test("a damaged file is an error or other text, never a crash", async () => {
      const whole = await readFile(fixture("snappy"));
      await fc.assert(
        fc.asyncProperty(
          fc.nat(whole.length - 1),
          fc.integer({ min: 1, max: 255 }),
          fc.boolean(),
          async (at, by, cut) => {
            const damaged = cut
              ? whole.subarray(0, at)
              : Uint8Array.from(whole, (byte, i) => (i === at ? byte ^ by : byte));
            await write("damaged.parquet", damaged);
            const read = (await Corpus.fromFiles([join(directory, "damaged.parquet")])).documents();
            const outcome = await collect(read).catch((error: unknown) => error);
            if (!Array.isArray(outcome)) expect(outcome).toBeInstanceOf(MonosemError);
          },
        ),
      );
    });
  });
});
