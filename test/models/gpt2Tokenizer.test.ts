/**
 * GPT-2's own vocabulary against the ids that llama.cpp publishes for its strings. Runs where the files are at hand
 * (OpenAI's encoder.json and vocab.bpe, llama.cpp's ggml-vocab-gpt-2 test strings; both MIT).
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Tokenizer } from "../../lib/models/tokenizer.js";

const directory = fileURLToPath(new URL("../../../shared/data/tokenizers/", import.meta.url));
const read = (path: string): Promise<string> => readFile(join(directory, path), "utf8");

async function gpt2Tokenizer(): Promise<Tokenizer> {
  const vocab = JSON.parse(await read("gpt2/encoder.json"));
  const merges = (await read("gpt2/vocab.bpe")).split("\n").slice(1).filter(Boolean);
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const definition = {
    version: "1.0",
    added_tokens: [{ id: 50256, content: "<|endoftext|>", special: true, normalized: true }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges },
  };
  const folder = await mkdtemp(join(tmpdir(), "monosem-gpt2-tokenizer-"));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(definition));
  await writeFile(join(folder, "config.json"), JSON.stringify({ bos_token_id: 50256, eos_token_id: 50256 }));
  try {
    return await Tokenizer.load(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test.runIf(existsSync(directory))("GPT-2's vocabulary gives llama.cpp's ids, and the text comes back", async () => {
  const tokenizer = await gpt2Tokenizer();
  expect([tokenizer.bosTokenId, tokenizer.vocabularySize]).toEqual([50256, 50257]);
  const texts = (await read("llamacpp-tests/ggml-vocab-gpt-2.gguf.inp")).split("\n__ggml_vocab_test__\n").slice(0, -1);
  const ids = (await read("llamacpp-tests/ggml-vocab-gpt-2.gguf.out")).split("\n").slice(0, texts.length);
  for (const [i, text] of texts.entries()) {
    const expected = ids[i]!.split(" ").filter(Boolean).map(Number);
    expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(expected);
    expect(tokenizer.decode(expected)).toBe(text);
  }
  expect(texts.length).toBe(46);
});
