import { decoderFamily } from "./decoder.js";
import type { Family } from "./family.js";

/**
 * Gemma 2 (Riviere et al. 2024, arXiv:2408.00118): norms behind attention and MLP as well, capped scores and logits,
 * every other layer a sliding window, norms stored less 1, embeddings scaled.
 */
export const gemma2: Family = decoderFamily({
  architecture: "gemma2",
  title: "Gemma 2",
  activation: "gelu_pytorch_tanh",
  tiedByDefault: true,
  headSize: 256,
  biases: ({ attention_bias }) => ({
    queriesKeysValues: attention_bias,
    attentionOutput: attention_bias,
    mlp: false,
  }),
  slides: (_, layer) => layer % 2 === 0,
  postNorms: true,
  normOffset: 1,
  scaledEmbeddings: true,
});
