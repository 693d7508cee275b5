import type { Tensor } from "../engine/tensor.js";

/** Weights [out, in], f32 or bf16, and bias [out], f32, of a linear layer. */
export interface LinearWeights {
  readonly weights: Tensor;
  readonly bias?: Tensor | undefined;
}

/** Weight and bias [width], f32, of a LayerNorm or RMSNorm; absent where they are folded into the next layer. */
export interface NormWeights {
  readonly weight?: Tensor | undefined;
  readonly bias?: Tensor | undefined;
}

/** What is absent belongs to other families: see `ModelConfig`. */
export interface BlockWeights {
  readonly ln1: NormWeights;
  readonly queries: LinearWeights;
  readonly keys: LinearWeights;
  readonly values: LinearWeights;
  readonly queryNorm?: NormWeights | undefined;
  readonly keyNorm?: NormWeights | undefined;
  readonly attentionOutput: LinearWeights;
  readonly ln1Post?: NormWeights | undefined;
  readonly ln2: NormWeights;
  readonly mlpGate?: LinearWeights | undefined;
  readonly mlpInput: LinearWeights;
  readonly mlpOutput: LinearWeights;
  readonly ln2Post?: NormWeights | undefined;
}

/** The weights of a model, on one device. */
export interface ModelWeights {
  readonly tokenEmbedding: Tensor; // [vocabularySize, dModel], f32 or bf16
  readonly positionEmbedding?: Tensor | undefined; // [contextSize, dModel], f32
  readonly blocks: readonly BlockWeights[];
  readonly finalNorm: NormWeights;
  /** [vocabularySize, dModel]; the very tensor of the embedding where the two are tied. */
  readonly unembedding: LinearWeights;
}

/** Frees every tensor of `weights`. */
export function disposeWeights(weights: ModelWeights): void {
  const { tokenEmbedding, positionEmbedding, finalNorm, unembedding, blocks } = weights;
  tokenEmbedding.dispose();
  positionEmbedding?.dispose();
  for (const module of [finalNorm, unembedding, ...blocks.flatMap((block) => Object.values(block))]) {
    for (const tensor of Object.values(module ?? {}) as (Tensor | undefined)[]) tensor?.dispose();
  }
}
