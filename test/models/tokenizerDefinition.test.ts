/** Definitions of tokenizers that would give wrong ids, endless work or a failure without a name. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { Tokenizer } from "../../lib/models/tokenizer.js";
import { tinyGpt2Directory } from "./tinyGpt2.js";

/** What is tried below knows its shape. */
interface Definition {
  // biome-ignore lint/suspicious/noExplicitAny: the tests put what does not belong there
  [key: string]: any;
}

let folder: string;
let text: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-tokenizer-"));
  text = await readFile(join(tinyGpt2Directory, "tokenizer.json"), "utf8");
});
afterAll(() => rm(folder, { recursive: true }));

async function loadWith(change: (definition: Definition) => void): Promise<Tokenizer> {
  const definition = JSON.parse(text);
  change(definition);
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(definition));
  return await Tokenizer.load(folder);
}

const renumber = (definition: Definition, id: (old: number) => unknown): void => {
  const { vocab } = definition.model;
  for (const token in vocab) vocab[token] = id(vocab[token]);
};
const unigram = (vocab: unknown, rest: object = {}) => ({ type: "Unigram", unk_id: 0, vocab, ...rest });
const replace = (pattern: unknown, content: unknown) => ({ type: "Replace", pattern, content });

describe("is refused with the file's name and the entry: ", () => {
  test.each<[string, (definition: Definition) => void, RegExp]>([
    ["one id for all", (d) => renumber(d, () => 7), /the tokens ".*" and ".*" have the same id 7/],
    ["ids as text", (d) => renumber(d, String), /the id of token ".*" must be an integer .*, found "\d+"/],
    ["fractional ids", (d) => renumber(d, (id) => id + 0.5), /the id of token .* must be an integer from 0 to/],
    ["negative ids", (d) => renumber(d, (id) => -id), /the id of token .* must be an integer .*, found -\d/],
    ["an id of 1e9", (d) => (d.model.vocab.zzzz = 1e9), /the id of token "zzzz" .* to 4194304, found 1000000000/],
    [
      "an added id of 1e8",
      (d) => d.added_tokens.push({ id: 1e8, content: "<x>", special: true }),
      /the id of token "<x>" .* to 4194304, found 100000000/,
    ],
    [
      "an added token in place of another",
      (d) => d.added_tokens.push({ id: 300, content: "<x>", special: true }),
      /the tokens ".*" and "<x>" have the same id 300/,
    ],
    ["an added id as text", (d) => d.added_tokens.push({ id: "1", content: "<x>" }), /the id of token "<x>"/],
    ["an added token without text", (d) => d.added_tokens.push({ id: 5000 }), /added_tokens\.1\.content must be text/],
    ["added tokens as an object", (d) => (d.added_tokens = { a: 1 }), /added_tokens must be a list, found \{"a":1\}/],
    [
      "added tokens without end",
      (d) => d.added_tokens.push({ id: 5000, content: "x".repeat(2 ** 20) }),
      /the added tokens have more than 1048576 characters/,
    ],
    [
      "a vocabulary as a list",
      (d) => (d.model.vocab = Object.entries(d.model.vocab)),
      /model\.vocab must be an object/,
    ],
    ["no vocabulary", (d) => (d.model.vocab = null), /model\.vocab must be an object .*, found null/],
    ["no model", (d) => (d.model = null), /model must be an object, found null/],
    ["no merges", (d) => (d.model.merges = null), /model\.merges must be a list, found null/],
    ["merges that are no pairs", (d) => (d.model.merges = [1, 2]), /model\.merges\.0 must be a pair of tokens, with a/],
    ["merges of three", (d) => (d.model.merges = ["a b c"]), /model\.merges\.0 must be a pair/],
    ["merges of both forms", (d) => (d.model.merges = [["t", "h"], "a b"]), /model\.merges\.1 must be .* as a list/],
    ["merges of missing tokens", (d) => d.model.merges.unshift("T zq"), /model\.merges\.0 is of "zq", which the voc/],
    ["a unigram vocabulary of ids", (d) => (d.model.type = "Unigram"), /model\.vocab must be a list of pairs/],
    ["an empty one", (d) => (d.model = unigram([])), /model\.vocab must be a list that is not empty/],
    ["one without scores", (d) => (d.model = unigram([["a", 0], ["b"]])), /model\.vocab\.1 must be a pair of a token/],
    [
      "an unknown token beyond it",
      (d) => (d.model = unigram([["a", 0]], { unk_id: 1 })),
      /unk_id must be an id below 1/,
    ],
    [
      "word pieces without a prefix",
      (d) => (d.model = { type: "WordPiece", vocab: { a: 0 }, unk_token: "a" }),
      /prefix/,
    ],
    [
      "a split without a pattern",
      (d) => (d.pre_tokenizer = { type: "Split", behavior: "Isolated" }),
      /pattern must be/,
    ],
    [
      "a split by nothing",
      (d) => (d.pre_tokenizer = { type: "Split", behavior: "Isolated", pattern: { String: "" } }),
      /pre_tokenizer\.pattern must be a "Regex" or a "String" that is not empty, found \{"String":""\}/,
    ],
    [
      "a malformed regular expression",
      (d) => (d.pre_tokenizer = { type: "Split", behavior: "Isolated", pattern: { Regex: "([" } }),
      /tokenizer\.json does not describe a tokenizer: /,
    ],
    [
      "a replacement without content",
      (d) => (d.normalizer = replace({ String: "a" }, null)),
      /normalizer\.content must/,
    ],
    ["pieces of no length", (d) => (d.pre_tokenizer = { type: "FixedLength", length: 0 }), /length must be a positive/],
    ["an unknown step", (d) => (d.pre_tokenizer = { type: "__proto__" }), /Unknown PreTokenizer type: __proto__/],
    [
      "a sequence of nothing",
      (d) => (d.decoder = { type: "Sequence", decoders: [null] }),
      /decoder\.decoders\.0 must be an object with a type, found null/,
    ],
    [
      "replacements that double a text 40 times",
      (d) => (d.normalizer = { type: "Sequence", normalizers: Array(40).fill(replace({ String: "k" }, "kk")) }),
      /normalizer\.normalizers\.9 and the steps before it could make a text more than 1000 times as long/,
    ],
    [
      "steps without end",
      (d) => (d.normalizer = { type: "Sequence", normalizers: Array(200).fill({ type: "NFC" }) }),
      /normalizer\.normalizers\.199 is one of more than 200 steps/,
    ],
  ])("%s", async (_, change, problem) => {
    await expect(loadWith(change)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(problem),
    });
    await expect(loadWith(change)).rejects.toThrow(`${folder}/tokenizer.json does not describe a tokenizer: `);
  });

  test("a regular expression that could take forever", async () => {
    const steps = [
      (d: Definition) => (d.pre_tokenizer = { type: "Split", behavior: "Isolated", pattern: { Regex: "(?:a+)+$" } }),
      (d: Definition) => (d.normalizer = replace({ Regex: "(a|a)*b" }, "")),
      (d: Definition) => (d.decoder = { type: "Sequence", decoders: [replace({ Regex: "(a*)*b" }, "")] }),
    ];
    for (const change of steps) {
      await expect(loadWith(change)).rejects.toMatchObject({
        code: "ERR_UNSUPPORTED",
        message: expect.stringMatching(/tokenizer\.json: .*pattern repeats what can itself match in several ways/),
      });
    }
  });
});

test("what only fails when it is run is an error with the file's name", async () => {
  const tokenizer = await loadWith((d) => {
    Object.assign(d, { normalizer: null, pre_tokenizer: null, model: unigram([["a", 0]]), added_tokens: [] });
  });
  // The library puts all pieces of a text without pre-tokens onto the stack.
  const failing = (): number[] => tokenizer.encode("a".repeat(300_000));
  expect(failing).toThrow(MonosemError);
  expect(failing).toThrow(`${folder}/tokenizer.json: the tokenizer fails: `);
});

describe("what real files do is read: ", () => {
  const text = "The king said";
  let ids: number[];
  beforeAll(async () => {
    ids = (await loadWith(() => {})).encode(text);
  });

  test("merges as text, ids with gaps, an unknown post-processor, hundreds of thousands of tokens", async () => {
    const tokenizer = await loadWith((d) => {
      d.model.merges = d.model.merges.map((merge: string[]) => merge.join(" "));
      for (let i = 0; i < 300_000; i++) d.model.vocab[`zz${i}`] = 10_000 + 2 * i;
      d.post_processor = { type: "TemplateProcessing", single: [] };
    });
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(tokenizer.vocabularySize).toBe(10_000 + 2 * 299_999 + 1);
  });

  test("an added token that the vocabulary has, at another id", async () => {
    const tokenizer = await loadWith((d) => d.added_tokens.push({ id: 9000, content: "!", special: false }));
    expect(tokenizer.encode("!")).toEqual([9000]);
    expect(tokenizer.vocabularySize).toBe(9001);
  });

  test("pieces of SentencePiece: a prefix, spaces as U+2581, bytes", async () => {
    const tokenizer = await loadWith((d) => {
      d.normalizer = {
        type: "Sequence",
        normalizers: [{ type: "Prepend", prepend: "\u2581" }, replace({ String: " " }, "\u2581")],
      };
      d.pre_tokenizer = null;
      d.model = unigram([
        ["<unk>", 0],
        ["\u2581the", -1],
        ["\u2581king", -2],
        ["\u2581", -3],
      ]);
      d.added_tokens = [{ id: 0, content: "<unk>", special: true }];
      d.decoder = {
        type: "Sequence",
        decoders: [
          replace({ String: "\u2581" }, " "),
          { type: "ByteFallback" },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      };
    });
    expect(tokenizer.encode("the king")).toEqual([1, 2]);
    expect(tokenizer.decode([1, 2])).toBe("the king");
  });
});
