import { decoderFamily } from "./decoder.js";
import type { Family } from "./family.js";

/** Llama 2 and 3 (Touvron et al. 2023, arXiv:2307.09288; Grattafiori et al. 2024, arXiv:2407.21783). */
export const llama: Family = decoderFamily({
  architecture: "llama",
  title: "Llama",
  activation: "silu",
  tiedByDefault: false,
  biases: ({ attention_bias, mlp_bias }) => ({
    queriesKeysValues: attention_bias,
    attentionOutput: attention_bias,
    mlp: mlp_bias,
  }),
  slides: () => false,
});
