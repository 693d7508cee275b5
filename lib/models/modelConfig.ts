import type { Activation } from "../engine/transformerKernels.js";

/** The families of models that can be loaded, by Hugging Face's `model_type`. */
export type Architecture = "gpt2" | "gpt_neox" | "llama" | "mistral" | "qwen2" | "qwen3" | "gemma2";

/** Rotary positions: pairs of the first 2 * frequencies.length elements of queries and keys turn with the position. */
export interface RotaryConfig {
  /** The angle of each pair per position, in radians. */
  readonly frequencies: readonly number[];
  /** Of scalings that only begin where a context is longer than the model was trained for. */
  readonly beyond?: RotaryScaling | undefined;
  /** What cosines and sines are multiplied by: 1, but for some scalings to longer contexts. */
  readonly factor: number;
  /** Pairs are neighbours (llama2.c), not an element of each half (Hugging Face). */
  readonly interleaved: boolean;
}

/** The frequencies in contexts of more than `length` tokens: these, or those of a base that grows with the context. */
export type RotaryScaling = { readonly length: number } & (
  | { readonly frequencies: readonly number[] }
  | { readonly base: number; readonly factor: number }
);

/** Weights as they are. */
export const unprocessed: ModelConfig["processing"] = {
  foldLn: false,
  centerWritingWeights: false,
  centerUnembed: false,
  foldValueBiases: false,
};

/** The sizes and constants of a loaded language model. */
export interface ModelConfig {
  readonly architecture: Architecture;
  /** Name of the folder or file that it was loaded from, or of the repository, without its owner. */
  readonly name: string;
  readonly nLayers: number;
  readonly dModel: number;
  readonly nHeads: number;
  /** Heads of keys and values, each shared by nHeads / nKeyValueHeads heads of queries. */
  readonly nKeyValueHeads: number;
  readonly dHead: number;
  readonly dMlp: number;
  /** Longest sequence that the model can read, in tokens. */
  readonly contextSize: number;
  /** Rows of the embedding: token ids are below it. */
  readonly vocabularySize: number;
  /** LayerNorm, or RMSNorm, which neither centres nor shifts. */
  readonly normalization: "layer" | "rms";
  readonly normEpsilon: number;
  /** Activation function of the MLP. */
  readonly activation: Activation;
  /** The MLP's hidden layer is activation(gate) * linear, not activation(linear). */
  readonly gatedMlp: boolean;
  /** Attention and MLP read the same residual stream, not the MLP what attention wrote. */
  readonly parallelBlocks: boolean;
  /** What attention and MLP write is normalised first (ln1_post, ln2_post). */
  readonly postNorms: boolean;
  /** Queries and keys are normalised, head by head. */
  readonly queryKeyNorms: boolean;
  /** Which linear layers have biases. */
  readonly biases: { readonly queriesKeysValues: boolean; readonly attentionOutput: boolean; readonly mlp: boolean };
  /** Undefined: learned positions, added to the embedding. */
  readonly rotary: RotaryConfig | undefined;
  /** What attention scores are multiplied by, per layer; as a rule 1 / sqrt(dHead). */
  readonly attentionScales: readonly number[];
  /** How many positions one sees in each layer, itself included; undefined: all up to itself. */
  readonly attentionWindows: readonly (number | undefined)[];
  /** Attention scores s become cap * tanh(s / cap). */
  readonly attentionSoftCap: number | undefined;
  /** Logits become cap * tanh(logits / cap). */
  readonly logitSoftCap: number | undefined;
  /** What token embeddings are multiplied by. */
  readonly embeddingScale: number;
  /** Whether the unembedding is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** What was done to the weights: see `ProcessingOptions`. */
  readonly processing: {
    readonly foldLn: boolean;
    readonly centerWritingWeights: boolean;
    readonly centerUnembed: boolean;
    readonly foldValueBiases: boolean;
  };
  /** Id of the token that begins a document; 0 is an id like any other. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Tokens that end a generation: EOS and, in many models made for chats, the end of a turn. */
  readonly stopTokenIds: readonly number[];
}
