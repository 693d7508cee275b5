import { hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { paddedBehind } from "../models/tokens.js";
import type { Sae } from "../sae/sae.js";
import { DenseFeatures, type FeatureMatrix, SparseFeatures } from "./featureMatrix.js";

/** How the vectors of a text's tokens become one: their mean, or that of the last token. Special tokens do not count. */
export type Pooling = "mean" | "last";

export interface PooledFeatureOptions {
  readonly model: HookedTransformer;
  /** The hook point whose activations are the features; of an SAE the one that it reads, by default its metadata's. */
  readonly hook?: string | undefined;
  /** With it, its latents are the features instead. */
  readonly sae?: Sae | undefined;
  readonly pooling?: Pooling;
  /** Tokens of a text that are read, BOS included; by default as many as the model reads. */
  readonly contextSize?: number | undefined;
  /** Begin each text with BOS; by default as for the SAE's training, else where the model has one. */
  readonly prependBos?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: { readonly texts: number }) => void;
}

export interface PooledFeatures {
  /** A row for each text. */
  readonly features: FeatureMatrix;
  readonly hooks: readonly string[];
  /** Texts that were longer than `contextSize`. */
  readonly cut: number;
}

/** Rows of activations that are on the device at a time. */
const MOST_ROWS = 2048;

const optionNames: OptionNames<PooledFeatureOptions> = {
  model: true,
  hook: true,
  sae: true,
  pooling: { mean: true, last: true },
  contextSize: true,
  prependBos: "boolean",
  signal: "signal",
  onProgress: "function",
};

/**
 * One feature vector for each text: activations at a hook point, or the latents of an SAE there, pooled over its tokens.
 *
 * @throws MonosemError ERR_CONFIG where neither a hook point nor an SAE is given, or these do not belong together;
 *   ERR_INVALID_ARGUMENT for no texts, a text without tokens that count and an impossible context size; ERR_NON_FINITE;
 *   ERR_ABORTED
 */
export async function pooledFeatures(texts: readonly string[], options: PooledFeatureOptions): Promise<PooledFeatures> {
  checkOptions("pooledFeatures", options, optionNames);
  const { model, sae, pooling = "mean", signal } = options;
  const { bosTokenId, contextSize: longest } = model.config;
  const { contextSize = longest } = options;
  const prependBos = options.prependBos ?? sae?.metadata.prependBos ?? bosTokenId !== undefined;
  if (!Number.isSafeInteger(contextSize) || contextSize < 1 || contextSize > longest) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `contextSize must be an integer from 1 to the model's ${longest}, found ${contextSize}`,
    );
  }
  if (texts.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "there are no texts");
  const hooks = sae === undefined ? [requiredHook(options.hook)] : hooksForSae(model, sae, options.hook).input;
  const vectors = sae === undefined ? denseVectors(model.hookWidth(hooks[0]!)) : latentVectors(sae);
  let cut = 0;
  const sequences = texts.map((text) => {
    const ids = model.tokenizer.encode(text);
    if (prependBos && bosTokenId !== undefined) ids.unshift(bosTokenId);
    if (ids.length > contextSize) cut += 1;
    return ids.slice(0, contextSize);
  });
  const counted = sequences.map((ids, text) => {
    const positions = Array.from(ids.keys()).filter((at) => !model.tokenizer.specialTokenIds.has(ids[at]!));
    if (positions.length > 0) return pooling === "last" ? positions.slice(-1) : positions;
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `text ${text + 1} of ${texts.length} has no tokens to take features from: ${JSON.stringify(texts[text]!.slice(0, 40))}`,
    );
  });
  for (let first = 0; first < sequences.length; ) {
    throwIfAborted(signal, "collecting the features");
    const end = batchEnd(sequences, first);
    const batch = paddedBehind(sequences.slice(first, end));
    const positions = batch[0]!.length;
    using activations = await model.activations(batch, hooks);
    await vectors.add(
      activations,
      counted.slice(first, end).map((places, text) => places.map((position) => text * positions + position)),
    );
    first = end;
    options.onProgress?.({ texts: end });
  }
  return { features: vectors.matrix(), hooks, cut };
}

function requiredHook(hook: string | undefined): string {
  if (hook !== undefined) return hook;
  throw new MonosemError("ERR_CONFIG", "name the hook point whose activations to probe, or give an SAE");
}

/** One past the last text that runs together with `first`, all padded to the longest. */
function batchEnd(sequences: readonly (readonly number[])[], first: number): number {
  let positions = 0;
  for (let end = first; end < sequences.length; end++) {
    positions = Math.max(positions, sequences[end]!.length);
    if (end > first && positions * (end + 1 - first) > MOST_ROWS) return end;
  }
  return sequences.length;
}

/** Gathers the vector of each text: the mean over its rows of the activations. */
interface TextVectors {
  /** @param rows - of the activations [rows, width], of each text; one at least */
  add(activations: Tensor, rows: readonly (readonly number[])[]): Promise<void>;
  matrix(): FeatureMatrix;
}

function denseVectors(width: number): TextVectors {
  const texts: Float64Array[] = [];
  return {
    async add(activations, rows) {
      const data = await activations.readFloat32();
      for (const places of rows) {
        const mean = new Float64Array(width);
        for (const row of places) for (let i = 0; i < width; i++) mean[i]! += data[row * width + i]! / places.length;
        texts.push(mean);
      }
    },
    matrix() {
      const all = new Float64Array(texts.length * width);
      texts.forEach((mean, text) => {
        all.set(mean, text * width);
      });
      return new DenseFeatures(all, texts.length, width);
    },
  };
}

function latentVectors(sae: Sae): TextVectors {
  const entries = { rowOffsets: [0], indices: [] as number[], values: [] as number[] };
  return {
    async add(activations, rows) {
      using chosen = sae.device.tensor(Int32Array.from(rows.flat()), [rows.flat().length]);
      using x = sae.device.kernels.gatherRows(activations, chosen);
      using codes = sae.encode(x);
      const { rowOffsets, features, values } = await codes.read();
      let row = 0;
      for (const { length } of rows) {
        const means = new Map<number, number>();
        for (let entry = rowOffsets[row]!; entry < rowOffsets[row + length]!; entry++) {
          const latent = features[entry]!;
          means.set(latent, (means.get(latent) ?? 0) + values[entry]! / length);
        }
        row += length;
        for (const [latent, mean] of [...means].sort(([a], [b]) => a - b)) {
          entries.indices.push(latent);
          entries.values.push(mean);
        }
        entries.rowOffsets.push(entries.indices.length);
      }
    },
    matrix: () => new SparseFeatures(entries, sae.config.dSae),
  };
}
