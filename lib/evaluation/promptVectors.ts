import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { paddedBehind } from "../models/tokens.js";
import { DenseFeatures, SparseFeatures } from "../probing/featureMatrix.js";
import type { Sae } from "../sae/sae.js";

/** A prompt, and the position in it that is looked at. */
export interface PromptPosition {
  readonly ids: readonly number[];
  readonly position: number;
}

export interface PromptVectors {
  /** What the SAE reads, a row for each prompt. */
  readonly activations: DenseFeatures;
  /** The same of its latents. */
  readonly latents: SparseFeatures;
  /** The latents of one prompt: those that fire, and their values. */
  latentsOf(prompt: number): { readonly indices: readonly number[]; readonly values: readonly number[] };
}

export interface PromptVectorOptions {
  readonly model: HookedTransformer;
  readonly sae: Sae;
  readonly hook?: HookChoice | undefined;
  readonly allowMismatch?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: { readonly prompts: number }) => void) | undefined;
}

const PROMPTS_PER_BATCH = 16;

/**
 * Activations and latents at one position of each prompt. 4 bytes a number are kept of all activations.
 *
 * @throws MonosemError as `hooksForSae`; ERR_NON_FINITE; ERR_ABORTED
 */
export async function promptVectors(
  prompts: readonly PromptPosition[],
  { model, sae, hook, allowMismatch, signal, onProgress }: PromptVectorOptions,
): Promise<PromptVectors> {
  const { input } = hooksForSae(model, sae, hook, { allowMismatch });
  const { dIn, dSae } = sae.config;
  const activations = new Float32Array(prompts.length * dIn);
  const entries = { rowOffsets: [0], indices: [] as number[], values: [] as number[] };
  for (let first = 0; first < prompts.length; first += PROMPTS_PER_BATCH) {
    throwIfAborted(signal, "running the prompts");
    const batch = prompts.slice(first, first + PROMPTS_PER_BATCH);
    const padded = paddedBehind(batch.map(({ ids }) => ids));
    const positions = padded[0]!.length;
    using all = await model.activations(padded, input);
    using rows = sae.device.tensor(
      Int32Array.from(batch, ({ position }, index) => index * positions + position),
      [batch.length],
    );
    using x = sae.device.kernels.gatherRows(all, rows);
    using codes = sae.encode(x);
    const [read, { rowOffsets, features, values }] = await Promise.all([x.readFloat32(), codes.read()]);
    activations.set(read, first * dIn);
    for (let row = 0; row < batch.length; row++) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        if (values[entry] === 0) continue; // selected, but not active
        entries.indices.push(features[entry]!);
        entries.values.push(values[entry]!);
      }
      entries.rowOffsets.push(entries.indices.length);
    }
    onProgress?.({ prompts: first + batch.length });
  }
  return {
    activations: new DenseFeatures(activations, prompts.length, dIn),
    latents: new SparseFeatures(entries, dSae),
    latentsOf: (prompt) => {
      const [start, end] = [entries.rowOffsets[prompt], entries.rowOffsets[prompt + 1]];
      if (start === undefined || end === undefined) {
        throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no prompt ${prompt}: they are ${prompts.length}`);
      }
      return { indices: entries.indices.slice(start, end), values: entries.values.slice(start, end) };
    },
  };
}
