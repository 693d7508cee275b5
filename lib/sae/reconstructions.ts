/** A source's activations through an SAE, batch after batch. */
import { nextBatch } from "../activations/nextBatch.js";
import type { ActivationSource } from "../activations/source.js";
import type { Codes } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { Sae } from "./sae.js";

export interface ReconstructionOptions {
  /** How many activations to take. Stored activations never end: `source.rows` is one pass over them. */
  readonly tokens: number;
  /** Default 4096. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
  /** Called when a batch has been dealt with. */
  readonly onProgress?: (progress: { readonly tokens: number }) => void;
}

/** Valid until the next one is asked for. */
export interface ReconstructedBatch {
  /** What was to be reconstructed, [tokens, dOut]. */
  readonly target: Tensor;
  /** [tokens, dOut] */
  readonly reconstruction: Tensor;
  readonly codes: Codes;
}

/**
 * Runs the SAE over the next `tokens` activations of a source, or until it ends. For a transcoder the source holds what it
 * encodes and what it reconstructs side by side, in this order.
 *
 * @param inspect - sees each batch before the SAE does
 * @throws MonosemError as `requireWidth` and `nextBatch`; ERR_ABORTED by the signal.
 */
export async function* reconstructions(
  sae: Sae,
  source: ActivationSource,
  { tokens, batchSize = 4096, signal, onProgress }: ReconstructionOptions,
  inspect?: (batch: Tensor) => Promise<void>,
): AsyncGenerator<ReconstructedBatch, void, undefined> {
  requireWidth(sae, source);
  const { dIn, dOut, transcoder } = sae.config;
  const { kernels } = sae.device;
  for (let seen = 0; seen < tokens; ) {
    throwIfAborted(signal, "the evaluation");
    using batch = await nextBatch(source, Math.min(batchSize, tokens - seen), sae.device, signal);
    if (batch === undefined) break;
    await inspect?.(batch);
    using x = transcoder ? kernels.sliceColumns(batch, 0, dIn) : batch;
    using target = transcoder ? kernels.sliceColumns(batch, dIn, dOut) : batch;
    using codes = sae.encode(x);
    using reconstruction = sae.decode(codes, x);
    yield { target, reconstruction, codes };
    seen += codes.rows;
    onProgress?.({ tokens: seen });
  }
}

/** @throws MonosemError ERR_SHAPE_MISMATCH when the source is not as wide as what the SAE reads, or a transcoder reads and writes. */
export function requireWidth({ config }: Sae, source: ActivationSource): void {
  const { dIn, dOut, transcoder } = config;
  if (source.dIn === (transcoder ? dIn + dOut : dIn)) return;
  throw new MonosemError(
    "ERR_SHAPE_MISMATCH",
    transcoder
      ? `the activations are ${source.dIn} wide, but the transcoder needs ${dIn} that it reads and ${dOut} that it writes`
      : `the activations are ${source.dIn} wide, but the SAE was made for ${dIn}: they are of another model or hook`,
  );
}
