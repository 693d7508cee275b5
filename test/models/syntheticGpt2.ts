import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors } from "../../lib/formats/safetensors.js";

export interface NamedTensor {
  shape: number[];
  data: Float32Array;
}
export type Weights = Record<string, NamedTensor>;

/** A GPT-2 of sizes that are all different, with an own MLP width. */
export const syntheticConfig = {
  model_type: "gpt2",
  n_layer: 2,
  n_head: 3,
  n_embd: 12,
  n_positions: 8,
  n_inner: 20,
  vocab_size: 7,
  activation_function: "gelu_new",
  layer_norm_epsilon: 1e-5,
  tie_word_embeddings: true,
};

/** Weights in Hugging Face's names (without prefix) and Conv1D layout; multiples of 1/64, exact in f16 and bf16. */
export function syntheticWeights(): Weights {
  const { n_embd: d, n_inner: inner, n_layer, n_positions, vocab_size } = syntheticConfig;
  let state = 1;
  const random = (shape: number[], centre = 0): NamedTensor => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
      state = (state * 48271) % 2147483647;
      return centre + ((state % 101) - 50) / 64;
    }),
  });
  const weights: Weights = { "wte.weight": random([vocab_size, d]), "wpe.weight": random([n_positions, d]) };
  for (let layer = 0; layer < n_layer; layer++) {
    const h = `h.${layer}`;
    for (const norm of ["ln_1", "ln_2"]) {
      weights[`${h}.${norm}.weight`] = random([d], 1);
      weights[`${h}.${norm}.bias`] = random([d]);
    }
    for (const [name, inputs, outputs] of [
      ["attn.c_attn", d, 3 * d],
      ["attn.c_proj", d, d],
      ["mlp.c_fc", d, inner],
      ["mlp.c_proj", inner, d],
    ] as const) {
      weights[`${h}.${name}.weight`] = random([inputs, outputs]);
      weights[`${h}.${name}.bias`] = random([outputs]);
    }
  }
  weights["ln_f.weight"] = random([d], 1);
  weights["ln_f.bias"] = random([d]);
  return weights;
}

/** Writes a model's folder; its tokenizer knows the letters A, B, ... as tokens. */
export async function writeGpt2(
  folder: string,
  config: Record<string, unknown>,
  tensors: Parameters<typeof writeSafetensors>[1],
  letters = 3,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const vocab = Object.fromEntries(Array.from({ length: letters }, (_, i) => [String.fromCharCode(65 + i), i]));
  const tokenizer = {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab, merges: [] },
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
}

/** The logits of one sequence by plain loops in f64. */
export function plainLogits(
  weights: Weights,
  ids: readonly number[],
  options: { activation: (x: number) => number; attentionScale: (layer: number) => number },
): number[] {
  const { n_embd: d, n_head: heads, n_layer } = syntheticConfig;
  const dHead = d / heads;
  const data = (name: string): Float32Array => weights[name]!.data;
  const conv1d = (x: number[], name: string): number[] =>
    Array.from(data(`${name}.bias`), (bias, j) => {
      const outputs = weights[`${name}.bias`]!.data.length;
      return x.reduce((sum, value, i) => sum + value * data(`${name}.weight`)[i * outputs + j]!, bias);
    });
  const layerNorm = (x: number[], name: string): number[] => {
    const mean = x.reduce((sum, value) => sum + value, 0) / d;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / d;
    return x.map(
      (value, i) =>
        ((value - mean) / Math.sqrt(variance + 1e-5)) * data(`${name}.weight`)[i]! + data(`${name}.bias`)[i]!,
    );
  };
  const plus = (a: number[], b: number[]): number[] => a.map((value, i) => value + b[i]!);
  let x = ids.map((id, position) =>
    Array.from({ length: d }, (_, i) => data("wte.weight")[id * d + i]! + data("wpe.weight")[position * d + i]!),
  );
  for (let layer = 0; layer < n_layer; layer++) {
    const h = `h.${layer}`;
    const qkv = x.map((row) => conv1d(layerNorm(row, `${h}.ln_1`), `${h}.attn.c_attn`));
    const z = qkv.map((_, query) =>
      Array.from({ length: heads }, (_, head) => {
        const part = (position: number, which: number): number[] =>
          qkv[position]!.slice(which * d + head * dHead, which * d + (head + 1) * dHead);
        const weightsOfKeys = Array.from({ length: query + 1 }, (_, key) => {
          const dot = part(query, 0).reduce((sum, value, i) => sum + value * part(key, 1)[i]!, 0);
          return Math.exp(dot * options.attentionScale(layer));
        });
        const total = weightsOfKeys.reduce((sum, value) => sum + value, 0);
        return Array.from({ length: dHead }, (_, i) =>
          weightsOfKeys.reduce((sum, weight, key) => sum + (weight / total) * part(key, 2)[i]!, 0),
        );
      }).flat(),
    );
    x = x.map((row, position) => plus(row, conv1d(z[position]!, `${h}.attn.c_proj`)));
    x = x.map((row) => {
      const hidden = conv1d(layerNorm(row, `${h}.ln_2`), `${h}.mlp.c_fc`).map(options.activation);
      return plus(row, conv1d(hidden, `${h}.mlp.c_proj`));
    });
  }
  const unembedding = weights["lm_head.weight"] ?? weights["wte.weight"]!;
  return x.flatMap((row) => {
    const normalized = layerNorm(row, "ln_f");
    return Array.from({ length: unembedding.shape[0]! }, (_, token) =>
      normalized.reduce((sum, value, i) => sum + value * unembedding.data[token * d + i]!, 0),
    );
  });
}
