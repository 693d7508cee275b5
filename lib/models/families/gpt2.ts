/**
 * GPT-2 checkpoints in the Hugging Face layout: config.json and model.safetensors.
 *
 * Radford et al. 2019. The linear layers of these checkpoints are Conv1D modules, whose weights are stored [in, out];
 * the engine wants [out, in], so they are transposed once, on the device. The query, key and value projections come as
 * one matrix and are cut apart, because the attention kernel reads them as three tensors.
 */
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import type { Activation } from "../engine/transformerKernels.js";
import { MonosemError } from "../errors.js";
import { SafetensorsFile } from "../formats/safetensors.js";
import type { ModelConfig } from "./modelConfig.js";

/** Weights [out, in] and bias [out] of a linear layer. */
export interface LinearWeights {
  readonly weights: Tensor;
  readonly bias: Tensor;
}

/** Weight and bias [dModel] of a LayerNorm. */
export interface LayerNormWeights {
  readonly weight: Tensor;
  readonly bias: Tensor;
}

export interface Gpt2BlockWeights {
  readonly ln1: LayerNormWeights;
  readonly queries: LinearWeights;
  readonly keys: LinearWeights;
  readonly values: LinearWeights;
  readonly attentionOutput: LinearWeights;
  readonly ln2: LayerNormWeights;
  readonly mlpInput: LinearWeights;
  readonly mlpOutput: LinearWeights;
}

/** All f32, on one device. */
export interface Gpt2Weights {
  readonly tokenEmbedding: Tensor; // [vocabularySize, dModel]
  readonly positionEmbedding: Tensor; // [contextSize, dModel]
  readonly blocks: readonly Gpt2BlockWeights[];
  readonly finalLayerNorm: LayerNormWeights;
  /** [vocabularySize, dModel]; the very tensor of the embedding where the two are tied. */
  readonly unembedding: Tensor;
}

/** The engine's name of each activation function of Hugging Face that it has. */
const activations: ReadonlyMap<string, Activation> = new Map([
  ["gelu_new", "gelu_new"],
  ["gelu_pytorch_tanh", "gelu_new"],
  ["gelu", "gelu"],
  ["relu", "relu"],
]);

const size = z.int().positive();
const tokenId = z.int().nonnegative().nullish();

/** Every option of `GPT2Config` that changes the result; the rest (dropout, initialisation, caching) does not. */
const configSchema = z.looseObject({
  n_layer: size,
  n_head: size,
  n_embd: size,
  n_positions: size.optional(),
  n_ctx: size.optional(), // older checkpoints
  n_inner: size.nullish(),
  vocab_size: size,
  activation_function: z.string().default("gelu_new"),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
  quantization_config: z.unknown().optional(),
  bos_token_id: tokenId,
  eos_token_id: tokenId,
});

/**
 * Reads GPT-2's `config.json`. `reorder_and_upcast_attn` is accepted and changes nothing: it is about the precision of
 * half-precision arithmetic, and this one is f32.
 *
 * @param directory - named in the messages; its last part is the model's name
 * @throws MonosemError ERR_FORMAT for missing or impossible values, ERR_UNSUPPORTED for options that are not implemented
 */
export function parseGpt2Config(json: Record<string, unknown>, directory: string): ModelConfig {
  const path = join(directory, "config.json");
  const parsed = configSchema.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path: key, message }) => `${key.join(".")}: ${message}`);
    throw new MonosemError("ERR_FORMAT", `${path} does not describe a GPT-2: ${problems.join("; ")}`);
  }
  const config = parsed.data;
  const refuse = (code: "ERR_FORMAT" | "ERR_UNSUPPORTED", problem: string): never => {
    throw new MonosemError(code, `${path}: ${problem}`);
  };

  const contextSize = config.n_positions ?? config.n_ctx ?? refuse("ERR_FORMAT", "n_positions is missing");
  if (config.n_embd % config.n_head !== 0) {
    refuse("ERR_FORMAT", `n_embd (${config.n_embd}) must be a multiple of n_head (${config.n_head})`);
  }
  const activation =
    activations.get(config.activation_function) ??
    refuse(
      "ERR_UNSUPPORTED",
      `activation_function ${JSON.stringify(config.activation_function)} is not supported; ` +
        `supported are ${[...activations.keys()].join(", ")}`,
    );
  if (config.add_cross_attention) refuse("ERR_UNSUPPORTED", "add_cross_attention is not supported");
  if (config.quantization_config != null) {
    refuse(
      "ERR_UNSUPPORTED",
      "quantization_config: quantised weights are not supported; use the f32, f16 or bf16 ones",
    );
  }

  const dHead = config.n_embd / config.n_head;
  const scale = config.scale_attn_weights ? 1 / Math.sqrt(dHead) : 1;
  return {
    architecture: "gpt2",
    name: basename(resolve(directory)),
    nLayers: config.n_layer,
    dModel: config.n_embd,
    nHeads: config.n_head,
    dHead,
    dMlp: config.n_inner ?? 4 * config.n_embd,
    contextSize,
    vocabularySize: config.vocab_size,
    layerNormEpsilon: config.layer_norm_epsilon,
    activation,
    attentionScales: Array.from({ length: config.n_layer }, (_, layer) =>
      config.scale_attn_by_inverse_layer_idx ? scale / (layer + 1) : scale,
    ),
    tiedEmbeddings: config.tie_word_embeddings,
    bosTokenId: config.bos_token_id ?? undefined,
    eosTokenId: config.eos_token_id ?? undefined,
  };
}

/**
 * Loads the weights of `model.safetensors` (f32, f16 or bf16; names with or without the prefix `transformer.`).
 *
 * @throws MonosemError ERR_NOT_FOUND for a missing file or tensor, ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH,
 *   ERR_NON_FINITE for NaN or infinity among the weights, ERR_FORMAT for tensors that a GPT-2 does not have and for a
 *   malformed file; each names the tensor
 */
export async function loadGpt2Weights(directory: string, config: ModelConfig, device: Device): Promise<Gpt2Weights> {
  await using file = await openWeights(join(directory, "model.safetensors"));
  const loader = new WeightLoader(file, device);
  try {
    return await loader.load(config);
  } catch (error) {
    loader.disposeAll();
    throw error;
  }
}

/** Frees every tensor of `weights`. */
export function disposeGpt2Weights(weights: Gpt2Weights): void {
  const { tokenEmbedding, positionEmbedding, finalLayerNorm, unembedding, blocks } = weights;
  for (const tensor of [tokenEmbedding, positionEmbedding, unembedding]) tensor.dispose();
  for (const module of [finalLayerNorm, ...blocks.flatMap((block) => Object.values(block))]) {
    for (const tensor of Object.values(module) as Tensor[]) tensor.dispose();
  }
}

async function openWeights(path: string): Promise<SafetensorsFile> {
  try {
    return await SafetensorsFile.open(path);
  } catch (error) {
    if (error instanceof MonosemError && error.code === "ERR_NOT_FOUND") {
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `${path} does not exist; a checkpoint in another format (pytorch_model.bin) or in several files ` +
          "(model.safetensors.index.json) has to be saved as one safetensors file first",
        { cause: error },
      );
    }
    throw error;
  }
}

/** The causal mask, which some checkpoints store as buffers of each block. */
const maskBuffer = /^h\.\d+\.attn\.(bias|masked_bias)$/;

class WeightLoader {
  readonly #file: SafetensorsFile;
  readonly #device: Device;
  readonly #prefix: string;
  readonly #used = new Set<string>();
  readonly #tensors: Tensor[] = [];

  constructor(file: SafetensorsFile, device: Device) {
    this.#file = file;
    this.#device = device;
    this.#prefix = file.entries.has("transformer.wte.weight") ? "transformer." : "";
  }

  async load(config: ModelConfig): Promise<Gpt2Weights> {
    const { dModel, vocabularySize } = config;
    const tokenEmbedding = await this.#tensor(`${this.#prefix}wte.weight`, [vocabularySize, dModel]);
    const positionEmbedding = await this.#tensor(`${this.#prefix}wpe.weight`, [config.contextSize, dModel]);
    const blocks: Gpt2BlockWeights[] = [];
    for (let layer = 0; layer < config.nLayers; layer++) blocks.push(await this.#block(layer, config));
    const finalLayerNorm = await this.#layerNorm(`${this.#prefix}ln_f`, dModel);
    const unembedding = config.tiedEmbeddings
      ? tokenEmbedding
      : await this.#tensor("lm_head.weight", [vocabularySize, dModel]);
    if (config.tiedEmbeddings) await this.#checkTiedUnembedding();
    this.#refuseUnknown();
    return { tokenEmbedding, positionEmbedding, blocks, finalLayerNorm, unembedding };
  }

  disposeAll(): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }

  async #block(layer: number, { dModel, dMlp }: ModelConfig): Promise<Gpt2BlockWeights> {
    const h = `${this.#prefix}h.${layer}`;
    const ln1 = await this.#layerNorm(`${h}.ln_1`, dModel);
    const [queries, keys, values] = await this.#linears(`${h}.attn.c_attn`, dModel, [dModel, dModel, dModel]);
    const [attentionOutput] = await this.#linears(`${h}.attn.c_proj`, dModel, [dModel]);
    const ln2 = await this.#layerNorm(`${h}.ln_2`, dModel);
    const [mlpInput] = await this.#linears(`${h}.mlp.c_fc`, dModel, [dMlp]);
    const [mlpOutput] = await this.#linears(`${h}.mlp.c_proj`, dMlp, [dModel]);
    return {
      ln1,
      queries: queries!,
      keys: keys!,
      values: values!,
      attentionOutput: attentionOutput!,
      ln2,
      mlpInput: mlpInput!,
      mlpOutput: mlpOutput!,
    };
  }

  async #layerNorm(name: string, width: number): Promise<LayerNormWeights> {
    return {
      weight: await this.#tensor(`${name}.weight`, [width]),
      bias: await this.#tensor(`${name}.bias`, [width]),
    };
  }

  /** A Conv1D of weights [inputs, sum of outputs], cut into linear layers of `outputs` outputs each. */
  async #linears(name: string, inputs: number, outputs: readonly number[]): Promise<LinearWeights[]> {
    const total = outputs.reduce((sum, width) => sum + width, 0);
    const bias = await this.#values(`${name}.bias`, [total]);
    using stored = await this.#upload(`${name}.weight`, [inputs, total], "Conv1D: inputs x outputs");
    const { kernels } = this.#device;
    using transposed = kernels.transpose(stored);
    let first = 0;
    return outputs.map((width) => {
      const part = {
        weights: this.#keep(kernels.sliceRows(transposed, first, width)),
        bias: this.#keep(this.#device.tensor(bias.slice(first, first + width), [width])),
      };
      first += width;
      return part;
    });
  }

  async #tensor(name: string, shape: readonly number[]): Promise<Tensor> {
    return this.#keep(await this.#upload(name, shape));
  }

  async #upload(name: string, shape: readonly number[], layout?: string): Promise<Tensor> {
    return this.#device.tensor(await this.#values(name, shape, layout), shape);
  }

  async #values(name: string, shape: readonly number[], layout?: string): Promise<Float32Array> {
    const where = `tensor ${JSON.stringify(name)} of ${this.#file.path}`;
    const entry = this.#file.entries.get(name);
    if (entry === undefined) {
      throw new MonosemError("ERR_NOT_FOUND", `${where} is missing; expected shape [${shape.join(", ")}]`);
    }
    if (entry.shape.length !== shape.length || entry.shape.some((length, i) => length !== shape[i])) {
      const expected = `[${shape.join(", ")}]${layout === undefined ? "" : ` (${layout})`}`;
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${where} has shape [${entry.shape.join(", ")}], but config.json asks for ${expected}`,
      );
    }
    this.#used.add(name);
    const values = await this.#file.readFloat32(name);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw new MonosemError("ERR_NON_FINITE", `${where} holds ${values[bad]} at element ${bad}`);
    return values;
  }

  #keep(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }

  /** A checkpoint with tied embeddings may store them twice; if the two differ, config.json is wrong about them. */
  async #checkTiedUnembedding(): Promise<void> {
    if (!this.#file.entries.has("lm_head.weight")) return;
    this.#used.add("lm_head.weight");
    const embedding = await this.#file.readFloat32(`${this.#prefix}wte.weight`);
    const unembedding = await this.#file.readFloat32("lm_head.weight");
    if (embedding.length !== unembedding.length || embedding.some((value, i) => value !== unembedding[i])) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${this.#file.path} holds a "lm_head.weight" that differs from the embedding, but config.json ties the two; ` +
          'set "tie_word_embeddings" to false to use it',
      );
    }
  }

  #refuseUnknown(): void {
    const unknown = [...this.#file.entries.keys()].filter(
      (name) => !this.#used.has(name) && !maskBuffer.test(name.slice(this.#prefix.length)),
    );
    if (unknown.length === 0) return;
    const shown = unknown.slice(0, 5).map((name) => JSON.stringify(name));
    if (unknown.length > shown.length) shown.push(`${unknown.length - shown.length} more`);
    throw new MonosemError(
      "ERR_FORMAT",
      `${this.#file.path} holds tensors that a GPT-2 of this config.json does not have: ${shown.join(", ")}`,
    );
  }
}
