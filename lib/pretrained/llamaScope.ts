/**
 * Llama Scope (He et al. 2024, arXiv:2410.20526): JumpReLU SAEs and transcoders of Llama 3.1 8B, `hyperparams.json` and
 * `checkpoints/final.safetensors`.
 *
 * Activations times s = √d / (their mean norm) are encoded: z = W_enc (s x) + b_enc, f = z 1[z > θ]; the decoder bias is not
 * subtracted. The published threshold, one number, is in the scale of activations, so that θ is s times it, as SAELens
 * takes it. s is folded into the weights. Thresholds were meant for decoder rows of norm 1, which is checked.
 */
import { z } from "zod";
import { SafetensorsFile } from "../formats/safetensors.js";
import { quotedValue } from "../schemaMessages.js";
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
  d_model: z.int().positive(),
  d_sae: z.int().positive(),
  hook_point_in: z.string(),
  hook_point_out: z.string(),
  jump_relu_threshold: z.number().nonnegative(),
  dataset_average_activation_norm: z.looseObject({ in: z.number().positive(), out: z.number().positive() }),
  norm_activation: z.string().default("dataset-wise"),
  use_glu_encoder: z.boolean().default(false),
  apply_decoder_bias_to_pre_encoder: z.boolean().default(false),
  sparsity_include_decoder_norm: z.boolean().default(false),
});

const weightsFile = "checkpoints/final.safetensors";

export const llamaScope: PublishedFormat = {
  name: "Llama Scope",
  knownBy: `hyperparams.json with ${weightsFile}`,
  recognises: (location) => location.has("hyperparams.json", "checkpoints"),

  async read(location) {
    const path = location.at("hyperparams.json");
    const cfg = parseJson(path, schema, await location.json("hyperparams.json"));
    if (cfg.norm_activation !== "dataset-wise") {
      throw unsupported(path, `norm_activation is ${quotedValue(cfg.norm_activation)}; dataset-wise can be loaded`);
    }
    if (cfg.use_glu_encoder) throw unsupported(path, "use_glu_encoder is true");
    if (cfg.apply_decoder_bias_to_pre_encoder) throw unsupported(path, "apply_decoder_bias_to_pre_encoder is true");
    const transcoder = cfg.hook_point_in !== cfg.hook_point_out;
    const config = checkedConfig(path, {
      architecture: "jumprelu",
      dIn: cfg.d_model,
      dSae: cfg.d_sae,
      transcoder,
      applyBDecToInput: false,
    });
    const { in: normIn, out: normOut } = cfg.dataset_average_activation_norm;
    const scale = { input: Math.sqrt(cfg.d_model) / normIn, output: Math.sqrt(cfg.d_model) / normOut };

    await using file = await SafetensorsFile.open(location.at(weightsFile));
    const [dSae] = matrixShape(file, "encoder.weight");
    const threshold = new Float32Array(dSae).fill(cfg.jump_relu_threshold * scale.input);
    const weights = await readWeights(file, config, {
      encoder: { tensor: "encoder.weight" },
      encoderBias: { tensor: "encoder.bias" },
      threshold: { values: threshold },
      decoder: { tensor: "decoder.weight", transposed: true },
      decoderBias: { tensor: "decoder.bias" },
    });
    if (cfg.sparsity_include_decoder_norm) {
      const norms = columnNorms(weights.decoder!.values, shapeOf(file, "decoder.weight")[0]!, cfg.d_sae);
      const furthest = norms.reduce((a, b) => (Math.abs(b - 1) > Math.abs(a - 1) ? b : a), 1);
      if (Math.abs(furthest - 1) > 0.02) {
        throw unsupported(file.path, `a decoder row has norm ${furthest.toFixed(3)}, and its threshold is for norm 1`);
      }
    }
    return {
      config,
      weights,
      scale,
      metadata: {
        modelName: "meta-llama/Llama-3.1-8B",
        hookName: cfg.hook_point_in,
        ...(transcoder ? { hookNameOut: cfg.hook_point_out } : {}),
        contextSize: 1024,
        prependBos: true,
      },
    };
  },
};

/** Norms of the columns of a [rows, columns] matrix. */
function columnNorms(matrix: Float32Array, rows: number, columns: number): Float64Array {
  const sums = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) sums[column]! += matrix[row * columns + column]! ** 2;
  }
  return sums.map(Math.sqrt);
}
