/**
 * GPT-2 (Radford et al. 2019): learned positions, LayerNorm, a two-layer MLP.
 *
 * The linear layers of its checkpoints are Conv1D modules, whose weights are stored [in, out]; the engine wants
 * [out, in], so they are transposed. The query, key and value projections come as one matrix and are cut apart, because
 * the attention kernel reads them as three tensors.
 */
import { z } from "zod";
import { unprocessed } from "../modelConfig.js";
import type { BlockWeights, LinearWeights } from "../modelWeights.js";
import { slicedRows, transposed, type WeightLoader } from "../weightLoader.js";
import { allTokens, epsilon, type Family, FamilyConfig, firstToken, layers, size, tokenIds } from "./family.js";

/**
 * Every option of `GPT2Config` that changes the result; the rest (dropout, initialisation, caching) does not.
 * `reorder_and_upcast_attn` is about the precision of half-precision arithmetic, and this one is f32.
 */
const configSchema = z.looseObject({
  vocab_size: size,
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  n_layer: layers,
  n_head: size,
  n_embd: size,
  n_positions: size.optional(),
  n_ctx: size.optional(), // older checkpoints
  n_inner: size.nullish(),
  activation_function: z.string().default("gelu_new"),
  layer_norm_epsilon: epsilon.default(1e-5),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
});

/** The causal mask, which some checkpoints store as buffers of each block. */
const maskBuffer = /^(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$/;

export const gpt2: Family = {
  parseConfig(json, directory) {
    const config = new FamilyConfig(configSchema, json, directory, "GPT-2");
    const values = config.values;
    const contextSize = values.n_positions ?? values.n_ctx ?? config.refuse("ERR_FORMAT", "n_positions is missing");
    const dHead = config.share("n_embd", values.n_embd, "n_head", values.n_head);
    const activation = config.activation("activation_function", values.activation_function);
    if (values.add_cross_attention) config.refuse("ERR_UNSUPPORTED", "add_cross_attention is not supported");
    const scale = values.scale_attn_weights ? 1 / Math.sqrt(dHead) : 1;
    const perLayer = <T>(of: (layer: number) => T): T[] => Array.from({ length: values.n_layer }, (_, i) => of(i));
    return {
      architecture: "gpt2",
      name: config.name,
      nLayers: values.n_layer,
      dModel: values.n_embd,
      nHeads: values.n_head,
      nKeyValueHeads: values.n_head,
      dHead,
      dMlp: values.n_inner ?? 4 * values.n_embd,
      contextSize,
      vocabularySize: values.vocab_size,
      normalization: "layer",
      normEpsilon: values.layer_norm_epsilon,
      activation,
      gatedMlp: false,
      parallelBlocks: false,
      postNorms: false,
      queryKeyNorms: false,
      biases: { queriesKeysValues: true, attentionOutput: true, mlp: true },
      rotary: undefined,
      attentionScales: perLayer((layer) => (values.scale_attn_by_inverse_layer_idx ? scale / (layer + 1) : scale)),
      attentionWindows: perLayer(() => undefined),
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

  async loadWeights(loader, { dModel, dMlp, nLayers, vocabularySize, contextSize, tiedEmbeddings }) {
    const prefix = loader.has("transformer.wte.weight") ? "transformer." : "";
    const tokenEmbedding = await loader.matrix(`${prefix}wte.weight`, vocabularySize, dModel);
    const positionEmbedding = await loader.matrix(`${prefix}wpe.weight`, contextSize, dModel);
    const blocks: BlockWeights[] = [];
    for (let layer = 0; layer < nLayers; layer++) {
      const h = `${prefix}h.${layer}`;
      const ln1 = await loader.layerNorm(`${h}.ln_1`, dModel);
      const [queries, keys, values] = await conv1d(loader, `${h}.attn.c_attn`, dModel, [dModel, dModel, dModel]);
      const [attentionOutput] = await conv1d(loader, `${h}.attn.c_proj`, dModel, [dModel]);
      const ln2 = await loader.layerNorm(`${h}.ln_2`, dModel);
      const [mlpInput] = await conv1d(loader, `${h}.mlp.c_fc`, dModel, [dMlp]);
      const [mlpOutput] = await conv1d(loader, `${h}.mlp.c_proj`, dMlp, [dModel]);
      blocks.push({
        ln1,
        queries: queries!,
        keys: keys!,
        values: values!,
        attentionOutput: attentionOutput!,
        ln2,
        mlpInput: mlpInput!,
        mlpOutput: mlpOutput!,
      });
    }
    const finalNorm = await loader.layerNorm(`${prefix}ln_f`, dModel);
    const unembedding = await loader.unembedding(
      "lm_head.weight",
      `${prefix}wte.weight`,
      tokenEmbedding,
      tiedEmbeddings,
    );
    loader.refuseUnknown("GPT-2", maskBuffer);
    return { tokenEmbedding, positionEmbedding, blocks, finalNorm, unembedding };
  },
};

/** A Conv1D of weights [inputs, sum of outputs], cut into linear layers of `outputs` outputs each. */
async function conv1d(
  loader: WeightLoader,
  name: string,
  inputs: number,
  outputs: readonly number[],
): Promise<LinearWeights[]> {
  const total = outputs.reduce((sum, width) => sum + width, 0);
  const bias = await loader.values(`${name}.bias`, [total]);
  const whole = transposed(await loader.read(`${name}.weight`, inputs, total, "Conv1D: inputs x outputs"));
  let first = 0;
  return outputs.map((width) => {
    const part = {
      weights: loader.upload(slicedRows(whole, first, width)),
      bias: loader.uploadVector(bias.slice(first, first + width)),
    };
    first += width;
    return part;
  });
}
