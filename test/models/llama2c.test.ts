/** llama2.c's checkpoints and tokenizers: the stories that their author published, and files that are none. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Tokenizer } from "../../lib/models/tokenizer.js";
import { testDevice } from "../testDevice.js";
import { relativeError } from "./tinyGpt2.js";

const shared = fileURLToPath(new URL("../../../shared/data/", import.meta.url));
const stories = join(shared, "models/stories260K");
const available = existsSync(stories);

let device: Device;
let folder: string;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  folder = await mkdtemp(join(tmpdir(), "monosem-llama2c-"));
});
afterAll(async () => {
  await device.close();
  await rm(folder, { recursive: true });
});

describe.runIf(available)("stories260K", () => {
  const load = (file: string): Promise<HookedTransformer> =>
    HookedTransformer.load(join(stories, file), device, { tokenizer: join(stories, "tok512.bin") });
  async function golden() {
    return JSON.parse(await readFile(join(shared, "golden/stories260K_golden.json"), "utf8"));
  }

  test.each(["stories260K.bin", "stories260K_v1.bin"])("%s tells the known story, token for token", async (file) => {
    const { prompt, token_ids: promptIds, greedy_200_steps_ids: ids, greedy_200_steps_text: text } = await golden();
    using model = await load(file);
    expect(model.tokenizer.encode(prompt)).toEqual(promptIds.slice(1));
    const [tokens] = await model.generate([1], { maxNewTokens: 200, temperature: 0, stopAtEos: false });
    expect(tokens).toEqual(ids);
    expect(model.tokenizer.decode(tokens!.slice(1)).startsWith(text)).toBe(true);
  });

  test("activations and logits are those of an independent implementation", async () => {
    const { token_ids: ids, logits_last: logits, resid_post: residuals } = await golden();
    using model = await load("stories260K.bin");
    const { output, cache } = await model.runWithCache([ids], { names: (name) => name.endsWith("hook_resid_post") });
    expect(relativeError((await output.readFloat32()).subarray(-512), logits)).toBeLessThan(1e-4);
    for (let layer = 0; layer < 5; layer++) {
      const found = await cache.get(`blocks.${layer}.hook_resid_post`)!.readFloat32();
      expect(relativeError(found, residuals[`layer${layer}`].flat())).toBeLessThan(1e-4);
    }
  });

  test("the tokenizer gives the known ids, and the texts come back", async () => {
    const { tokenizer_examples: examples } = await golden();
    const tokenizer = await Tokenizer.load(join(stories, "tok512.bin"));
    for (const [text, ids] of Object.entries<number[]>(examples)) {
      expect([1, ...tokenizer.encode(text)]).toEqual(ids);
      expect(tokenizer.decode(ids.slice(1))).toBe(text);
      const { offsets } = tokenizer.encodeWithOffsets(text);
      expect(offsets[0]![0]).toBe(0);
      expect(offsets.at(-1)![1]).toBe(text.length);
    }
    expect(tokenizer.tokenTexts([1, 403, 198, 999])).toEqual(["<s>", " Once", "\\xC3", "[999]"]);
  });
});

/** A vocabulary of all bytes and a few pieces, as llama2.c writes it. */
function tokenizerBytes(pieces: readonly (readonly [string, number])[] = []): Buffer {
  const all: (readonly [string, number])[] = [
    ["<unk>", 0],
    ["\n<s>\n", 0],
    ["\n</s>\n", 0],
    ...Array.from({ length: 256 }, (_, i) => [`<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`, 0] as const),
    ...pieces,
  ];
  const parts = all.map(([piece, score]) => {
    const head = Buffer.alloc(8);
    head.writeFloatLE(score, 0);
    head.writeInt32LE(Buffer.byteLength(piece), 4);
    return Buffer.concat([head, Buffer.from(piece)]);
  });
  return Buffer.concat([Buffer.from([7, 0, 0, 0]), ...parts]);
}

test("the tokenizer joins the best pair first, the leftmost of equals, and spells what it lacks in bytes", async () => {
  const path = join(folder, "pieces.bin");
  const pieces = [
    [" ", -9],
    ["a", -9],
    ["b", -9],
    ["ab", -2],
    ["ba", -1],
    ["aa", -3],
    ["é", -9],
  ] as const;
  await writeFile(path, tokenizerBytes(pieces));
  const tokenizer = await Tokenizer.load(path);
  const names = (text: string): string[] => tokenizer.tokenTexts(tokenizer.encode(text));
  expect(names("aba")).toEqual([" ", "a", "ba"]); // "ba" scores more than "ab"
  expect(names("aaa")).toEqual([" ", "aa", "a"]);
  expect(names("é→")).toEqual([" ", "é", "\\xE2", "\\x86", "\\x92"]);
  expect(tokenizer.decode(tokenizer.encode("é→ ab"))).toBe("é→ ab");
  expect(tokenizer.encodeWithOffsets("é→a").offsets).toEqual([
    [0, 0],
    [0, 1],
    [1, 2],
    [1, 2],
    [1, 2],
    [2, 3],
  ]);
});

const sizes = { dim: 12, hidden: 20, layers: 2, heads: 3, keyHeads: 1, vocabulary: 259, context: 16 };

/** The same random model as llama2.c's two versions and as a Hugging Face checkpoint. */
async function writeModels(): Promise<{ version0: string; version1: string; huggingFace: string }> {
  const { dim, hidden, layers, heads, keyHeads, vocabulary, context } = sizes;
  const dHead = dim / heads;
  let state = 7;
  const random = (count: number): Float32Array =>
    Float32Array.from({ length: count }, () => {
      state = (state * 48271) % 2147483647;
      return state / 2147483647 - 0.5;
    });
  const each = (count: number): Float32Array[] => Array.from({ length: layers }, () => random(count));
  const w = {
    embedding: random(vocabulary * dim),
    unembedding: random(vocabulary * dim),
    ln1: each(dim),
    ln2: each(dim),
    final: random(dim),
    q: each(dim * dim),
    k: each(keyHeads * dHead * dim),
    v: each(keyHeads * dHead * dim),
    o: each(dim * dim),
    gate: each(hidden * dim),
    down: each(dim * hidden),
    up: each(hidden * dim),
  };
  const angles = new Float32Array(context * dHead);
  const header = (own: number): Buffer => {
    const numbers = [dim, hidden, layers, heads, keyHeads, own * vocabulary, context];
    return Buffer.from(Int32Array.from(numbers).buffer);
  };
  const bytes = (parts: readonly Float32Array[]): Buffer =>
    Buffer.concat(parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength)));
  const projections = [...w.q, ...w.k, ...w.v, ...w.o];
  const mlp = [...w.gate, ...w.down, ...w.up];
  const version0 = join(folder, "version0.bin");
  await writeFile(
    version0,
    Buffer.concat([
      header(-1),
      bytes([w.embedding, ...w.ln1, ...projections, ...w.ln2, ...mlp, w.final, angles, w.unembedding]),
    ]),
  );
  const version1 = join(folder, "version1.bin");
  const head1 = Buffer.alloc(256);
  Buffer.from("24ka").copy(head1);
  head1.writeInt32LE(1, 4);
  header(1).copy(head1, 8);
  await writeFile(
    version1,
    Buffer.concat([head1, bytes([...w.ln1, ...w.ln2, w.final, w.embedding, ...projections, ...mlp, w.unembedding])]),
  );
  await writeFile(join(folder, "tokenizer.bin"), tokenizerBytes());

  // Hugging Face turns element i of a head with element i + half, llama2.c 2i with 2i + 1.
  const halves = (rows: Float32Array): Float32Array =>
    rows.map((_, at) => {
      const [row, column] = [Math.floor(at / dim), at % dim];
      const [head, i] = [Math.floor(row / dHead), row % dHead];
      const from = i < dHead / 2 ? 2 * i : 2 * (i - dHead / 2) + 1;
      return rows[(head * dHead + from) * dim + column]!;
    });
  const huggingFace = await mkdtemp(join(folder, "hf-"));
  const tensors: Record<string, { shape: number[]; data: Float32Array }> = {
    "model.embed_tokens.weight": { shape: [vocabulary, dim], data: w.embedding },
    "lm_head.weight": { shape: [vocabulary, dim], data: w.unembedding },
    "model.norm.weight": { shape: [dim], data: w.final },
  };
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const linear = (name: string, rows: number, data: Float32Array): void => {
      tensors[`${at}.${name}.weight`] = { shape: [rows, data.length / rows], data };
    };
    tensors[`${at}.input_layernorm.weight`] = { shape: [dim], data: w.ln1[i]! };
    tensors[`${at}.post_attention_layernorm.weight`] = { shape: [dim], data: w.ln2[i]! };
    linear("self_attn.q_proj", dim, halves(w.q[i]!));
    linear("self_attn.k_proj", keyHeads * dHead, halves(w.k[i]!));
    linear("self_attn.v_proj", keyHeads * dHead, w.v[i]!);
    linear("self_attn.o_proj", dim, w.o[i]!);
    linear("mlp.gate_proj", hidden, w.gate[i]!);
    linear("mlp.up_proj", hidden, w.up[i]!);
    linear("mlp.down_proj", dim, w.down[i]!);
  }
  await writeSafetensors(join(huggingFace, "model.safetensors"), tensors);
  const config = {
    model_type: "llama",
    hidden_size: dim,
    intermediate_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyHeads,
    vocab_size: vocabulary,
    max_position_embeddings: context,
    rms_norm_eps: 1e-5,
  };
  await writeFile(join(huggingFace, "config.json"), JSON.stringify(config));
  return { version0, version1, huggingFace };
}

test("both versions are the Llama that Hugging Face's layout describes", async () => {
  const { version0, version1, huggingFace } = await writeModels();
  const tokens = [[1, 100, 3, 77, 258, 5, 100]];
  const logitsOf = async (path: string): Promise<Float32Array> => {
    using model = await HookedTransformer.load(path, device, { tokenizer: join(folder, "tokenizer.bin") });
    using logits = await model.forward(tokens);
    return await logits.readFloat32();
  };
  const expected = await logitsOf(huggingFace);
  expect(relativeError(await logitsOf(version0), expected)).toBeLessThan(1e-5);
  expect(relativeError(await logitsOf(version1), expected)).toBeLessThan(1e-5);
  using beside = await HookedTransformer.load(version0, device); // tokenizer.bin stands beside it
  expect([beside.config.name, beside.config.bosTokenId, beside.tokenizer.vocabularySize]).toEqual(["version0", 1, 259]);
});

test("what is no checkpoint, or a damaged one, is refused", async () => {
  const { version0, version1 } = await writeModels();
  const whole = await readFile(version0);
  const refused = async (bytes: Buffer): Promise<unknown> => {
    const path = join(folder, "damaged.bin");
    await writeFile(path, bytes);
    return await HookedTransformer.load(path, device).catch((error: unknown) => error);
  };
  const changed = (at: number, value: number, from = whole): Buffer => {
    const copy = Buffer.from(from);
    copy.writeInt32LE(value, at);
    return copy;
  };
  const cases: [Buffer, string, RegExp][] = [
    [Buffer.alloc(0), "ERR_FORMAT", /it has 0 bytes/],
    [whole.subarray(0, -4), "ERR_FORMAT", /has \d+ bytes, but its header asks for \d+/],
    [Buffer.concat([whole, Buffer.alloc(4)]), "ERR_FORMAT", /header asks for/],
    [changed(0, 0), "ERR_FORMAT", /dim is 0/],
    [changed(8, -3), "ERR_FORMAT", /n_layers is -3/],
    [changed(8, 2 ** 30), "ERR_FORMAT", /n_layers is/],
    [changed(8, 2 ** 24), "ERR_FORMAT", /header asks for/],
    [changed(12, 5), "ERR_FORMAT", /do not fit together/],
    [changed(20, 100), "ERR_FORMAT", /header asks for/],
    [changed(4, 2, await readFile(version1)), "ERR_UNSUPPORTED", /version 2 \(quantised\)/],
    [changed(28 + 40, 0x7fc00000), "ERR_NON_FINITE", /embedding of layer 0 holds NaN at element 10/],
  ];
  for (const [bytes, code, message] of cases) {
    expect(await refused(bytes)).toMatchObject({ code, message: expect.stringMatching(message) });
  }
  const larger = join(folder, "larger.bin");
  await writeFile(larger, tokenizerBytes([["a", 0]]));
  await expect(HookedTransformer.load(version0, device, { tokenizer: larger })).rejects.toMatchObject({
    code: "ERR_FORMAT",
    message: expect.stringMatching(/ids up to 259, .* vocab_size of 259/),
  });
  await expect(HookedTransformer.load(join(folder, "none.bin"), device)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
  });
});

test("what is no tokenizer, or a damaged one, is refused", async () => {
  const refused = async (bytes: Buffer): Promise<unknown> => {
    const path = join(folder, "damaged-tokenizer.bin");
    await writeFile(path, bytes);
    return await Tokenizer.load(path).catch((error: unknown) => error);
  };
  const whole = tokenizerBytes();
  const negative = Buffer.from(whole);
  negative.writeInt32LE(-1, 8);
  const long = Buffer.from(whole);
  long.writeInt32LE(2 ** 30, 8);
  for (const bytes of [Buffer.alloc(0), whole.subarray(0, -1), whole.subarray(0, 100), negative, long]) {
    expect(await refused(bytes)).toMatchObject({ code: "ERR_FORMAT" });
  }
  await expect(Tokenizer.load(join(folder, "none.bin"))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
});
