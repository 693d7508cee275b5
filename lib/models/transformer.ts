/**
 * The forward pass of GPT-2, as a sequence of kernel calls.
 *
 * Radford et al. 2019: pre-LayerNorm blocks of causal self-attention and a two-layer MLP, learned positions. For token
 * ids t at positions p, with x the residual stream:
 *
 *     x = W_E[t] + W_pos[p]
 *     each block:  x = x + W_O attention(ln1(x)) + b_O
 *                  x = x + W_out gelu(W_in ln2(x) + b_in) + b_out
 *     logits = W_U ln_final(x)
 *
 * Activations are f32 [batch * positions, width]; a hook sees them in TransformerLens' shape. Where a hook asks for
 * what lies between two steps that a kernel can take at once, they are taken one by one; the results agree to rounding.
 */
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import {
  disposeGpt2Weights,
  type Gpt2BlockWeights,
  type Gpt2Weights,
  type LayerNormWeights,
  type LinearWeights,
} from "./gpt2Checkpoint.js";
import { type ForwardPass, hookPoint } from "./hooks.js";
import type { KeyValueCache } from "./keyValueCache.js";
import type { ModelConfig } from "./modelConfig.js";

/** What a forward pass is to do. */
export interface Gpt2PassOptions {
  /** Token ids, i32 [batch * positions], sequence after sequence; checked before, and not taken over. */
  readonly ids: Tensor;
  readonly batch: number;
  readonly positions: number;
  /** The hook points at which the pass shall yield. */
  readonly hookNames?: ReadonlySet<string>;
  /** Blocks to run; with fewer than the model has, the result is the residual stream that enters the next one. */
  readonly stopAtLayer?: number;
  /** Earlier positions of the same sequences; the pass adds its own. */
  readonly cache?: KeyValueCache;
  /** Logits of each sequence's last position only, [batch, vocabularySize]. */
  readonly lastPositionOnly?: boolean;
}

export class Gpt2 {
  readonly config: ModelConfig;
  readonly device: Device;
  readonly #weights: Gpt2Weights;

  constructor(config: ModelConfig, weights: Gpt2Weights, device: Device) {
    this.config = config;
    this.device = device;
    this.#weights = weights;
  }

  /** Logits [batch * positions, vocabularySize], or with `stopAtLayer` the residual stream [batch * positions, dModel]. */
  *forward(options: Gpt2PassOptions): ForwardPass {
    const { batch, positions, cache, stopAtLayer = this.config.nLayers } = options;
    const pass = new Pass(this.config, this.device, this.#weights, options);
    let residual = yield* pass.embed();
    for (let layer = 0; layer < stopAtLayer; layer++) residual = yield* pass.block(layer, residual);
    cache?.advance(positions);
    if (options.stopAtLayer !== undefined) return residual;
    if (!options.lastPositionOnly) return yield* pass.logits(residual);
    using all = residual;
    using lastRows = this.device.tensor(
      Int32Array.from({ length: batch }, (_, sequence) => (sequence + 1) * positions - 1),
      [batch],
    );
    return yield* pass.logits(this.device.kernels.gatherRows(all, lastRows));
  }

  /** What `HookedTransformer.directionLogits` says. */
  directionLogits(directions: Tensor): Tensor {
    const { kernels } = this.device;
    const { finalLayerNorm, unembedding } = this.#weights;
    using columns = kernels.transpose(directions); // [dModel, rows]
    using sums = kernels.columnSums(columns);
    using scaled = kernels.addRow(columns, sums, { scale: -1 / this.config.dModel });
    kernels.scaleRows(scaled, finalLayerNorm.weight, { out: scaled });
    using rows = kernels.transpose(scaled);
    return kernels.linear(rows, unembedding);
  }

  dispose(): void {
    disposeGpt2Weights(this.#weights);
  }
}

/** One pass through the model. The caller disposes what a method returns; only the residual stream is taken over. */
class Pass {
  readonly #config: ModelConfig;
  readonly #device: Device;
  readonly #weights: Gpt2Weights;
  readonly #options: Gpt2PassOptions;

  constructor(config: ModelConfig, device: Device, weights: Gpt2Weights, options: Gpt2PassOptions) {
    this.#config = config;
    this.#device = device;
    this.#weights = weights;
    this.#options = options;
  }

  *embed(): ForwardPass {
    const { ids, batch, positions, cache } = this.#options;
    const { kernels } = this.#device;
    const first = cache?.positions ?? 0;
    const positionOfRow = Int32Array.from({ length: batch * positions }, (_, row) => first + (row % positions));
    using places = this.#device.tensor(positionOfRow, [batch * positions]);
    using embed = yield* this.#at("hook_embed", kernels.gatherRows(this.#weights.tokenEmbedding, ids));
    const positionRows = kernels.gatherRows(this.#weights.positionEmbedding, places);
    using positionEmbed = yield* this.#at("hook_pos_embed", positionRows);
    return kernels.add(embed, positionEmbed);
  }

  *block(layer: number, entering: Tensor): ForwardPass {
    const name = `blocks.${layer}`;
    const weights = this.#weights.blocks[layer]!;
    using residPre = yield* this.#at(`${name}.hook_resid_pre`, entering);
    using attentionInput = yield* this.#layerNorm(`${name}.ln1`, residPre, weights.ln1);
    using z = yield* this.#attention(layer, attentionInput, weights);
    const withAttention = yield* this.#projectOnto(residPre, `${name}.hook_attn_out`, z, weights.attentionOutput);
    using residMid = yield* this.#at(`${name}.hook_resid_mid`, withAttention);
    using mlpInput = yield* this.#layerNorm(`${name}.ln2`, residMid, weights.ln2);
    using neurons = yield* this.#neurons(`${name}.mlp`, mlpInput, weights.mlpInput);
    const withMlp = yield* this.#projectOnto(residMid, `${name}.hook_mlp_out`, neurons, weights.mlpOutput);
    return yield* this.#at(`${name}.hook_resid_post`, withMlp);
  }

  *logits(leaving: Tensor): ForwardPass {
    using residual = leaving;
    using normalized = yield* this.#layerNorm("ln_final", residual, this.#weights.finalLayerNorm);
    return this.#device.kernels.linear(normalized, this.#weights.unembedding);
  }

  /** Heads' outputs before the output projection, [batch * positions, dModel]. */
  *#attention(layer: number, input: Tensor, weights: Gpt2BlockWeights): ForwardPass {
    const { batch, positions, cache } = this.#options;
    const { nHeads, dHead, dModel } = this.#config;
    const { kernels } = this.#device;
    const name = `blocks.${layer}.attn`;
    const perHead = [batch, positions, nHeads, dHead];
    using queries = yield* this.#at(`${name}.hook_q`, this.#project(input, weights.queries, perHead));
    using keys = yield* this.#at(`${name}.hook_k`, this.#project(input, weights.keys, perHead));
    using values = yield* this.#at(`${name}.hook_v`, this.#project(input, weights.values, perHead));
    const scale = this.#config.attentionScales[layer]!;
    const keyPositions = (cache?.positions ?? 0) + positions;
    const operands = { queries, ...(cache?.append(layer, keys, values) ?? { keys, values }), keyPositions, scale };

    if (!this.#hooked(`${name}.hook_attn_scores`) && !this.#hooked(`${name}.hook_pattern`)) {
      using z = yield* this.#at(`${name}.hook_z`, kernels.attention(operands));
      return z.reshape([batch * positions, dModel]);
    }
    using scores = yield* this.#at(`${name}.hook_attn_scores`, kernels.attentionScores(operands));
    using pattern = yield* this.#at(`${name}.hook_pattern`, kernels.softmaxRows(scores));
    using z = yield* this.#at(`${name}.hook_z`, kernels.attentionMix(pattern, operands));
    return z.reshape([batch * positions, dModel]);
  }

  /** The MLP's hidden layer after its activation function, [batch * positions, dMlp]. */
  *#neurons(name: string, input: Tensor, { weights, bias }: LinearWeights): ForwardPass {
    const { kernels } = this.#device;
    const { activation } = this.#config;
    if (!this.#hooked(`${name}.hook_pre`)) {
      return yield* this.#at(`${name}.hook_post`, kernels.linear(input, weights, { bias, activation }));
    }
    using pre = yield* this.#at(`${name}.hook_pre`, kernels.linear(input, weights, { bias }));
    return yield* this.#at(`${name}.hook_post`, kernels.activation(pre, activation));
  }

  /** residual + (input . weights^T + bias), where `name` is the hook point of the summand. */
  *#projectOnto(residual: Tensor, name: string, input: Tensor, { weights, bias }: LinearWeights): ForwardPass {
    const { kernels } = this.#device;
    if (!this.#hooked(name)) return kernels.linear(input, weights, { bias, residual });
    using summand = yield* this.#at(name, kernels.linear(input, weights, { bias }));
    return kernels.add(residual, summand);
  }

  /** (input - mean) / scale * weight + bias, with scale = sqrt(variance + epsilon). */
  *#layerNorm(name: string, input: Tensor, { weight, bias }: LayerNormWeights): ForwardPass {
    const { kernels } = this.#device;
    const epsilon = this.#config.layerNormEpsilon;
    if (!this.#hooked(`${name}.hook_scale`) && !this.#hooked(`${name}.hook_normalized`)) {
      return kernels.layerNorm(input, { weight, bias, epsilon });
    }
    const parts = kernels.layerNormParts(input, { epsilon });
    using computedScale = parts.scale;
    using computed = parts.normalized;
    const shown = computedScale.reshape(computedScale.shape);
    using scale = yield* this.#at(`${name}.hook_scale`, shown);
    const rescaled = scale === shown ? computed : yield* this.#rescale(computed, computedScale, scale);
    using normalized = yield* this.#at(`${name}.hook_normalized`, rescaled);
    // Columns times weight are rows of the transposed times weight; only passes with these hooks come here.
    using columns = kernels.transpose(normalized);
    using weightedColumns = kernels.scaleRows(columns, weight);
    using weighted = kernels.transpose(weightedColumns);
    return kernels.addRow(weighted, bias);
  }

  /** What was divided by `scale`, divided by `newScale` instead; both [batch * positions]. */
  *#rescale(normalized: Tensor, scale: Tensor, newScale: Tensor): ForwardPass {
    using factors = yield { numerator: scale, denominator: newScale };
    return this.#device.kernels.scaleRows(normalized, factors!);
  }

  #project(input: Tensor, { weights, bias }: LinearWeights, shape: readonly number[]): Tensor {
    using projected = this.#device.kernels.linear(input, weights, { bias });
    return projected.reshape(shape);
  }

  #hooked(name: string): boolean {
    return this.#options.hookNames?.has(name) ?? false;
  }

  /**
   * The hook point `name`: takes `value` over and returns it, or what a hook replaced it by. Hooks see values per token,
   * [batch * positions, width] or [batch * positions], as [batch, positions, width].
   */
  *#at(name: string, value: Tensor): ForwardPass {
    if (!this.#hooked(name)) return value;
    const { batch, positions } = this.#options;
    const [, width = 1] = value.shape;
    return yield* hookPoint(name, value, value.shape.length > 2 ? value.shape : [batch, positions, width]);
  }
}
