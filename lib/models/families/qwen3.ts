import { decoderFamily } from "./decoder.js";
import type { Family } from "./family.js";

/** Qwen 3 (Yang et al. 2025, arXiv:2505.09388): queries and keys are normalised head by head. */
export const qwen3: Family = decoderFamily({
  architecture: "qwen3",
  title: "Qwen3",
  activation: "silu",
  tiedByDefault: false,
  headSize: 128,
  biases: ({ attention_bias }) => ({
    queriesKeysValues: attention_bias,
    attentionOutput: attention_bias,
    mlp: false,
  }),
  slides: ({ use_sliding_window, max_window_layers = 28 }, layer) => use_sliding_window && layer >= max_window_layers,
  queryKeyNorms: true,
});
