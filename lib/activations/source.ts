import type { Tensor } from "../engine/tensor.js";

/** A value that survives JSON unchanged. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Everything a source needs to continue bit for bit: plain state, and arrays that are too large for JSON. */
export interface SourceState {
  readonly state: Json;
  readonly tensors: Readonly<
    Record<string, { readonly shape: readonly number[]; readonly data: Float32Array | Int32Array }>
  >;
}

/** Some neighbouring columns of a source. */
export interface ActivationHook {
  readonly name: string;
  readonly width: number;
}

/** Where a trainer gets its batches from: a stored file of activations, or a language model's hook. */
export interface ActivationSource {
  /** Width of one activation vector. */
  readonly dIn: number;
  /**
   * What lies side by side in an activation vector, in this order, where it is more than one thing or has a name: hook
   * points of a language model, tensors of a file. The widths add up to `dIn`.
   */
  readonly hooks?: readonly ActivationHook[];
  /**
   * What an SAE that is trained on them should remember of their origin, under the names of its metadata: see
   * `originMetadata`.
   */
  readonly metadata?: Readonly<Record<string, Json>>;
  /**
   * The next `batchSize` activation vectors, f32 [batchSize, dIn], on the device; the caller disposes it.
   * Fewer rows at the end of a source that ends; undefined after it.
   *
   * Calls may overlap: each gets the rows after those of the call before it, as if they had been made one after the
   * other. Whoever shares a source shares its rows.
   */
  next(batchSize: number, signal?: AbortSignal): Promise<Tensor | undefined>;
  /**
   * Where, in words for an error message, the first of the last `rows` vectors handed out comes from that holds NaN or
   * infinity; undefined where none does. Sources need not know it.
   */
  findNonFinite?(rows: number): Promise<string | undefined>;
  /** The state after the batches asked for so far: it waits for those that are not there yet. */
  saveState(): Promise<SourceState>;
  /** Continues where `saved` was taken. The source must have been opened on the same data with the same options. */
  restoreState(saved: SourceState): Promise<void>;
  dispose(): void;
}
