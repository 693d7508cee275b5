/**
 * Gemma Scope 2: JumpReLU SAEs and transcoders of Gemma 3, `config.json` and `params.safetensors` in, for example,
 * `resid_post_all/layer_10_width_262k_l0_small` of `gemma-scope-2-{270m|1b|4b|12b|27b}-{pt|it}`.
 *
 * f = z 1[z > θ] with z = x w_enc + b_enc. A transcoder may add x A to its output, A [dIn, dOut] an
 * `affine_skip_connection`. The configuration names the hooks as modules of the Hugging Face model; where it is missing, the
 * folders' names say them. Decoders of cross-layer transcoders have one matrix per layer: no architecture here writes to several layers.
 */
import { z } from "zod";
import { SafetensorsFile } from "../formats/safetensors.js";
import { known } from "../sae/metadata.js";
import type { StoredSae } from "../sae/storedSae.js";
import { quotedValue } from "../schemaMessages.js";
import type { Location } from "./location.js";
import {
  checkedConfig,
  matrixShape,
  type PublishedFormat,
  parseJson,
  readWeights,
  shapeOf,
  unsupported,
} from "./publishedFormat.js";

const schema = z.looseObject({
  architecture: z.string(),
  model_name: z.string().optional(),
  hf_hook_point_in: z.string().optional(),
  hf_hook_point_out: z.string().nullish(),
});

export const gemmaScope2: PublishedFormat = {
  name: "Gemma Scope 2",
  knownBy: "params.safetensors, mostly with config.json",
  recognises: (location) => location.has("params.safetensors"),

  async read(location) {
    const path = location.at("config.json");
    const hasConfig = location.files.includes("config.json");
    const cfg = hasConfig ? parseJson(path, schema, await location.json("config.json")) : configOf(location);
    if (cfg.architecture !== "jump_relu") {
      throw unsupported(path, `architecture is ${quotedValue(cfg.architecture)}; jump_relu can be loaded`);
    }
    await using file = await SafetensorsFile.open(location.at("params.safetensors"));
    if (shapeOf(file, "w_dec").length === 3) {
      throw unsupported(file.path, "it is a cross-layer transcoder, which writes to several layers");
    }
    const [dIn, dSae] = matrixShape(file, "w_enc");
    const [, dOut] = matrixShape(file, "w_dec");
    const skip = file.entries.has("affine_skip_connection");
    const hookIn = cfg.hf_hook_point_in;
    const hookOut = cfg.hf_hook_point_out ?? hookIn;
    const transcoder = skip || dOut !== dIn || hookIn !== hookOut;
    const config = checkedConfig(file.path, {
      architecture: "jumprelu",
      dIn,
      dSae,
      ...(transcoder ? { transcoder, dOut, skip } : {}),
      applyBDecToInput: false,
    });
    const weights = await readWeights(file, config, {
      encoder: { tensor: "w_enc", transposed: true },
      encoderBias: { tensor: "b_enc" },
      threshold: { tensor: "threshold" },
      decoder: { tensor: "w_dec" },
      decoderBias: { tensor: "b_dec" },
      ...(skip ? { skip: { tensor: "affine_skip_connection", transposed: true } } : {}),
    });
    return { config, weights, metadata: metadataOf(cfg, transcoder) };
  },
};

/** What a configuration would say, by the names of repository and folders. */
function configOf(location: Location): z.infer<typeof schema> {
  const [size] = location.inPath(/\/gemma-scope-2-(\w+-(?:pt|it))\//) ?? [];
  const [site, layer] = location.inPath(/\/(resid_post|attn_out|mlp_out|transcoder)\w*\/layer_(\d+)_/) ?? [];
  if (site === undefined) {
    throw unsupported(
      location.path,
      "it has no config.json, and its folders' names do not say what it encodes (as in resid_post_all/layer_10_width_16k_l0_small)",
    );
  }
  const [hookIn, hookOut] = sites[site]!;
  return {
    architecture: "jump_relu",
    ...(size === undefined ? {} : { model_name: `google/gemma-3-${size}` }),
    hf_hook_point_in: `model.layers.${layer}.${hookIn}`,
    ...(hookOut === undefined ? {} : { hf_hook_point_out: `model.layers.${layer}.${hookOut}` }),
  };
}

/** Inputs, and of transcoders outputs, by the publisher's names. */
const sites: Readonly<Record<string, readonly [input: string, output?: string]>> = {
  resid_post: ["output"],
  attn_out: ["self_attn.o_proj.input"],
  mlp_out: ["post_feedforward_layernorm.output"],
  transcoder: ["pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"],
};

function metadataOf(cfg: z.infer<typeof schema>, transcoder: boolean): StoredSae["metadata"] {
  const [hookIn, hookOut] = [cfg.hf_hook_point_in, transcoder ? (cfg.hf_hook_point_out ?? undefined) : undefined];
  return known({
    modelName: cfg.model_name,
    hookName: hookOf(hookIn),
    hookNameOut: hookOf(hookOut),
    hf_hook_name: hookIn,
    hf_hook_name_out: hookOut,
    contextSize: 1024,
    prependBos: true,
  });
}

/** TransformerLens' names of modules' inputs and outputs. The norm before the MLP is its input, gain and all. */
const hooks: Readonly<Record<string, string>> = {
  output: "hook_resid_post",
  "self_attn.o_proj.input": "attn.hook_z",
  "post_attention_layernorm.output": "hook_attn_out",
  "pre_feedforward_layernorm.output": "mlp.hook_in",
  "post_feedforward_layernorm.output": "hook_mlp_out",
};

function hookOf(module: string | undefined): string | undefined {
  const [, layer, site] = /^model\.layers\.(\d+)\.(.+)$/.exec(module ?? "") ?? [];
  return site !== undefined && Object.hasOwn(hooks, site) ? `blocks.${layer}.${hooks[site]}` : undefined;
}
