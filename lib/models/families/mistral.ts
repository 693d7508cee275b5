import { decoderFamily } from "./decoder.js";
import type { Family } from "./family.js";

/** Mistral 7B (Jiang et al. 2023, arXiv:2310.06825): every layer looks back through a sliding window. */
export const mistral: Family = decoderFamily({
  architecture: "mistral",
  title: "Mistral",
  activation: "silu",
  tiedByDefault: false,
  biases: () => ({ queriesKeysValues: false, attentionOutput: false, mlp: false }),
  slides: () => true,
});
