/**
 * Gemma Scope (Lieberum et al. 2024, arXiv:2408.05147): JumpReLU SAEs and transcoders of Gemma 2, `params.npz` in
 * `layer_12/width_16k/average_l0_82` of the repositories `gemma-scope-{2b|9b|27b}-{pt|it}-{res|mlp|att|transcoders}`.
 *
 * f = z 1[z > θ] with z = x W_enc + b_enc; the decoder bias is not subtracted. No file says which model and hook: the names
 * of repository and folder do, and where those are lost the metadata lacks them. SAEs and transcoders have the same
 * tensors, so a transcoder that lies under another name is taken for an SAE of the same arithmetic.
 *
 * Those of the embedding saw the rows of W_E, but models multiply them by √dIn before `hook_embed`: that is folded in.
 * (SAELens leaves b_dec out of it.)
 */
import { NpzFile } from "../formats/npz.js";
import type { StoredSae } from "../sae/storedSae.js";
import type { Location } from "./location.js";
import { checkedConfig, matrixShape, type PublishedFormat, readWeights } from "./publishedFormat.js";

export const gemmaScope: PublishedFormat = {
  name: "Gemma Scope",
  knownBy: "params.npz",
  recognises: (location) => location.has("params.npz"),

  async read(location) {
    await using file = await NpzFile.open(location.at("params.npz"));
    const upperCase = file.entries.has("W_enc");
    const encoder = upperCase ? "W_enc" : "w_enc";
    const decoder = upperCase ? "W_dec" : "w_dec";
    const [dIn, dSae] = matrixShape(file, encoder);
    const [, dOut] = matrixShape(file, decoder);
    const transcoder = dOut !== dIn || location.inPath(/gemma-scope-[^/]*-(transcoders)(?:\/|$)/) !== undefined;
    const config = checkedConfig(file.path, {
      architecture: "jumprelu",
      dIn,
      dSae,
      ...(transcoder ? { transcoder, dOut } : {}),
      applyBDecToInput: false,
    });
    const weights = await readWeights(file, config, {
      encoder: { tensor: encoder, transposed: true },
      encoderBias: { tensor: "b_enc" },
      threshold: { tensor: "threshold" },
      decoder: { tensor: decoder },
      decoderBias: { tensor: "b_dec" },
    });
    const ofEmbedding = location.inPath(/\/(embedding)\/width_/) !== undefined;
    const scale = dIn ** -0.5;
    return {
      config,
      weights,
      metadata: metadataOf(location),
      ...(ofEmbedding ? { scale: { input: scale, output: scale } } : {}),
    };
  },
};

function metadataOf(location: Location): StoredSae["metadata"] {
  const [size, tuning, site] = location.inPath(/gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)(?:\/|$)/) ?? [];
  const [layer] = location.inPath(/\/layer_(\d+)(?:\/|$)/) ?? [];
  const hook = layer === undefined ? {} : hooksOf(site, layer);
  return {
    ...(size === undefined ? {} : { modelName: `gemma-2-${size}${tuning === "it" ? "-it" : ""}` }),
    ...(location.inPath(/\/(embedding)\/width_/) === undefined ? hook : { hookName: "hook_embed" }),
    contextSize: 1024,
    prependBos: true,
  };
}

function hooksOf(site: string | undefined, layer: string): StoredSae["metadata"] {
  const block = `blocks.${layer}`;
  if (site === "res") return { hookName: `${block}.hook_resid_post` };
  if (site === "mlp") return { hookName: `${block}.hook_mlp_out` };
  if (site === "att") return { hookName: `${block}.attn.hook_z` };
  if (site === "transcoders") {
    return { hookName: `${block}.ln2.hook_normalized`, hookNameOut: `${block}.hook_mlp_out` };
  }
  return {};
}
