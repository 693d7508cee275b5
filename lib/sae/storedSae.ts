import type { CheckedSaeConfig } from "./config.js";
import type { SaeMetadata } from "./metadata.js";

/** A parameter as a file holds it. */
export interface StoredWeight {
  readonly values: Float32Array;
  /** Whether the file has the transpose of what `parameterLayout` says. */
  readonly transposed: boolean;
}

/** An SAE as files hold it, read and checked. */
export interface StoredSae {
  readonly config: CheckedSaeConfig;
  /** By our names; all that `parameterLayout` says. */
  readonly weights: Readonly<Record<string, StoredWeight>>;
  readonly metadata: SaeMetadata;
  /** Latents are to be multiplied by the decoder norms, and the decoder divided by them. */
  readonly latentsInDecoderNorm?: boolean;
  /** The weights are for activations times these; to be folded into them (`Sae.foldInputScale`). */
  readonly scale?: { readonly input: number; readonly output: number };
}

export interface SaeLoadOptions {
  /**
   * What activations must be multiplied by, where weights are for scaled activations and their files leave the scale out:
   * "expected_average_only_in" of SAELens, whose registry has it as `norm_scaling_factor`.
   */
  readonly inputScale?: number | undefined;
}
