/**
 * What the families after Llama share (Touvron et al. 2023, arXiv:2302.13971): RMSNorm, rotary positions, heads of keys
 * and values that several heads of queries share, a gated MLP, and the names of all that in a config.json and in a
 * checkpoint. A family is a description of what it does differently.
 */
import { z } from "zod";
import { quotedValue } from "../../schemaMessages.js";
import { type Architecture, type ModelConfig, unprocessed } from "../modelConfig.js";
import type { BlockWeights } from "../modelWeights.js";
import { contextSizeOf, ropeSchema, rotaryBase, rotaryConfig } from "../rotary.js";
import {
  allTokens,
  constant,
  epsilon,
  type Family,
  FamilyConfig,
  firstToken,
  headSize,
  layers,
  size,
  tokenIds,
} from "./family.js";

const configSchema = z.looseObject({
  vocab_size: size,
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  num_hidden_layers: layers,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  hidden_size: size,
  head_dim: headSize.nullish(),
  intermediate_size: size,
  max_position_embeddings: size,
  original_max_position_embeddings: size.nullish(), // there or within rope_scaling
  hidden_act: z.string().optional(),
  hidden_activation: z.string().nullish(), // Gemma
  rms_norm_eps: epsilon.default(1e-6),
  rope_theta: rotaryBase.optional(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(), // both of the above, in newer checkpoints
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().optional(),
  sliding_window: size.nullish(),
  use_sliding_window: z.boolean().default(false), // Qwen
  max_window_layers: z.int().nonnegative().optional(), // Qwen
  layer_types: z.array(z.string()).nullish(), // newer checkpoints
  query_pre_attn_scalar: constant.optional(), // Gemma
  attn_logit_softcapping: constant.nullish(), // Gemma
  final_logit_softcapping: constant.nullish(), // Gemma
});

/** What a family's description may ask of a config.json. */
export interface DecoderOptions {
  readonly attention_bias: boolean;
  readonly mlp_bias: boolean;
  readonly use_sliding_window: boolean;
  readonly max_window_layers?: number | undefined;
}

/** How a family differs from the others. */
export interface DecoderTraits {
  readonly architecture: Architecture;
  /** As in "does not describe a Llama". */
  readonly title: string;
  readonly activation: string;
  readonly tiedByDefault: boolean;
  /** Where config.json has no head_dim; undefined: hidden_size / num_attention_heads. */
  readonly headSize?: number;
  biases(config: DecoderOptions): ModelConfig["biases"];
  /** Whether a layer looks no further back than `sliding_window`, where config.json has no `layer_types`. */
  slides(config: DecoderOptions, layer: number): boolean;
  readonly queryKeyNorms?: boolean;
  /** Norms also behind attention and MLP, and other names for those in front. */
  readonly postNorms?: boolean;
  /** What is added to the stored weights of norms. */
  readonly normOffset?: number;
  /** Embeddings are multiplied by sqrt(dModel). */
  readonly scaledEmbeddings?: boolean;
}

const buffers = /^model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/;

export function decoderFamily(traits: DecoderTraits): Family {
  const { architecture, title, postNorms = false, queryKeyNorms = false, normOffset = 0 } = traits;
  return {
    parseConfig(json, directory) {
      const config = new FamilyConfig(configSchema, json, directory, title);
      const values = config.values;
      const { num_hidden_layers: nLayers, num_attention_heads: nHeads, hidden_size: dModel } = values;
      const nKeyValueHeads = values.num_key_value_heads ?? nHeads;
      config.share("num_attention_heads", nHeads, "num_key_value_heads", nKeyValueHeads);
      const dHead =
        values.head_dim ?? traits.headSize ?? config.share("hidden_size", dModel, "num_attention_heads", nHeads);
      const given = { ...values.rope_scaling, ...values.rope_parameters };
      const trainedLength = values.original_max_position_embeddings ?? given.original_max_position_embeddings;
      const rope = { ...given, original_max_position_embeddings: trainedLength };
      const dimensions = Math.trunc(dHead * (rope.partial_rotary_factor ?? 1));
      if (dimensions % 2 !== 0) config.refuse("ERR_FORMAT", `${dimensions} rotary dimensions make no pairs`);
      const { layer_types: layerTypes, sliding_window: window } = values;
      if (layerTypes != null && layerTypes.length !== nLayers) {
        config.refuse("ERR_FORMAT", `layer_types has ${layerTypes.length} entries for ${nLayers} layers`);
      }
      const slides = (layer: number): boolean => {
        const type = layerTypes?.[layer];
        if (type === undefined) return window != null && traits.slides(values, layer);
        if (type === "full_attention") return false;
        if (type !== "sliding_attention") config.refuse("ERR_UNSUPPORTED", `layer type ${quotedValue(type)}`);
        if (window == null)
          config.refuse("ERR_FORMAT", "layer_types says sliding_attention, sliding_window is missing");
        return true;
      };
      const scale = 1 / Math.sqrt(values.query_pre_attn_scalar ?? dHead);
      const contextSize = contextSizeOf(rope, values.max_position_embeddings);
      return {
        architecture,
        name: config.name,
        nLayers,
        dModel,
        nHeads,
        nKeyValueHeads,
        dHead,
        dMlp: values.intermediate_size,
        contextSize,
        vocabularySize: values.vocab_size,
        normalization: "rms",
        normEpsilon: values.rms_norm_eps,
        activation: config.activation("hidden_act", values.hidden_activation ?? values.hidden_act ?? traits.activation),
        gatedMlp: true,
        parallelBlocks: false,
        postNorms,
        queryKeyNorms,
        biases: traits.biases(values),
        rotary: rotaryConfig(
          rope,
          {
            base: rope.rope_theta ?? values.rope_theta ?? 10000,
            dimensions,
            contextSize: values.max_position_embeddings,
          },
          config.path,
        ),
        attentionScales: Array.from({ length: nLayers }, () => scale),
        attentionWindows: Array.from({ length: nLayers }, (_, layer) => (slides(layer) ? window! : undefined)),
        attentionSoftCap: values.attn_logit_softcapping ?? undefined,
        logitSoftCap: values.final_logit_softcapping ?? undefined,
        embeddingScale: traits.scaledEmbeddings ? Math.sqrt(dModel) : 1,
        tiedEmbeddings: values.tie_word_embeddings ?? traits.tiedByDefault,
        processing: unprocessed,
        bosTokenId: firstToken(values.bos_token_id),
        eosTokenId: firstToken(values.eos_token_id),
        stopTokenIds: allTokens(values.eos_token_id),
      };
    },

    async loadWeights(loader, config) {
      const { dModel, dMlp, dHead, nHeads, nKeyValueHeads, nLayers, vocabularySize } = config;
      const embeddingName = "model.embed_tokens.weight";
      const tokenEmbedding = await loader.matrix(embeddingName, vocabularySize, dModel);
      const norm = (name: string, width = dModel) => loader.rmsNorm(name, width, normOffset);
      const { biases } = config;
      const blocks: BlockWeights[] = [];
      for (let layer = 0; layer < nLayers; layer++) {
        const at = `model.layers.${layer}`;
        const attention = `${at}.self_attn`;
        blocks.push({
          ln1: await norm(`${at}.input_layernorm`),
          queries: await loader.linear(`${attention}.q_proj`, nHeads * dHead, dModel, biases.queriesKeysValues),
          keys: await loader.linear(`${attention}.k_proj`, nKeyValueHeads * dHead, dModel, biases.queriesKeysValues),
          values: await loader.linear(`${attention}.v_proj`, nKeyValueHeads * dHead, dModel, biases.queriesKeysValues),
          queryNorm: queryKeyNorms ? await norm(`${attention}.q_norm`, dHead) : undefined,
          keyNorm: queryKeyNorms ? await norm(`${attention}.k_norm`, dHead) : undefined,
          attentionOutput: await loader.linear(`${attention}.o_proj`, dModel, nHeads * dHead, biases.attentionOutput),
          ln1Post: postNorms ? await norm(`${at}.post_attention_layernorm`) : undefined,
          ln2: await norm(`${at}.${postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm"}`),
          mlpGate: await loader.linear(`${at}.mlp.gate_proj`, dMlp, dModel, biases.mlp),
          mlpInput: await loader.linear(`${at}.mlp.up_proj`, dMlp, dModel, biases.mlp),
          mlpOutput: await loader.linear(`${at}.mlp.down_proj`, dModel, dMlp, biases.mlp),
          ln2Post: postNorms ? await norm(`${at}.post_feedforward_layernorm`) : undefined,
        });
      }
      const finalNorm = await norm("model.norm");
      const unembedding = await loader.unembedding(
        "lm_head.weight",
        embeddingName,
        tokenEmbedding,
        config.tiedEmbeddings,
      );
      loader.refuseUnknown(title, buffers);
      return { tokenEmbedding, blocks, finalNorm, unembedding };
    },
  };
}
