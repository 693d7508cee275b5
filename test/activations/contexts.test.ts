import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ContextOptions, Contexts, contexts, type TextTokenizer } from "../../lib/activations/contexts.js";
import { Corpus } from "../../lib/activations/corpus.js";

const BOS = 0;
/** A token per character, its code; BOS is 0, the id that a truthiness test loses, and "^" in a text stands for it. */
const characters: TextTokenizer = {
  bosTokenId: BOS,
  encode: (text) => [...text].map((character) => (character === "^" ? BOS : character.charCodeAt(0))),
};

const readable = (context: Int32Array): string =>
  [...context].map((id) => (id === BOS ? "^" : String.fromCharCode(id))).join("");

async function all(documents: readonly string[], options: ContextOptions): Promise<string[]> {
  const found: string[] = [];
  for await (const context of contexts(Corpus.fromDocuments(documents), characters, options))
    found.push(readable(context));
  return found;
}

describe("contexts", () => {
  test("start with BOS, have BOS between documents, and go on with a document where the last one ended", async () => {
    const documents = ["abc", "defgh", "", "ij", "klmno"];
    expect(await all(documents, { contextSize: 4, prependBos: true })).toEqual([
      "^abc",
      "^def",
      "^gh^",
      "^ij^",
      "^klm",
    ]);
    expect(await all(documents, { contextSize: 4, prependBos: false })).toEqual(["abcd", "efgh", "ijkl"]);
    expect(await all(["abcdefg"], { contextSize: 2, prependBos: true })).toEqual([..."abcdefg"].map((c) => `^${c}`));
    expect(await all(["ab"], { contextSize: 1, prependBos: false })).toEqual(["a", "b"]);
  });

  test("say of each token which document it is from, BOS belonging to the text behind it, wherever they start", async () => {
    const documents = ["abc", "defgh", "", "ij", "klmno"];
    const cut = contexts(Corpus.fromDocuments(documents), characters, { contextSize: 4, prependBos: true });
    const found: number[][] = [];
    let third: typeof cut.position | undefined;
    for (let context = await cut.next(); context !== undefined; context = await cut.next()) {
      found.push([...cut.documents]);
      if (found.length === 2) third = cut.position;
    }
    expect(found).toEqual([
      [0, 0, 0, 0],
      [1, 1, 1, 1],
      [1, 1, 1, 3],
      [3, 3, 3, 4],
      [4, 4, 4, 4],
    ]);
    cut.seek(third!);
    await cut.next();
    expect([...cut.documents]).toEqual(found[2]);
  });

  test("a BOS that the text has itself is not doubled", async () => {
    expect(await all(["^ab", "^cd", "e^fg"], { contextSize: 4, prependBos: true })).toEqual(["^ab^", "^cd^", "^e^f"]);
  });

  test("are what SAELens' concat_and_batch_sequences makes", async () => {
    // Its algorithm, sequence by sequence: first token of a batch and separator are BOS, both only where missing.
    const saeLens = (sequences: readonly (readonly number[])[], size: number): number[][] => {
      const batches: number[][] = [];
      let batch: number[] | undefined;
      for (const tokens of sequences) {
        let offset = 0;
        while (offset < tokens.length) {
          const isSeparated: boolean = batch === undefined || offset === 0;
          const prefix: number[] = isSeparated && tokens[offset] !== BOS ? [BOS] : [];
          const before: number[] = batch ?? [];
          const needed = Math.max(size - before.length - prefix.length, 0);
          batch = [...before, ...prefix.slice(0, size - before.length), ...tokens.slice(offset, offset + needed)];
          offset += needed;
          if (batch.length === size) {
            batches.push(batch);
            batch = undefined;
          }
        }
      }
      return batches;
    };
    const document = fc.string({ unit: fc.constantFrom("a", "b", "^"), maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(document, { maxLength: 8 }),
        fc.integer({ min: 2, max: 7 }),
        async (documents, size) => {
          const expected = saeLens(
            documents.map((text) => [...characters.encode(text)]),
            size,
          );
          fc.pre(expected.length > 0);
          const found = await all(documents, { contextSize: size, prependBos: true });
          expect(found).toEqual(expected.map((context) => readable(Int32Array.from(context))));
        },
      ),
    );
  });

  test("repeat without end when asked, each pass like the first", async () => {
    const repeated = contexts(Corpus.fromDocuments(["abc", "de"]), characters, {
      contextSize: 3,
      prependBos: true,
      repeat: true,
    });
    const found: string[] = [];
    for (let i = 0; i < 5; i++) found.push(readable((await repeated.next())!));
    expect(found).toEqual(["^ab", "^c^", "^de", "^ab", "^c^"]);
    expect(repeated.position.epoch).toBe(1);
  });

  test("continue after any context exactly as without the interruption", async () => {
    const long = "word and more words\n".repeat(1000);
    const corpus = Corpus.fromDocuments(["abc", long, "", "xyz"]);
    for (const contextSize of [2, 7, 1000]) {
      const options = { contextSize, prependBos: true, repeat: true };
      const straight = new Contexts(corpus, characters, options);
      const total = contextSize === 1000 ? 60 : 40;
      const expected: { text: string; position: string }[] = [];
      for (let i = 0; i < total; i++) {
        const position = JSON.stringify(straight.position);
        expected.push({ position, text: readable((await straight.next())!) });
      }
      for (let i = 0; i < total; i += 7) {
        const resumed = new Contexts(corpus, characters, options);
        resumed.seek(JSON.parse(expected[i]!.position));
        for (const { text } of expected.slice(i, i + 9)) expect(readable((await resumed.next())!)).toBe(text);
      }
    }
  });

  test("a corpus shorter than one context is an error, repeating or not", async () => {
    for (const documents of [[], ["", ""], ["ab"]]) {
      for (const repeat of [true, false]) {
        const failure = all(documents, { contextSize: 4, prependBos: true, repeat });
        await expect(failure).rejects.toMatchObject({ code: "ERR_CONFIG" });
        await expect(failure).rejects.toThrow(`${documents.join("").length} tokens`);
      }
    }
  });

  test("impossible options are refused", () => {
    const corpus = Corpus.fromDocuments(["abc"]);
    const make = (contextSize: number, prependBos: boolean, tokenizer = characters) =>
      contexts(corpus, tokenizer, { contextSize, prependBos });
    for (const size of [0, -1, 1.5, Number.NaN]) expect(() => make(size, false)).toThrow("contextSize");
    expect(() => make(1, true)).toThrow("at least 2 (BOS and a token)");
    expect(() => make(4, true, { ...characters, bosTokenId: undefined })).toThrow("no BOS token");
  });

  test("an abort is reported, and the contexts can be continued after it", async () => {
    const options = { contextSize: 3, prependBos: false };
    const interrupted = contexts(Corpus.fromDocuments(["abcdef"]), characters, options);
    await expect(interrupted.next(AbortSignal.abort("enough"))).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(readable((await interrupted.next())!)).toBe("abc");
    await expect(interrupted.next(AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(readable((await interrupted.next())!)).toBe("def");
    expect(await interrupted.next()).toBeUndefined();
    expect(await interrupted.next()).toBeUndefined();
  });
});
