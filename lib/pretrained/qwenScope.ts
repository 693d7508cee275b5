/**
 * Qwen Scope: TopK SAEs of Qwen 3, `layer5.sae.pt` in repositories such as `Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50`.
 *
 * z = W_enc x + b_enc, the k largest, then ReLU; W_enc [latents, dIn], W_dec [dIn, latents]. Nothing but the repository's
 * name says k (its L0), so the folder must have kept that name.
 */
import { checkedConfig, matrixShape, readWeights, unsupported } from "./publishedFormat.js";
import type { TorchFileFormat } from "./torchFiles.js";

export const qwenScope: TorchFileFormat = {
  name: "Qwen Scope",
  tensors: ["W_enc", "b_enc", "W_dec", "b_dec"],
  fileName: "layerN.sae.pt",
  fits: (location) => location.inPath(/\/layer(\d+)\.sae\.pt$/) !== undefined,

  async read(location, file) {
    const [model, k] = location.inPath(/\/SAE-Res-([^/]+)-W\d+K-L0_(\d+)(?:\/|$)/) ?? [];
    if (k === undefined) {
      throw unsupported(
        file.path,
        "no file says its k, only the name of its repository (SAE-Res-MODEL-W...K-L0_k), which is not in this path: name the " +
          "folder so",
      );
    }
    const [layer] = location.inPath(/\/layer(\d+)\.sae\.pt$/)!;
    const [dSae, dIn] = matrixShape(file, "W_enc");
    const config = checkedConfig(file.path, { architecture: "topk", k: Number(k), dIn, dSae, applyBDecToInput: false });
    const weights = await readWeights(file, config, {
      encoder: { tensor: "W_enc" },
      encoderBias: { tensor: "b_enc" },
      decoder: { tensor: "W_dec", transposed: true },
      decoderBias: { tensor: "b_dec" },
    });
    const hookName = `blocks.${layer}.hook_resid_post`;
    return { config, weights, metadata: { modelName: model, hookName, prependBos: true } };
  },
};
