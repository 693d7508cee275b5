/**
 * Changes of a model's weights that leave its predictions as they are, but not all of its activations: those that
 * TransformerLens makes by default and that published SAEs may have been trained behind.
 *
 *     foldLn                the weights of norms go into the linear layers that read their results, their biases into
 *                           those layers' biases; with LayerNorm, those layers' rows are centred as well
 *     centerWritingWeights  whatever is added to the residual stream is centred, so that every vector in it has mean 0
 *                           (LayerNorm takes the mean out anyway)
 *     centerUnembed         logits are shifted by a number per position, so that they have mean 0 over the vocabulary
 *     foldValueBiases       what the biases of values add through W_O goes into b_O, because patterns sum to 1
 *
 * They are made in this order, in f32: matrices that were bf16 become f32.
 */
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { ModelConfig } from "./modelConfig.js";
import type { BlockWeights, LinearWeights, ModelWeights, NormWeights } from "./modelWeights.js";

/** Each is off by default: weights are used as they are. */
export interface ProcessingOptions {
  readonly foldLn?: boolean | undefined;
  /** Models with LayerNorm only. */
  readonly centerWritingWeights?: boolean | undefined;
  /** Models without a cap on their logits only. */
  readonly centerUnembed?: boolean | undefined;
  readonly foldValueBiases?: boolean | undefined;
}

export const processingNames = ["foldLn", "centerWritingWeights", "centerUnembed", "foldValueBiases"] as const;
export type ProcessingName = (typeof processingNames)[number];

/**
 * Refuses what would change a model's predictions.
 *
 * @throws MonosemError ERR_UNSUPPORTED
 */
export function checkProcessing(options: ProcessingOptions, config: ModelConfig): void {
  if (options.centerWritingWeights && config.normalization !== "layer") {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `centerWritingWeights: ${config.name} (${config.architecture}) has RMSNorm, which does not take the mean out of ` +
        "the residual stream; leave the option out",
    );
  }
  if (options.centerUnembed && config.logitSoftCap !== undefined) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `centerUnembed: ${config.name} (${config.architecture}) caps its logits, so that a shift changes its ` +
        "predictions; leave the option out",
    );
  }
}

/** Processes weights, which are taken over; what `checkProcessing` refuses must not come here. */
export function processWeights(
  weights: ModelWeights,
  config: ModelConfig,
  options: ProcessingOptions,
  device: Device,
): ModelWeights {
  const { foldLn, centerWritingWeights, centerUnembed, foldValueBiases } = options;
  if (!foldLn && !centerWritingWeights && !centerUnembed && !foldValueBiases) return weights;
  const processor = new Processor(config, device);
  let processed = processor.inFloat32(weights);
  if (foldLn) processed = processor.foldNorms(processed);
  if (centerWritingWeights) processed = processor.centreWriting(processed);
  if (centerUnembed) processed = processor.centreUnembedding(processed);
  if (foldValueBiases) processed = processor.foldValueBiases(processed);
  return processed;
}

class Processor {
  readonly #config: ModelConfig;
  readonly #device: Device;

  constructor(config: ModelConfig, device: Device) {
    this.#config = config;
    this.#device = device;
  }

  /** All weights f32, and an unembedding of its own. */
  inFloat32(weights: ModelWeights): ModelWeights {
    const { kernels } = this.#device;
    const { tokenEmbedding, positionEmbedding, unembedding } = weights;
    const widened = (tensor: Tensor): Tensor =>
      tensor.dtype === "f32" ? tensor : replaced(tensor, (bits) => kernels.toFloat32(bits));
    const layer = ({ weights, bias }: LinearWeights): LinearWeights => ({ weights: widened(weights), bias });
    const tied = unembedding.weights === tokenEmbedding;
    const embedding = widened(tokenEmbedding);
    return {
      ...weights,
      tokenEmbedding: embedding,
      positionEmbedding: positionEmbedding && widened(positionEmbedding),
      blocks: weights.blocks.map((block) => ({
        ...block,
        queries: layer(block.queries),
        keys: layer(block.keys),
        values: layer(block.values),
        attentionOutput: layer(block.attentionOutput),
        mlpGate: block.mlpGate && layer(block.mlpGate),
        mlpInput: layer(block.mlpInput),
        mlpOutput: layer(block.mlpOutput),
      })),
      unembedding: tied ? { ...unembedding, weights: kernels.scale(embedding, 1) } : layer(unembedding),
    };
  }

  foldNorms(weights: ModelWeights): ModelWeights {
    const blocks = weights.blocks.map((block): BlockWeights => {
      const folded: BlockWeights = {
        ...block,
        ln1: {},
        queries: this.#behind(block.ln1, block.queries),
        keys: this.#behind(block.ln1, block.keys),
        values: this.#behind(block.ln1, block.values),
        ln2: {},
        mlpGate: block.mlpGate && this.#behind(block.ln2, block.mlpGate),
        mlpInput: this.#behind(block.ln2, block.mlpInput),
      };
      disposeNorm(block.ln1);
      disposeNorm(block.ln2);
      return folded;
    });
    const unembedding = this.#behind(weights.finalNorm, weights.unembedding);
    disposeNorm(weights.finalNorm);
    return { ...weights, blocks, finalNorm: {}, unembedding };
  }

  centreWriting(weights: ModelWeights): ModelWeights {
    const writing = ({ weights, bias }: LinearWeights): LinearWeights => ({
      weights: replaced(weights, (matrix) => this.#lessMeanRow(matrix)),
      bias: bias && this.#centredVector(bias),
    });
    const centred = (embedding: Tensor): Tensor => replaced(embedding, (rows) => this.#lessMeans(rows));
    return {
      ...weights,
      tokenEmbedding: centred(weights.tokenEmbedding),
      positionEmbedding: weights.positionEmbedding && centred(weights.positionEmbedding),
      blocks: weights.blocks.map((block) => ({
        ...block,
        attentionOutput: writing(block.attentionOutput),
        mlpOutput: writing(block.mlpOutput),
      })),
    };
  }

  centreUnembedding(weights: ModelWeights): ModelWeights {
    const { weights: matrix, bias } = weights.unembedding;
    return {
      ...weights,
      unembedding: {
        weights: replaced(matrix, (rows) => this.#lessMeanRow(rows)),
        bias: bias && this.#centredVector(bias),
      },
    };
  }

  foldValueBiases(weights: ModelWeights): ModelWeights {
    const { kernels } = this.#device;
    const { nHeads, nKeyValueHeads, dHead, dModel } = this.#config;
    const blocks = weights.blocks.map((block): BlockWeights => {
      const { values, attentionOutput } = block;
      if (values.bias === undefined) return block;
      using heads = values.bias.reshape([nKeyValueHeads, dHead]);
      using headOf = this.#device.tensor(
        Int32Array.from({ length: nHeads }, (_, head) => Math.floor(head / (nHeads / nKeyValueHeads))),
        [nHeads],
      );
      using ofQueries = kernels.gatherRows(heads, headOf);
      using row = ofQueries.reshape([1, nHeads * dHead]);
      using written = kernels.linear(row, attentionOutput.weights, { bias: attentionOutput.bias, exact: true });
      values.bias.dispose();
      attentionOutput.bias?.dispose();
      return {
        ...block,
        values: { weights: values.weights },
        attentionOutput: { weights: attentionOutput.weights, bias: written.reshape([dModel]) },
      };
    });
    return { ...weights, blocks };
  }

  /** A layer that reads what a norm has left without the norm's weight and bias. */
  #behind(norm: NormWeights, { weights, bias }: LinearWeights): LinearWeights {
    const { kernels } = this.#device;
    let foldedBias = bias;
    if (norm.bias !== undefined) {
      using row = norm.bias.reshape([1, norm.bias.size]);
      using contribution = kernels.linear(row, weights, { bias, exact: true });
      foldedBias = contribution.reshape([weights.shape[0]!]);
      bias?.dispose();
    }
    const scaled =
      norm.weight === undefined ? weights : replaced(weights, (m) => kernels.scaleColumns(m, norm.weight!));
    const centred = this.#config.normalization === "layer" ? replaced(scaled, (m) => this.#lessMeans(m)) : scaled;
    return { weights: centred, bias: foldedBias };
  }

  /** Each row less its mean. */
  #lessMeans(matrix: Tensor): Tensor {
    const { kernels } = this.#device;
    const [rows, columns] = matrix.shape as [number, number];
    using average = this.#device.tensor(new Float32Array(columns).fill(-1 / columns), [1, columns]);
    using means = kernels.linear(matrix, average, { exact: true }); // [rows, 1], with the sign turned
    using shifts = means.reshape([rows]);
    using ones = this.#device.tensor(new Float32Array(rows).fill(1), [rows]);
    return kernels.affineRows(matrix, ones, shifts);
  }

  #centredVector(vector: Tensor): Tensor {
    using old = vector;
    using row = old.reshape([1, old.size]);
    using centred = this.#lessMeans(row);
    return centred.reshape([old.size]);
  }

  /** Each row less the mean of all rows. */
  #lessMeanRow(matrix: Tensor): Tensor {
    const { kernels } = this.#device;
    using mean = kernels.columnSums(matrix, { scale: -1 / matrix.shape[0]! });
    return kernels.addRow(matrix, mean);
  }
}

function replaced(tensor: Tensor, make: (tensor: Tensor) => Tensor): Tensor {
  using old = tensor;
  return make(old);
}

function disposeNorm({ weight, bias }: NormWeights): void {
  weight?.dispose();
  bias?.dispose();
}
