/**
 * dictionary_learning (Marks, Karvonen and others; SAEBench's SAEs): `config.json`, which names a class, and `ae.pt`, its
 * state dictionary.
 *
 * The classes as `encode` computes them; with z = W_enc (x - b_dec) + b_enc:
 *
 *     AutoEncoder              ReLU(z), b_dec called `bias`
 *     AutoEncoderNew           ReLU(W_enc x + b_enc): the decoder's bias is not subtracted
 *     GatedAutoEncoder         as ours (gated.ts)
 *     AutoEncoderTopK          ReLU, then the k largest; its threshold is not used
 *     BatchTopKSAE, MatryoshkaBatchTopKSAE   z where z > θ, one θ for all latents
 *     JumpReluAutoEncoder      z where z > θ, b_dec not subtracted
 *
 * Latents are those of `encode`: `AutoEncoder.from_pretrained` by default, and `AutoEncoderNew.forward`, multiply them by
 * the decoder norms, which `Sae.foldDecoderNorm` does. A θ of -1 was never set: such an SAE can only select over batches.
 */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { known } from "../sae/metadata.js";
import type { StoredSae } from "../sae/storedSae.js";
import { quotedValue } from "../schemaMessages.js";
import {
  checkedConfig,
  type PublishedFormat,
  parseJson,
  readWeights,
  type TensorChoice,
  unsupported,
} from "./publishedFormat.js";
import { TorchStateDict } from "./torchStateDict.js";

const schema = z.looseObject({
  trainer: z.looseObject({
    dict_class: z.string(),
    activation_dim: z.int().positive(),
    dict_size: z.int().positive(),
    k: z.number().optional(),
    layer: z.number().nullish(),
    lm_name: z.string().nullish(),
    submodule_name: z.string().nullish(),
  }),
  buffer: z.looseObject({ ctx_len: z.number().optional(), io: z.string().optional() }).optional(),
});

interface DictionaryClass {
  readonly architecture: "relu" | "gated" | "topk" | "jumprelu";
  readonly trainedAs?: string;
  readonly applyBDecToInput: boolean;
  readonly tensors: Readonly<Record<string, TensorChoice>>;
}

/** nn.Linear's weights are [outputs, inputs]. */
const linear = { encoder: { tensor: "encoder.weight" }, decoder: { tensor: "decoder.weight", transposed: true } };
const linearBias = { encoderBias: { tensor: "encoder.bias" } };
const matrices = {
  encoder: { tensor: "W_enc", transposed: true },
  encoderBias: { tensor: "b_enc" },
  threshold: { tensor: "threshold" },
  decoder: { tensor: "W_dec" },
  decoderBias: { tensor: "b_dec" },
};

const classes: Readonly<Record<string, DictionaryClass>> = {
  AutoEncoder: {
    architecture: "relu",
    applyBDecToInput: true,
    tensors: { ...linear, ...linearBias, decoderBias: { tensor: "bias" } },
  },
  AutoEncoderNew: {
    architecture: "relu",
    applyBDecToInput: false,
    tensors: { ...linear, ...linearBias, decoderBias: { tensor: "decoder.bias" } },
  },
  GatedAutoEncoder: {
    architecture: "gated",
    applyBDecToInput: true,
    tensors: {
      ...linear,
      gateBias: { tensor: "gate_bias" },
      magnitudeScale: { tensor: "r_mag" },
      magnitudeBias: { tensor: "mag_bias" },
      decoderBias: { tensor: "decoder_bias" },
    },
  },
  AutoEncoderTopK: {
    architecture: "topk",
    applyBDecToInput: true,
    tensors: { ...linear, ...linearBias, decoderBias: { tensor: "b_dec" } },
  },
  BatchTopKSAE: {
    architecture: "jumprelu",
    trainedAs: "batchtopk",
    applyBDecToInput: true,
    tensors: { ...linear, ...linearBias, threshold: { tensor: "threshold" }, decoderBias: { tensor: "b_dec" } },
  },
  MatryoshkaBatchTopKSAE: {
    architecture: "jumprelu",
    trainedAs: "matryoshka",
    applyBDecToInput: true,
    tensors: matrices,
  },
  JumpReluAutoEncoder: { architecture: "jumprelu", applyBDecToInput: false, tensors: matrices },
};

export const dictionaryLearning: PublishedFormat = {
  name: "dictionary_learning",
  knownBy: "ae.pt with config.json",
  recognises: (location) => location.has("ae.pt", "config.json"),

  async read(location) {
    const path = location.at("config.json");
    const { trainer, buffer } = parseJson(path, schema, await location.json("config.json"));
    const definition = Object.hasOwn(classes, trainer.dict_class) ? classes[trainer.dict_class]! : undefined;
    if (definition === undefined) {
      const known = Object.keys(classes).join(", ");
      throw unsupported(path, `dict_class is ${quotedValue(trainer.dict_class)}; ${known} can be loaded`);
    }
    const { architecture, trainedAs, applyBDecToInput, tensors } = definition;
    await using file = await TorchStateDict.open(location.at("ae.pt"));
    const config = checkedConfig(path, {
      architecture,
      dIn: trainer.activation_dim,
      dSae: trainer.dict_size,
      applyBDecToInput,
      ...(architecture === "topk" ? { k: await latentsPerToken(file, trainer.k) } : {}),
    });
    if (trainedAs !== undefined && ((await file.number("threshold")) ?? -1) < 0) {
      throw unsupported(file.path, "its threshold was never set, so it can only select latents over a whole batch");
    }
    return {
      config,
      weights: await readWeights(file, config, tensors, { ignored: ["k", "threshold", "group_sizes"] }),
      metadata: { ...metadataOf(trainer, buffer), ...known({ trainedAs }) },
    };
  },
};

async function latentsPerToken(file: TorchStateDict, configured: number | undefined): Promise<number | undefined> {
  const saved = await file.number("k");
  if (saved !== undefined && configured !== undefined && saved !== configured) {
    throw new MonosemError("ERR_FORMAT", `${file.path}: k is ${saved}, but config.json says ${configured}`);
  }
  return saved ?? configured;
}

/** The activations are the output of a layer unless the configuration says something else. */
function metadataOf(
  { layer, lm_name, submodule_name }: z.infer<typeof schema>["trainer"],
  buffer: z.infer<typeof schema>["buffer"],
): StoredSae["metadata"] {
  const ofLayer = (submodule_name ?? "resid_post").startsWith("resid_post") && (buffer?.io ?? "out") === "out";
  return known({
    modelName: typeof lm_name === "string" ? lm_name.split("/").at(-1) : undefined,
    hookName: typeof layer === "number" && ofLayer ? `blocks.${layer}.hook_resid_post` : undefined,
    contextSize: buffer?.ctx_len,
  });
}
