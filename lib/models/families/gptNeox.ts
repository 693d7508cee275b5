/**
 * GPT-NeoX (Black et al. 2022, arXiv:2204.06745), and with it Pythia: LayerNorm, rotary positions on a part of each
 * head, attention and MLP in parallel.
 */
import { z } from "zod";
import { unprocessed } from "../modelConfig.js";
import type { BlockWeights, LinearWeights } from "../modelWeights.js";
import { contextSizeOf, ropeSchema, rotaryBase, rotaryConfig } from "../rotary.js";
import type { HostMatrix, WeightLoader } from "../weightLoader.js";
import { allTokens, epsilon, type Family, FamilyConfig, firstToken, layers, size, tokenIds } from "./family.js";

const configSchema = z.looseObject({
  vocab_size: size,
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  num_hidden_layers: layers,
  num_attention_heads: size,
  hidden_size: size,
  intermediate_size: size,
  max_position_embeddings: size,
  hidden_act: z.string().default("gelu"),
  layer_norm_eps: epsilon.default(1e-5),
  rotary_pct: z.number().min(0).max(1).optional(),
  rotary_emb_base: rotaryBase.optional(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  use_parallel_residual: z.boolean().default(true),
  attention_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().default(false),
});

/** Masks and frequencies, which some checkpoints store as buffers. */
const buffers = /^gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/;

export const gptNeox: Family = {
  parseConfig(json, directory) {
    const config = new FamilyConfig(configSchema, json, directory, "GPT-NeoX");
    const values = config.values;
    const { num_hidden_layers: nLayers, hidden_size: dModel, num_attention_heads: nHeads } = values;
    const dHead = config.share("hidden_size", dModel, "num_attention_heads", nHeads);
    const rope = values.rope_parameters ?? values.rope_scaling ?? {};
    const rotaryShare = rope.partial_rotary_factor ?? values.rotary_pct ?? 0.25;
    const dimensions = Math.trunc(dHead * rotaryShare);
    if (dimensions % 2 !== 0) config.refuse("ERR_FORMAT", `${dimensions} rotary dimensions make no pairs`);
    if (!values.attention_bias) config.refuse("ERR_UNSUPPORTED", "attention_bias false is not supported");
    return {
      architecture: "gpt_neox",
      name: config.name,
      nLayers,
      dModel,
      nHeads,
      nKeyValueHeads: nHeads,
      dHead,
      dMlp: values.intermediate_size,
      contextSize: contextSizeOf(rope, values.max_position_embeddings),
      vocabularySize: values.vocab_size,
      normalization: "layer",
      normEpsilon: values.layer_norm_eps,
      activation: config.activation("hidden_act", values.hidden_act),
      gatedMlp: false,
      parallelBlocks: values.use_parallel_residual,
      postNorms: false,
      queryKeyNorms: false,
      biases: { queriesKeysValues: true, attentionOutput: true, mlp: true },
      rotary: rotaryConfig(
        rope,
        {
          base: rope.rope_theta ?? values.rotary_emb_base ?? 10000,
          dimensions,
          contextSize: values.max_position_embeddings,
        },
        config.path,
      ),
      attentionScales: Array.from({ length: nLayers }, () => 1 / Math.sqrt(dHead)),
      attentionWindows: Array.from({ length: nLayers }, () => undefined),
      attentionSoftCap: undefined,
      logitSoftCap: undefined,
      embeddingScale: 1,
      tiedEmbeddings: values.tie_word_embeddings,
      processing: unprocessed,
      bosTokenId: firstToken(values.bos_token_id),
      eosTokenId: firstToken(values.eos_token_id),
      stopTokenIds: allTokens(values.eos_token_id),
    };
  },

  async loadWeights(loader, { dModel, dMlp, nHeads, nLayers, vocabularySize, tiedEmbeddings }) {
    const embeddingName = "gpt_neox.embed_in.weight";
    const tokenEmbedding = await loader.matrix(embeddingName, vocabularySize, dModel);
    const blocks: BlockWeights[] = [];
    for (let layer = 0; layer < nLayers; layer++) {
      const at = `gpt_neox.layers.${layer}`;
      const [queries, keys, values] = await queriesKeysValues(
        loader,
        `${at}.attention.query_key_value`,
        dModel,
        nHeads,
      );
      blocks.push({
        ln1: await loader.layerNorm(`${at}.input_layernorm`, dModel),
        queries,
        keys,
        values,
        attentionOutput: await loader.linear(`${at}.attention.dense`, dModel, dModel, true),
        ln2: await loader.layerNorm(`${at}.post_attention_layernorm`, dModel),
        mlpInput: await loader.linear(`${at}.mlp.dense_h_to_4h`, dMlp, dModel, true),
        mlpOutput: await loader.linear(`${at}.mlp.dense_4h_to_h`, dModel, dMlp, true),
      });
    }
    const finalNorm = await loader.layerNorm("gpt_neox.final_layer_norm", dModel);
    // Newer versions of transformers save it under the name that the other families have.
    const unembeddingName = loader.has("lm_head.weight") ? "lm_head.weight" : "embed_out.weight";
    const unembedding = await loader.unembedding(unembeddingName, embeddingName, tokenEmbedding, tiedEmbeddings);
    loader.refuseUnknown("GPT-NeoX", buffers);
    return { tokenEmbedding, blocks, finalNorm, unembedding };
  },
};

/** One linear layer whose outputs are [head, (query, key, value), dHead], as three. */
async function queriesKeysValues(
  loader: WeightLoader,
  name: string,
  dModel: number,
  nHeads: number,
): Promise<[LinearWeights, LinearWeights, LinearWeights]> {
  const whole = await loader.read(`${name}.weight`, 3 * dModel, dModel);
  const bias: HostMatrix = { rows: 3 * dModel, columns: 1, data: await loader.values(`${name}.bias`, [3 * dModel]) };
  const part = (which: number): LinearWeights => ({
    weights: loader.upload(everyThird(whole, which, nHeads)),
    bias: loader.uploadVector(everyThird(bias, which, nHeads).data as Float32Array),
  });
  return [part(0), part(1), part(2)];
}

/** Of rows [head, 3, dHead] those of one of the three: [head, dHead]. */
function everyThird({ rows, columns, data }: HostMatrix, which: number, nHeads: number): HostMatrix {
  const block = (rows / nHeads / 3) * columns;
  const out = data instanceof Uint16Array ? new Uint16Array(data.length / 3) : new Float32Array(data.length / 3);
  for (let head = 0; head < nHeads; head++) {
    const from = (3 * head + which) * block;
    out.set(data.subarray(from, from + block), head * block);
  }
  return { rows: rows / 3, columns, data: out };
}
