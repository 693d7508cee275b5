/**
 * The forward pass of a decoder, as a sequence of kernel calls.
 *
 * For token ids t, with x the residual stream (Radford et al. 2019, Touvron et al. 2023, and what the families of
 * `ModelConfig` have of their own):
 *
 *     x = scale * W_E[t] (+ W_pos[p])
 *     each block:  x = x + ln1_post(W_O attention(ln1(x)) + b_O)          the posts where the family has them
 *                  x = x + ln2_post(W_out mlp(ln2(x)) + b_out)            parallel blocks: of the same x as attention
 *     logits = cap(W_U ln_final(x) + b_U)
 *
 * where mlp(y) = f(W_in y + b_in), or f(W_gate y) * (W_in y), and attention may normalise queries and keys, turn them by
 * rotary positions, cap its scores and look no further back than a window.
 *
 * Activations are f32 [batch * positions, width]; a hook sees them in TransformerLens' shape. Where a hook asks for
 * what lies between two steps that a kernel can take at once, they are taken one by one; the results agree to rounding.
 */
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import type { AttentionOperands } from "../engine/transformerKernels.js";
import { type ForwardPass, hookPoint } from "./hooks.js";
import type { KeyValueCache } from "./keyValueCache.js";
import type { ModelConfig } from "./modelConfig.js";
import {
  type BlockWeights,
  disposeWeights,
  type LinearWeights,
  type ModelWeights,
  type NormWeights,
} from "./modelWeights.js";
import { RotaryTable } from "./rotary.js";

/** What a forward pass is to do. */
export interface PassOptions {
  /** Token ids, i32 [batch * positions], sequence after sequence; checked before, and not taken over. */
  readonly ids: Tensor;
  readonly batch: number;
  readonly positions: number;
  /** Where each sequence begins, i32 [batch] on the device and as numbers: what lies before is padding. Default: 0. */
  readonly starts?: { readonly onDevice: Tensor; readonly values: Int32Array } | undefined;
  /** The hook points at which the pass shall yield. */
  readonly hookNames?: ReadonlySet<string>;
  /** Blocks to run; with fewer than the model has, the result is the residual stream that enters the next one. */
  readonly stopAtLayer?: number;
  /** Earlier positions of the same sequences; the pass adds its own. */
  readonly cache?: KeyValueCache;
  /** Logits of each sequence's last position only, [batch, vocabularySize]. */
  readonly lastPositionOnly?: boolean;
}

/** What a model has been asked to compute; a pass that stops early, or goes on from cached positions, counts as any other. */
export interface ForwardPasses {
  /** Times that the model ran. */
  readonly runs: number;
  /** Sequences that went through it: a run of a batch of eight is eight. */
  readonly sequences: number;
  /** Tokens that went through it, padding included. */
  readonly tokens: number;
}

export class Transformer {
  readonly config: ModelConfig;
  readonly device: Device;
  passes: ForwardPasses = { runs: 0, sequences: 0, tokens: 0 };
  readonly #weights: ModelWeights;
  readonly #rotary: RotaryTable | undefined;

  constructor(config: ModelConfig, weights: ModelWeights, device: Device) {
    this.config = config;
    this.device = device;
    this.#weights = weights;
    this.#rotary = config.rotary === undefined ? undefined : new RotaryTable(config.rotary, device);
  }

  /** Logits [batch * positions, vocabularySize], or with `stopAtLayer` the residual stream [batch * positions, dModel]. */
  *forward(options: PassOptions): ForwardPass {
    const { batch, positions, cache, stopAtLayer = this.config.nLayers } = options;
    const { runs, sequences, tokens } = this.passes;
    this.passes = { runs: runs + 1, sequences: sequences + batch, tokens: tokens + batch * positions };
    using pass = new Pass(this.config, this.device, this.#weights, this.#rotary, options);
    let residual = yield* pass.embed();
    for (let layer = 0; layer < stopAtLayer; layer++) residual = yield* pass.block(layer, residual);
    cache?.advance(positions);
    return options.stopAtLayer === undefined ? yield* pass.logits(residual) : residual;
  }

  /** What `HookedTransformer.directionLogits` says. */
  directionLogits(directions: Tensor): Tensor {
    const { kernels } = this.device;
    const { finalNorm, unembedding } = this.#weights;
    using centred = this.config.normalization === "layer" ? this.#centred(directions) : undefined;
    const rows = centred ?? directions;
    using scaled = finalNorm.weight && kernels.scaleColumns(rows, finalNorm.weight);
    return kernels.linear(scaled ?? rows, unembedding.weights);
  }

  dispose(): void {
    disposeWeights(this.#weights);
    this.#rotary?.dispose();
  }

  /** Rows [rows, dModel] less their means. */
  #centred(directions: Tensor): Tensor {
    const { kernels } = this.device;
    using columns = kernels.transpose(directions);
    using sums = kernels.columnSums(columns);
    using centred = kernels.addRow(columns, sums, { scale: -1 / this.config.dModel });
    return kernels.transpose(centred);
  }
}

/** One pass through the model. The caller disposes what a method returns; only the residual stream is taken over. */
class Pass {
  readonly #config: ModelConfig;
  readonly #device: Device;
  readonly #weights: ModelWeights;
  readonly #options: PassOptions;
  /** Position of each row within its sequence, i32 [batch * positions]; 0 for padding. */
  readonly #places: Tensor;
  readonly #rotation: { readonly cosines: Tensor; readonly sines: Tensor; readonly interleaved: boolean } | undefined;

  constructor(
    config: ModelConfig,
    device: Device,
    weights: ModelWeights,
    rotary: RotaryTable | undefined,
    options: PassOptions,
  ) {
    this.#config = config;
    this.#device = device;
    this.#weights = weights;
    this.#options = options;
    const { batch, positions, cache, starts } = options;
    const first = cache?.positions ?? 0;
    const placeOfRow = Int32Array.from({ length: batch * positions }, (_, row) =>
      Math.max(0, first + (row % positions) - (starts?.values[Math.floor(row / positions)] ?? 0)),
    );
    this.#places = device.tensor(placeOfRow, [batch * positions]);
    const end = first + positions;
    this.#rotation = rotary && {
      ...rotary.at(this.#places, end, cache?.capacity ?? end),
      interleaved: rotary.interleaved,
    };
  }

  [Symbol.dispose](): void {
    this.#places.dispose();
    this.#rotation?.cosines.dispose();
    this.#rotation?.sines.dispose();
  }

  *embed(): ForwardPass {
    const { kernels } = this.#device;
    const { tokenEmbedding, positionEmbedding } = this.#weights;
    const tokens = kernels.gatherRows(tokenEmbedding, this.#options.ids);
    if (this.#config.embeddingScale !== 1) kernels.scale(tokens, this.#config.embeddingScale, { out: tokens });
    if (positionEmbedding === undefined) return yield* this.#at("hook_embed", tokens);
    using embed = yield* this.#at("hook_embed", tokens);
    using positionEmbed = yield* this.#at("hook_pos_embed", kernels.gatherRows(positionEmbedding, this.#places));
    return kernels.add(embed, positionEmbed);
  }

  *block(layer: number, entering: Tensor): ForwardPass {
    const name = `blocks.${layer}`;
    const weights = this.#weights.blocks[layer]!;
    using residPre = yield* this.#at(`${name}.hook_resid_pre`, entering);
    using attentionInput = yield* this.#norm(`${name}.ln1`, residPre, weights.ln1);
    using z = yield* this.#attention(layer, attentionInput, weights);
    const attentionOut = { linear: weights.attentionOutput, post: `${name}.ln1_post`, norm: weights.ln1Post };
    let withAttention = yield* this.#projectOnto(residPre, `${name}.hook_attn_out`, z, attentionOut);
    if (!this.#config.parallelBlocks) withAttention = yield* this.#at(`${name}.hook_resid_mid`, withAttention);
    using residMid = withAttention;
    const mlpReads = this.#config.parallelBlocks ? residPre : residMid;
    using mlpInput = yield* this.#norm(`${name}.ln2`, mlpReads, weights.ln2);
    using neurons = yield* this.#neurons(`${name}.mlp`, mlpInput, weights);
    const mlpOut = { linear: weights.mlpOutput, post: `${name}.ln2_post`, norm: weights.ln2Post };
    const withMlp = yield* this.#projectOnto(residMid, `${name}.hook_mlp_out`, neurons, mlpOut);
    return yield* this.#at(`${name}.hook_resid_post`, withMlp);
  }

  *logits(leaving: Tensor): ForwardPass {
    const { kernels } = this.#device;
    const { logitSoftCap: cap } = this.#config;
    const { weights, bias } = this.#weights.unembedding;
    const { lastPositionOnly = false } = this.#options;
    // Hooks see all positions; without them only those are normalised that are asked for.
    const hooked = this.#hooked("ln_final.hook_scale") || this.#hooked("ln_final.hook_normalized");
    using residual = lastPositionOnly && !hooked ? this.#lastPositions(leaving) : leaving;
    using normalized = yield* this.#norm("ln_final", residual, this.#weights.finalNorm);
    using rows = lastPositionOnly && hooked ? this.#lastPositions(normalized) : normalized;
    const logits = kernels.linear(rows, weights, { bias });
    if (cap === undefined) return logits;
    using uncapped = logits;
    kernels.scale(uncapped, 1 / cap, { out: uncapped });
    const capped = kernels.activation(uncapped, "tanh");
    return kernels.scale(capped, cap, { out: capped });
  }

  /** Of rows [batch * positions, width] the last of each sequence, [batch, width]; takes `rows` over. */
  #lastPositions(rows: Tensor): Tensor {
    const { batch, positions } = this.#options;
    if (positions === 1) return rows;
    using all = rows;
    const lastRows = Int32Array.from({ length: batch }, (_, sequence) => (sequence + 1) * positions - 1);
    using indices = this.#device.tensor(lastRows, [batch]);
    return this.#device.kernels.gatherRows(all, indices);
  }

  /** Heads' outputs before the output projection, [batch * positions, nHeads * dHead]. */
  *#attention(layer: number, input: Tensor, weights: BlockWeights): ForwardPass {
    const { batch, positions, starts, cache } = this.#options;
    const { nHeads, nKeyValueHeads, dHead } = this.#config;
    const { kernels } = this.#device;
    const name = `blocks.${layer}.attn`;
    const perHead = [batch, positions, nHeads, dHead];
    const perKeyHead = [batch, positions, nKeyValueHeads, dHead];
    using plainQueries = yield* this.#at(`${name}.hook_q`, this.#project(input, weights.queries, perHead));
    using plainKeys = yield* this.#at(`${name}.hook_k`, this.#project(input, weights.keys, perKeyHead));
    using values = yield* this.#at(`${name}.hook_v`, this.#project(input, weights.values, perKeyHead));
    // A step that the model does not have gives back what it was given; to dispose a tensor twice is to dispose it.
    using normedQueries = yield* this.#normOfHeads(`${name}.q_norm`, plainQueries, weights.queryNorm);
    using normedKeys = yield* this.#normOfHeads(`${name}.k_norm`, plainKeys, weights.keyNorm);
    using queries = yield* this.#rotated(`${name}.hook_rot_q`, normedQueries);
    using keys = yield* this.#rotated(`${name}.hook_rot_k`, normedKeys);
    const operands: AttentionOperands = {
      queries,
      ...(cache?.append(layer, keys, values) ?? { keys, values }),
      keyPositions: (cache?.positions ?? 0) + positions,
      scale: this.#config.attentionScales[layer]!,
      softCap: this.#config.attentionSoftCap,
      window: this.#config.attentionWindows[layer],
      firstKeys: starts?.onDevice,
    };
    const rows = [batch * positions, nHeads * dHead];

    if (!this.#hooked(`${name}.hook_attn_scores`) && !this.#hooked(`${name}.hook_pattern`)) {
      using z = yield* this.#at(`${name}.hook_z`, kernels.attention(operands));
      return z.reshape(rows);
    }
    using scores = yield* this.#at(`${name}.hook_attn_scores`, kernels.attentionScores(operands));
    using pattern = yield* this.#at(`${name}.hook_pattern`, kernels.softmaxRows(scores));
    using z = yield* this.#at(`${name}.hook_z`, kernels.attentionMix(pattern, operands));
    return z.reshape(rows);
  }
  /** Queries or keys normalised head by head, [batch, positions, heads, dHead]. */
  *#normOfHeads(name: string, vectors: Tensor, weights: NormWeights | undefined): ForwardPass {
    return weights === undefined ? vectors : yield* this.#norm(name, vectors, weights);
  }

  /** Queries or keys turned by their positions, [batch, positions, heads, dHead]. */
  *#rotated(name: string, vectors: Tensor): ForwardPass {
    if (this.#rotation === undefined) return vectors;
    return yield* this.#at(name, this.#device.kernels.rotate(vectors, this.#rotation));
  }

  /** The MLP's hidden layer, [batch * positions, dMlp]: what its output projection reads. */
  *#neurons(name: string, input: Tensor, { mlpGate, mlpInput }: BlockWeights): ForwardPass {
    const { kernels } = this.#device;
    const { activation } = this.#config;
    const linear = ({ weights, bias }: LinearWeights): Tensor => kernels.linear(input, weights, { bias });
    if (mlpGate !== undefined) {
      using gate = yield* this.#at(`${name}.hook_pre`, linear(mlpGate));
      using factor = yield* this.#at(`${name}.hook_pre_linear`, linear(mlpInput));
      return yield* this.#at(`${name}.hook_post`, kernels.gatedActivation(gate, factor, activation));
    }
    if (!this.#hooked(`${name}.hook_pre`)) {
      const { weights, bias } = mlpInput;
      return yield* this.#at(`${name}.hook_post`, kernels.linear(input, weights, { bias, activation }));
    }
    using pre = yield* this.#at(`${name}.hook_pre`, linear(mlpInput));
    return yield* this.#at(`${name}.hook_post`, kernels.activation(pre, activation));
  }

  /** residual + norm(input . weights^T + bias), where `name` is the hook point of the summand; the norm may be absent. */
  *#projectOnto(
    residual: Tensor,
    name: string,
    input: Tensor,
    projection: { readonly linear: LinearWeights; readonly post: string; readonly norm: NormWeights | undefined },
  ): ForwardPass {
    const { kernels } = this.#device;
    const { linear, post, norm } = projection;
    const { weights, bias } = linear;
    if (norm === undefined && !this.#hooked(name)) return kernels.linear(input, weights, { bias, residual });
    using projected = kernels.linear(input, weights, { bias });
    using normed = norm === undefined ? projected : yield* this.#norm(post, projected, norm);
    using summand = yield* this.#at(name, normed);
    return kernels.add(residual, summand);
  }

  /** (input - mean) / scale * weight + bias with scale = sqrt(variance + epsilon); RMSNorm leaves out mean and bias. */
  *#norm(name: string, input: Tensor, { weight, bias }: NormWeights): ForwardPass {
    const { kernels } = this.#device;
    const epsilon = this.#config.normEpsilon;
    const centred = this.#config.normalization === "layer";
    if (!this.#hooked(`${name}.hook_scale`) && !this.#hooked(`${name}.hook_normalized`)) {
      return centred
        ? kernels.layerNorm(input, { weight, bias, epsilon })
        : kernels.rmsNorm(input, { weight, epsilon });
    }
    const parts = (centred ? kernels.layerNormParts : kernels.rmsNormParts).call(kernels, input, { epsilon });
    using computedScale = parts.scale;
    using computed = parts.normalized;
    const shown = computedScale.reshape([...input.shape.slice(0, -1), 1]);
    using scale = yield* this.#at(`${name}.hook_scale`, shown);
    using rescaled = scale === shown ? computed : this.#rescale(computed, computedScale, scale);
    using normalized = yield* this.#at(`${name}.hook_normalized`, rescaled);
    using weighted = weight === undefined ? normalized : kernels.scaleColumns(normalized, weight);
    return bias === undefined ? weighted.reshape(weighted.shape) : kernels.addRow(weighted, bias);
  }

  /** What was divided by `scale`, divided by `newScale` instead. */
  #rescale(normalized: Tensor, scale: Tensor, newScale: Tensor): Tensor {
    using divisor = newScale.reshape(scale.shape);
    using factors = this.#device.kernels.divide(scale, divisor);
    return this.#device.kernels.scaleRows(normalized, factors);
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
   * [batch * positions, width], as [batch, positions, width].
   */
  *#at(name: string, value: Tensor): ForwardPass {
    if (!this.#hooked(name)) return value;
    const { batch, positions } = this.#options;
    const [, width = 1] = value.shape;
    return yield* hookPoint(name, value, value.shape.length > 2 ? value.shape : [batch, positions, width]);
  }
}
