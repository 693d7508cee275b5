import { type NativeAttention, native } from "./addon.js";
import { DenseKernels } from "./denseKernels.js";
import type { Operands } from "./operands.js";
import type { Tensor } from "./tensor.js";

/**
 * "gelu_new" is the tanh approximation of GPT-2, "gelu" the exact one; "silu" is x · sigmoid(x); "heaviside" is 1 where
 * x > 0, else 0.
 */
export type Activation = "none" | "gelu_new" | "gelu" | "relu" | "exp" | "sigmoid" | "tanh" | "heaviside" | "silu";

const ACTIVATIONS: readonly string[] = [
  "none",
  "gelu_new",
  "gelu",
  "relu",
  "exp",
  "sigmoid",
  "tanh",
  "heaviside",
  "silu",
] satisfies Activation[];

/**
 * Queries [batch, queryPositions, heads, dHead], the last of `keyPositions` positions; keys and values
 * [batch, capacity, keyHeads, dHead], of which the first `keyPositions` (default: all) are filled. heads / keyHeads heads
 * of queries that follow each other share a head of keys and values.
 */
export interface AttentionOperands {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
  readonly keyPositions?: number | undefined;
  /** Of the scores. Default: 1 / sqrt(dHead). */
  readonly scale?: number | undefined;
  /** Scores s become softCap · tanh(s / softCap). Default: they stay. */
  readonly softCap?: number | undefined;
  /** How many positions one sees, itself included. Default: all up to itself. */
  readonly window?: number | undefined;
  /** i32 [batch]: the position at which each sequence begins; those before are not seen. Default: 0 for all. */
  readonly firstKeys?: Tensor | undefined;
}

/** How {@link Kernels.sample} draws from softmax(logits / temperature). */
export interface Sampling {
  /** 0: the largest logit, the lowest index among equals. Default: 1. */
  readonly temperature?: number | undefined;
  /** Draw among the k largest logits. Default 0: among all. */
  readonly topK?: number | undefined;
  /** Draw among the most probable tokens that come to this probability together. Default 1: among all. */
  readonly topP?: number | undefined;
  readonly seed: number;
  /** Of the counter-based generator; row r draws number offset + r. */
  readonly offset: number;
}

/** The part of {@link Kernels} that computes transformers. */
export abstract class TransformerKernels extends DenseKernels {
  /**
   * activation(x · weightsᵀ + bias) + residual: x [..., in], weights [out, in], bias [out], residual and result [..., out].
   * Weights may be bf16; everything else is f32. `exact`: with f32 weights computed in float32 whatever the
   * precision of the device.
   */
  linear(
    x: Tensor,
    weights: Tensor,
    options: {
      readonly bias?: Tensor | undefined;
      readonly activation?: Activation | undefined;
      readonly residual?: Tensor | undefined;
      readonly exact?: boolean | undefined;
    } = {},
  ): Tensor {
    const call = this.call("linear");
    const xHandle = call.tensor("x", x, ["...tokens", "in"]);
    const weightsHandle = call.tensor("weights", weights, ["out", "in"], weights.dtype === "bf16" ? "bf16" : "f32");
    const bias = call.optionalTensor("bias", options.bias, ["out"]);
    const activation = this.#activation(call, options.activation ?? "none");
    const residual = call.optionalTensor("residual", options.residual, ["...tokens", "out"]);
    const out = call.output([...x.shape.slice(0, -1), call.size("out")]);
    native.linear(call.native, xHandle, weightsHandle, bias, activation, residual, options.exact ?? false, out.handle);
    return out.tensor;
  }

  /** activation(x), element by element. */
  activation(x: Tensor, activation: Activation): Tensor {
    const call = this.call("activation");
    const xHandle = call.tensor("x", x, ["...elements"]);
    const out = call.output(x.shape);
    native.activation(call.native, xHandle, this.#activation(call, activation), out.handle);
    return out.tensor;
  }

  /** (x - mean) / sqrt(variance + epsilon) * weight + bias over the last dimension; weight and bias are [width]. */
  layerNorm(
    x: Tensor,
    options: { readonly weight?: Tensor | undefined; readonly bias?: Tensor | undefined; readonly epsilon: number },
  ): Tensor {
    const call = this.call("layerNorm");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const weight = call.optionalTensor("weight", options.weight, ["width"]);
    const bias = call.optionalTensor("bias", options.bias, ["width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const out = call.output(x.shape);
    native.layerNorm(call.native, xHandle, weight, bias, epsilon, out.handle);
    return out.tensor;
  }

  /** The parts of a LayerNorm for hooks: scale = sqrt(variance + epsilon) [tokens], normalized = (x - mean) / scale. */
  layerNormParts(
    x: Tensor,
    options: { readonly epsilon: number },
  ): { readonly normalized: Tensor; readonly scale: Tensor } {
    const call = this.call("layerNormParts");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const normalized = call.output(x.shape);
    const scale = call.output([call.size("tokens")]);
    native.layerNormParts(call.native, xHandle, epsilon, normalized.handle, scale.handle);
    return { normalized: normalized.tensor, scale: scale.tensor };
  }

  /** x / sqrt(mean of x² + epsilon) * weight over the last dimension; weight is [width]. */
  rmsNorm(x: Tensor, options: { readonly weight?: Tensor | undefined; readonly epsilon: number }): Tensor {
    const call = this.call("rmsNorm");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const weight = call.optionalTensor("weight", options.weight, ["width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const out = call.output(x.shape);
    native.rmsNorm(call.native, xHandle, weight, epsilon, out.handle);
    return out.tensor;
  }

  /** The parts of an RMS norm for hooks: scale = sqrt(mean of x² + epsilon) [tokens], normalized = x / scale. */
  rmsNormParts(
    x: Tensor,
    options: { readonly epsilon: number },
  ): { readonly normalized: Tensor; readonly scale: Tensor } {
    const call = this.call("rmsNormParts");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const normalized = call.output(x.shape);
    const scale = call.output([call.size("tokens")]);
    native.rmsNormParts(call.native, xHandle, epsilon, normalized.handle, scale.handle);
    return { normalized: normalized.tensor, scale: scale.tensor };
  }

  /**
   * Rotary positions: in every head of x [..., heads, dHead], pairs of elements (a, b) become (a cos - b sin, b cos + a
   * sin). Pair i is (i, pairs + i), or (2i, 2i + 1) where they are interleaved; elements beyond the pairs stay. cosines
   * and sines are [tokens, pairs].
   */
  rotate(
    x: Tensor,
    rotation: { readonly cosines: Tensor; readonly sines: Tensor; readonly interleaved: boolean },
  ): Tensor {
    const call = this.call("rotate");
    const xHandle = call.tensor("x", x, ["...tokens", "heads", "dHead"]);
    const cosines = call.tensor("cosines", rotation.cosines, ["tokens", "pairs"]);
    const sines = call.tensor("sines", rotation.sines, ["tokens", "pairs"]);
    if (2 * call.size("pairs") > call.size("dHead")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${call.size("pairs")} pairs need ${2 * call.size("pairs")} elements, a head has ${call.size("dHead")}`,
      );
    }
    const out = call.output(x.shape);
    native.rotate(call.native, xHandle, cosines, sines, rotation.interleaved, out.handle);
    return out.tensor;
  }

  /** activation(gate) * x, element by element. */
  gatedActivation(gate: Tensor, x: Tensor, activation: Activation): Tensor {
    const call = this.call("gatedActivation");
    const gateHandle = call.tensor("gate", gate, ["...rows", "width"]);
    const xHandle = call.tensor("x", x, ["...rows", "width"]);
    const out = call.output(x.shape);
    native.gatedActivation(call.native, gateHandle, xHandle, this.#activation(call, activation), out.handle);
    return out.tensor;
  }

  /** Causal attention, [batch, queryPositions, heads, dHead]; nothing of size positions² is written. */
  attention(operands: AttentionOperands): Tensor {
    const call = this.call("attention");
    const attention = this.#attention(call, operands);
    const out = call.output(operands.queries.shape);
    native.attention(call.native, ...attention, out.handle);
    return out.tensor;
  }

  /** The scaled scores, [batch, heads, queryPositions, keyPositions]; masked places are -Infinity. */
  attentionScores(operands: AttentionOperands): Tensor {
    const call = this.call("attentionScores");
    const attention = this.#attention(call, operands);
    const out = call.output(this.#scoresShape(call, attention[3]));
    native.attentionScores(call.native, ...attention, out.handle);
    return out.tensor;
  }

  /** Softmax over the last dimension; a row of only -Infinity gives zeros. */
  softmaxRows(scores: Tensor): Tensor {
    const call = this.call("softmaxRows");
    const scoresHandle = call.tensor("scores", scores, ["...rows", "columns"]);
    const out = call.output(scores.shape);
    native.softmaxRows(call.native, scoresHandle, out.handle);
    return out.tensor;
  }

  /** Values mixed by a pattern [batch, heads, queryPositions, keyPositions]: [batch, queryPositions, heads, dHead]. */
  attentionMix(pattern: Tensor, operands: AttentionOperands): Tensor {
    const call = this.call("attentionMix");
    const attention = this.#attention(call, operands);
    const patternHandle = call.tensor("pattern", pattern, this.#scoresShape(call, attention[3]));
    const out = call.output(operands.queries.shape);
    native.attentionMix(call.native, ...attention, patternHandle, out.handle);
    return out.tensor;
  }

  /** Copies rows [batch, positions, width] into cache [batch, capacity, width] from position `first` on. */
  appendPositions(rows: Tensor, cache: Tensor, first: number): void {
    const call = this.call("appendPositions");
    const rowsHandle = call.tensor("rows", rows, ["batch", "positions", "width"]);
    const cacheHandle = call.tensor("cache", cache, ["batch", "capacity", "width"]);
    call.integer("first", first);
    call.requireDistinct("rows", rows, "cache", cache);
    if (first + call.size("positions") > call.size("capacity")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${call.size("positions")} positions from ${first} on do not fit into the cache, which has ${call.size("capacity")}`,
      );
    }
    native.appendPositions(call.native, rowsHandle, cacheHandle, first);
  }

  /** Log-softmax over the last dimension. */
  logSoftmax(logits: Tensor): Tensor {
    const call = this.call("logSoftmax");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const out = call.output(logits.shape);
    native.logSoftmax(call.native, logitsHandle, out.handle);
    return out.tensor;
  }

  /**
   * Tensor [rows]: -log softmax(logits[r])[targets[r]] in nats; logits [..., vocabulary], targets i32 [..., rows in all]. A
   * negative target gives 0; one beyond the vocabulary is ERR_INVALID_ARGUMENT at the next read.
   */
  crossEntropy(logits: Tensor, targets: Tensor): Tensor {
    const call = this.call("crossEntropy");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const targetsHandle = call.tensor("targets", targets, ["...rows"], "i32");
    const out = call.output([call.size("rows")]);
    native.crossEntropy(call.native, logitsHandle, targetsHandle, out.handle);
    return out.tensor;
  }

  /** Tensor [rows]: KL(softmax(p[r]) || softmax(q[r])) in nats, of logits p and q [..., vocabulary]. */
  klDivergence(p: Tensor, q: Tensor): Tensor {
    const call = this.call("klDivergence");
    const pHandle = call.tensor("p", p, ["...rows", "vocabulary"]);
    const qHandle = call.tensor("q", q, ["...rows", "vocabulary"]);
    const out = call.output([call.size("rows")]);
    native.klDivergence(call.native, pHandle, qHandle, out.handle);
    return out.tensor;
  }

  /** Tensor i32 [rows]: one token drawn for each row of logits [..., vocabulary]. */
  sample(logits: Tensor, sampling: Sampling): Tensor {
    const call = this.call("sample");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const temperature = call.number("temperature", sampling.temperature ?? 1, 0);
    const topK = call.integer("topK", sampling.topK ?? 0);
    const topP = call.number("topP", sampling.topP ?? 1, 0);
    if (!(topP > 0 && topP <= 1)) call.fail("ERR_INVALID_ARGUMENT", `topP must be in (0, 1], found ${topP}`);
    const seed = call.integer("seed", sampling.seed);
    const offset = call.integer("offset", sampling.offset);
    const out = call.output([call.size("rows")], "i32");
    native.sample(call.native, logitsHandle, temperature, topK, topP, seed, offset, out.handle);
    return out.tensor;
  }

  // ---- Operands that several kernels share -----------------------------------------------------------------------

  #activation(call: Operands, activation: Activation): Activation {
    if (!ACTIVATIONS.includes(activation)) {
      call.fail(
        "ERR_INVALID_ARGUMENT",
        `activation must be one of ${ACTIVATIONS.join(", ")}, found ${String(activation)}`,
      );
    }
    return activation;
  }

  #attention(call: Operands, operands: AttentionOperands): NativeAttention {
    const queries = call.tensor("queries", operands.queries, ["batch", "queryPositions", "heads", "dHead"]);
    const keys = call.tensor("keys", operands.keys, ["batch", "capacity", "keyHeads", "dHead"]);
    const values = call.tensor("values", operands.values, ["batch", "capacity", "keyHeads", "dHead"]);
    const [heads, keyHeads] = [call.size("heads"), call.size("keyHeads")];
    if (keyHeads === 0 ? heads !== 0 : heads % keyHeads !== 0) {
      call.fail("ERR_SHAPE_MISMATCH", `${heads} heads of queries cannot share ${keyHeads} heads of keys evenly`);
    }
    const capacity = call.size("capacity");
    const keyPositions = call.integer("keyPositions", operands.keyPositions ?? capacity);
    if (keyPositions > capacity || call.size("queryPositions") > keyPositions) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `expected queryPositions <= keyPositions <= capacity, found ${call.size("queryPositions")}, ${keyPositions}, ${capacity}`,
      );
    }
    const scale = call.number("scale", operands.scale ?? 1 / Math.sqrt(call.size("dHead")));
    const softCap = call.number("softCap", operands.softCap ?? 0, 0);
    const window = call.integer("window", operands.window ?? 0);
    const firstKeys = call.optionalTensor("firstKeys", operands.firstKeys, ["batch"], "i32");
    return [queries, keys, values, keyPositions, scale, softCap, window, firstKeys];
  }

  #scoresShape(call: Operands, keyPositions: number): number[] {
    return [call.size("batch"), call.size("heads"), call.size("queryPositions"), keyPositions];
  }
}
