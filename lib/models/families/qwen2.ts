import { decoderFamily } from "./decoder.js";
import type { Family } from "./family.js";

/** Qwen 2 and 2.5 (Yang et al. 2024, arXiv:2407.10671): queries, keys and values have biases. */
export const qwen2: Family = decoderFamily({
  architecture: "qwen2",
  title: "Qwen2",
  activation: "silu",
  tiedByDefault: false,
  biases: () => ({ queriesKeysValues: true, attentionOutput: false, mlp: false }),
  slides: ({ use_sliding_window, max_window_layers = 28 }, layer) => use_sliding_window && layer >= max_window_layers,
});
