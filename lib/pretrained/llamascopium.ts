/**
 * SAEs and transcoders of OpenMOSS's library (lm-saes, now llamascopium), and Llama-Scope-R1-Distill: `config.json` and
 * `sae_weights.safetensors`, without SAELens' `cfg.json`. Weights are called W_E [d, latents], W_D [latents, d], b_E and b_D,
 * in older files encoder.weight [latents, d] and so on.
 *
 * Activations times s = √d / (their mean norm) are encoded (`norm_activation` "dataset-wise"), or as they are
 * ("inference"); s is folded into the weights, and its norms must be among the tensors. The decoder bias is not subtracted.
 * With `sparsity_include_decoder_norm` latents are selected by z_i |W_dec,i| but have the value z_i: a JumpReLU's threshold
 * is then θ_i / |W_dec,i|; for TopK no architecture here can say it.
 */
import { z } from "zod";
import { SafetensorsFile } from "../formats/safetensors.js";
import type { TensorFile } from "../formats/tensorArray.js";
import type { StoredSae } from "../sae/storedSae.js";
import { quotedValue } from "../schemaMessages.js";
import {
  checkedConfig,
  matrixShape,
  type PublishedFormat,
  parseJson,
  readShaped,
  readWeights,
  unsupported,
  type WeightChoice,
} from "./publishedFormat.js";

const schema = z.looseObject({
  sae_type: z.string().default("sae"),
  d_model: z.int().positive(),
  act_fn: z.string().default("jumprelu"),
  top_k: z.int().positive().optional(),
  hook_point_in: z.string(),
  hook_point_out: z.string().optional(),
  norm_activation: z.string().default("dataset-wise"),
  use_decoder_bias: z.boolean().default(true),
  use_glu_encoder: z.boolean().default(false),
  sparsity_include_decoder_norm: z.boolean().default(true),
});
type Config = z.infer<typeof schema>;

export const llamascopium: PublishedFormat = {
  name: "Llamascopium",
  knownBy: "config.json with sae_weights.safetensors",
  recognises: (location) =>
    location.has("config.json", "sae_weights.safetensors") && !location.files.includes("cfg.json"),

  async read(location, { inputScale }) {
    const path = location.at("config.json");
    const cfg = parseJson(path, schema, await location.json("config.json"));
    refuseUnsaid(path, cfg);
    await using file = await SafetensorsFile.open(location.at("sae_weights.safetensors"));
    const old = file.entries.has("encoder.weight");
    const threshold = old ? "log_jumprelu_threshold" : "activation_function.log_jumprelu_threshold";
    const choices: Readonly<Record<string, WeightChoice>> = old
      ? {
          encoder: { tensor: "encoder.weight" },
          encoderBias: { tensor: "encoder.bias" },
          decoder: { tensor: "decoder.weight", transposed: true },
          decoderBias: { tensor: "decoder.bias" },
        }
      : {
          encoder: { tensor: "W_E", transposed: true },
          encoderBias: { tensor: "b_E" },
          decoder: { tensor: "W_D" },
          decoderBias: { tensor: "b_D" },
        };
    const dSae = old ? matrixShape(file, "encoder.weight")[0] : matrixShape(file, "W_E")[1];
    const transcoder = cfg.hook_point_out !== undefined && cfg.hook_point_out !== cfg.hook_point_in;
    const config = checkedConfig(path, {
      architecture: cfg.act_fn,
      dIn: cfg.d_model,
      dSae,
      ...(cfg.act_fn === "topk" ? { k: cfg.top_k } : {}),
      transcoder,
      applyBDecToInput: false,
    });
    const isNorm = (name: string) => name.startsWith(norms);
    const ignored = [...file.entries.keys()].filter(isNorm);
    const jump = cfg.act_fn === "jumprelu";
    const weights = await readWeights(
      file,
      config,
      { ...choices, ...(jump ? { threshold: { values: await thresholds(file, threshold, cfg, old, dSae) } } : {}) },
      { ignored: [...ignored, threshold] },
    );
    const scale = cfg.norm_activation === "inference" ? undefined : await scaleOf(file, cfg, inputScale);
    return {
      config,
      weights,
      ...(scale === undefined ? {} : { scale }),
      metadata: {
        hookName: cfg.hook_point_in,
        ...(transcoder ? { hookNameOut: cfg.hook_point_out } : {}),
        ...(typeof cfg.model_name === "string" ? { modelName: cfg.model_name } : {}),
      },
    };
  },
};

const norms = "dataset_average_activation_norm.";

function refuseUnsaid(path: string, cfg: Config): void {
  const says = (key: string, value: unknown) => `${key} is ${quotedValue(value)}`;
  if (cfg.sae_type !== "sae") throw unsupported(path, `${says("sae_type", cfg.sae_type)}; sae can be loaded`);
  if (!["relu", "jumprelu", "topk"].includes(cfg.act_fn)) {
    throw unsupported(path, `${says("act_fn", cfg.act_fn)}; relu, jumprelu and topk can be loaded`);
  }
  if (!["dataset-wise", "inference"].includes(cfg.norm_activation)) {
    throw unsupported(
      path,
      `${says("norm_activation", cfg.norm_activation)}; dataset-wise and inference can be loaded`,
    );
  }
  if (cfg.use_glu_encoder) throw unsupported(path, "use_glu_encoder is true");
  if (!cfg.use_decoder_bias) throw unsupported(path, "use_decoder_bias is false");
  if (cfg.act_fn === "topk" && cfg.sparsity_include_decoder_norm) {
    throw unsupported(path, "its TopK selects by sparsity_include_decoder_norm, but its latents are without the norms");
  }
}

/** √d / (mean norm), of the hooks' mean norms among the tensors; where they are missing, the scale that is given. */
async function scaleOf(
  file: TensorFile,
  cfg: Config,
  given: number | undefined,
): Promise<NonNullable<StoredSae["scale"]>> {
  const of = async (hook: string): Promise<number> => {
    const name = `${norms}${hook}`;
    if (!file.entries.has(name)) {
      if (given !== undefined && hook === cfg.hook_point_in) return given;
      throw unsupported(
        file.path,
        `its weights are for scaled activations, and no tensor ${name} says the scale; load it with \`inputScale\``,
      );
    }
    return Math.sqrt(cfg.d_model) / (await readShaped(file, name, [1]))[0]!;
  };
  return { input: await of(cfg.hook_point_in), output: await of(cfg.hook_point_out ?? cfg.hook_point_in) };
}

/** exp(log θ), over the decoder norms where latents are selected by them. */
async function thresholds(
  file: TensorFile,
  name: string,
  cfg: Config,
  old: boolean,
  dSae: number,
): Promise<Float32Array> {
  const values = (await readShaped(file, name, [dSae])).map(Math.exp);
  if (!cfg.sparsity_include_decoder_norm) return values;
  const dOut = cfg.d_model;
  const decoder = old
    ? await readShaped(file, "decoder.weight", [dOut, dSae])
    : await readShaped(file, "W_D", [dSae, dOut]);
  const squares = new Float64Array(dSae);
  for (const [i, value] of decoder.entries()) squares[old ? i % dSae : Math.floor(i / dOut)]! += value * value;
  return values.map((value, latent) => value / Math.sqrt(squares[latent]!));
}
