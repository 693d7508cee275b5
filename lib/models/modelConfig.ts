import type { Activation } from "../engine/transformerKernels.js";

/** Weights as they are. */
export const unprocessed: ModelConfig["processing"] = {
  foldLn: false,
  centerWritingWeights: false,
  centerUnembed: false,
  foldValueBiases: false,
};

/** The sizes and constants of a loaded language model. */
export interface ModelConfig {
  readonly architecture: "gpt2";
  /** Name of the folder that it was loaded from, or of the repository, without its owner. */
  readonly name: string;
  readonly nLayers: number;
  readonly dModel: number;
  readonly nHeads: number;
  /** dModel / nHeads. */
  readonly dHead: number;
  readonly dMlp: number;
  /** Longest sequence that the model can read, in tokens. */
  readonly contextSize: number;
  /** Rows of the embedding: token ids are below it. */
  readonly vocabularySize: number;
  readonly layerNormEpsilon: number;
  /** Activation function of the MLP. */
  readonly activation: Activation;
  /** What attention scores are multiplied by, per layer; as a rule 1 / sqrt(dHead). */
  readonly attentionScales: readonly number[];
  /** What was done to the weights, by TransformerLens' names. */
  readonly processing: {
    readonly foldLn: boolean;
    readonly centerWritingWeights: boolean;
    readonly centerUnembed: boolean;
    readonly foldValueBiases: boolean;
  };
  /** Whether the unembedding is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** Id of the token that begins a document; 0 is an id like any other. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
}
