/** Chat templates, and where in a text its tokens stand. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Tokenizer } from "../../lib/models/tokenizer.js";
import { copyModel } from "./families.js";
import { tinyGpt2Directory } from "./tinyGpt2.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-chat-"));
});
afterAll(() => rm(folder, { recursive: true }));

// Roles between bars, one turn a line.
const template =
  "{{ bos_token }}{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}" +
  "<|{{ message.role }}|>{{ message.content | trim }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

async function tokenizerWith(files: Record<string, string>): Promise<Tokenizer> {
  const directory = await mkdtemp(join(folder, "t-"));
  await copyModel("gpt2", directory);
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return await Tokenizer.load(directory);
}

const conversation = [
  { role: "system", content: "Be brief. " },
  { role: "user", content: "Hello" },
];

test("a conversation becomes the text of its model's template, wherever that stands", async () => {
  const expected = "A<|system|>Be brief.\n<|user|>Hello\n<|assistant|>";
  const config = { bos_token: { content: "A", special: true }, eos_token: "B" };
  const named = [
    { name: "tools", template: "not this one" },
    { name: "default", template },
  ];
  const places = [
    { "tokenizer_config.json": JSON.stringify({ ...config, chat_template: template }) },
    { "tokenizer_config.json": JSON.stringify({ ...config, chat_template: named }) },
    { "tokenizer_config.json": JSON.stringify({ ...config, chat_template: "older" }), "chat_template.jinja": template },
  ];
  for (const files of places) expect((await tokenizerWith(files)).chatText(conversation)).toBe(expected);
  const tokenizer = await tokenizerWith(places[0]!);
  expect(tokenizer.chatText(conversation, { addGenerationPrompt: false })).not.toContain("assistant");
});

test("no template, a malformed one, and one that refuses are errors", async () => {
  const plain = await tokenizerWith({});
  expect(() => plain.chatText(conversation)).toThrow(expect.objectContaining({ code: "ERR_UNSUPPORTED" }));
  await expect(tokenizerWith({ "chat_template.jinja": "{% for %}" })).rejects.toMatchObject({
    code: "ERR_FORMAT",
    message: expect.stringContaining("chat_template.jinja"),
  });
  const tokenizer = await tokenizerWith({ "chat_template.jinja": template });
  expect(() => tokenizer.chatText([{ role: "tool", content: "x" }])).toThrow(
    expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining("no tools") }),
  );
});

test.each([
  ["{% for i in range(1000000000) %}x{% endfor %}", "range() of 1000000000 numbers, over 100000"],
  ["{{ range(0, 5, 0.000001) }}", "range() of 5000000 numbers, over 100000"],
  ["{{ range(5, 0, 0) }}", "range() of"],
  ["{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "more than 500000 steps"],
  ["{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}", "more than 500000 steps"],
  ["{% set r = range(100000) %}{% for i in r %}{% for j in r if j in r %}{% endfor %}{% endfor %}", "500000 steps"],
  ["{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "500000 steps"],
  [
    "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "a text of more than 16777216 characters",
  ],
])("a template without end is refused: %s", async (source, problem) => {
  const tokenizer = await tokenizerWith({ "chat_template.jinja": source });
  expect(() => tokenizer.chatText(conversation)).toThrow(
    expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(problem) }),
  );
});

test("a template of a million characters is refused before it is parsed", async () => {
  for (const length of [1_000_001, 4_000_001]) {
    await expect(tokenizerWith({ "chat_template.jinja": "x".repeat(length) })).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(/chat_template\.jinja: the chat template has more than 1000000 characters/),
    });
  }
});

test("a template may count, ask the date and look back in a long conversation", async () => {
  const tokenizer = await tokenizerWith({
    "chat_template.jinja":
      "{{ range(3) | join }}{{ range(4, 0, -2) | join }}{{ strftime_now('%Y') | length }}{{ True }}{{ none is none }}" +
      "{% for m in messages %}{% if loop.index0 == 0 or messages[loop.index0 - 1].role != m.role %}{{ m.role[0] }}" +
      "{% endif %}{% if loop.index == messages | length %}{{ m.content }}{% endif %}{% endfor %}",
  });
  const long = Array.from({ length: 3000 }, (_, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content: `${i}` }));
  expect(tokenizer.chatText(long)).toBe(`012424truetrue${"ua".repeat(1500)}2999`);
});

test("offsets cover a text without gaps, whatever its characters", async () => {
  const tokenizer = await Tokenizer.load(tinyGpt2Directory);
  const texts = fc.oneof(
    fc.string({ unit: "grapheme" }),
    fc.string({ unit: fc.constantFrom("é", "😀", " a", "\n", "<|endoftext|>") }),
  );
  fc.assert(
    fc.property(texts, (text) => {
      const { ids, offsets } = tokenizer.encodeWithOffsets(text);
      expect(ids).toEqual(tokenizer.encode(text));
      let covered = 0;
      for (const [start, end] of offsets) {
        expect(start).toBeLessThanOrEqual(covered);
        expect(end).toBeGreaterThan(start);
        covered = Math.max(covered, end);
      }
      expect(covered).toBe(text.length);
    }),
  );
});

test("a token's offsets are where its text stands", async () => {
  const tokenizer = await Tokenizer.load(tinyGpt2Directory);
  const text = "The king said nothing; the king laughed. 😀!";
  const { ids, offsets } = tokenizer.encodeWithOffsets(text);
  for (const [i, [start, end]] of offsets.entries()) {
    const token = tokenizer.tokenText(ids[i]!);
    if (!token.includes("\\x")) expect(text.slice(start, end)).toBe(token);
    else expect(text.slice(start, end)).toContain("😀");
  }
});

test("a tokenizer that changes texts has no offsets", async () => {
  const directory = await mkdtemp(join(folder, "lower-"));
  await copyModel("gpt2", directory);
  const vocab = Object.fromEntries([..."abc"].map((letter, i) => [letter, i]));
  const definition = {
    version: "1.0",
    added_tokens: [],
    normalizer: { type: "Lowercase" },
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab, merges: [] },
  };
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(definition));
  const tokenizer = await Tokenizer.load(directory);
  expect(tokenizer.encodeWithOffsets("abc").offsets).toHaveLength(3);
  expect(() => tokenizer.encodeWithOffsets("aBc")).toThrow(expect.objectContaining({ code: "ERR_UNSUPPORTED" }));
});

test("pieces of SentencePiece vocabularies stand for text with spaces, and for bytes", async () => {
  const directory = await mkdtemp(join(folder, "pieces-"));
  await copyModel("gpt2", directory);
  const tokens = ["<unk>", "\u2581", "a", "b", "\u2581a", "<0xC3>", "<0xA9>"];
  const definition = {
    version: "1.0",
    added_tokens: [],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "\u2581" },
        { type: "Replace", pattern: { String: " " }, content: "\u2581" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, i) => [token, i])),
      merges: [["\u2581", "a"]],
    },
  };
  await writeFile(join(directory, "tokenizer.json"), JSON.stringify(definition));
  const tokenizer = await Tokenizer.load(directory);
  const { ids, offsets } = tokenizer.encodeWithOffsets("ab aé");
  expect(tokenizer.tokenTexts(ids)).toEqual([" a", "b", " a", "\\xC3", "\\xA9"]);
  expect(offsets).toEqual([
    [0, 1],
    [1, 2],
    [2, 4],
    [4, 5],
    [4, 5],
  ]);
});
