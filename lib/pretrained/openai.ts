/**
 * OpenAI's SAEs of GPT-2 small (Gao et al. 2024, arXiv:2406.04093): one file per layer, for example
 * `resid_post_mlp_v5_32k/autoencoders/8.pt`.
 *
 * z = W_enc (x - pre_bias) + latent_bias, then ReLU, or the k largest and ReLU. SAEs with TopK see each activation as
 * (x - mean) / (std + 1e-5), and their output is moved back: our layer norm. Their model had neither centred weights nor a
 * BOS token.
 */
import { MonosemError } from "../errors.js";
import type { TorchValue } from "../formats/torchArchive.js";
import { known } from "../sae/metadata.js";
import type { StoredSae } from "../sae/storedSae.js";
import { quotedValue } from "../schemaMessages.js";
import type { Location } from "./location.js";
import { checkedConfig, matrixShape, readWeights, unsupported } from "./publishedFormat.js";
import type { TorchFileFormat } from "./torchFiles.js";
import type { TorchStateDict } from "./torchStateDict.js";

const records = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

export const openai: TorchFileFormat = {
  name: "OpenAI",
  tensors: ["pre_bias", "latent_bias", "encoder.weight", "decoder.weight"],

  async read(location, file) {
    const [dSae, dIn] = matrixShape(file, "encoder.weight");
    const config = checkedConfig(file.path, { ...activationOf(file), dIn, dSae, applyBDecToInput: true });
    const weights = await readWeights(
      file,
      config,
      {
        encoder: { tensor: "encoder.weight" },
        encoderBias: { tensor: "latent_bias" },
        decoder: { tensor: "decoder.weight", transposed: true },
        decoderBias: { tensor: "pre_bias" },
      },
      { ignored: records },
    );
    return { config, weights, metadata: metadataOf(location) };
  },
};

/** @throws MonosemError ERR_UNSUPPORTED for another activation than ReLU and TopK with ReLU */
function activationOf(file: TorchStateDict): object {
  const activation = file.values.get("activation") ?? "ReLU";
  const state: TorchValue = file.values.get("activation_state_dict") ?? new Map();
  if (activation === "ReLU") return { architecture: "relu" };
  if (activation !== "TopK" || !(state instanceof Map)) {
    throw unsupported(file.path, `its activation is ${quotedValue(activation)}; ReLU and TopK can be loaded`);
  }
  const { k, postact_fn } = Object.fromEntries(state as ReadonlyMap<string, TorchValue>);
  if (postact_fn !== "ReLU") {
    throw unsupported(file.path, `after TopK it applies ${quotedValue(postact_fn)}; ReLU can be loaded`);
  }
  if (typeof k !== "number") throw new MonosemError("ERR_FORMAT", `${file.path}: its TopK has no k`);
  return { architecture: "topk", k, normalizeActivations: "layer-norm" };
}

/** By OpenAI's names. */
const hooks: Readonly<Record<string, string>> = {
  resid_delta_attn: "hook_attn_out",
  resid_delta_mlp: "hook_mlp_out",
  resid_post_attn: "hook_resid_mid",
  resid_post_mlp: "hook_resid_post",
  mlp_post_act: "mlp.hook_post",
};

function metadataOf(location: Location): StoredSae["metadata"] {
  const [site, layer] =
    location.inPath(
      /\/(resid_delta_attn|resid_delta_mlp|resid_post_attn|resid_post_mlp|mlp_post_act)\w*\/(?:autoencoders\/)?(\d+)\.pt$/,
    ) ?? [];
  const hookName = site === undefined ? undefined : `blocks.${layer}.${hooks[site]}`;
  return known({ modelName: "gpt2-small", hookName, contextSize: 64, prependBos: false });
}
