/** How the directions of a dictionary lie to each other: near duplicates, and encoders that do not look where they write. */

import type { Tensor } from "../engine/tensor.js";
import { throwIfAborted } from "../errors.js";
import { NearestRows } from "./nearestRows.js";
import type { Sae } from "./sae.js";

/** One number for each latent, [dSae]. */
export interface DictionaryGeometry {
  /** The largest cosine between its decoder row and any other latent's; NaN in a dictionary of one latent. */
  readonly maxDecoderCosine: Float64Array;
  /** The same of encoder rows. */
  readonly maxEncoderCosine: Float64Array;
  /** Cosine between its encoder and its decoder row; undefined where they are of different spaces, as in a transcoder. */
  readonly encoderDecoderCosine: Float64Array | undefined;
  readonly encoderNorm: Float64Array;
  readonly decoderNorm: Float64Array;
  /** Of a gated SAE the bias of the magnitudes; 0 where the architecture has none. */
  readonly encoderBias: Float64Array;
}

/** Rows that are compared with the whole dictionary, and read, at once. */
const blockRows = 1024;

/**
 * SAEBench's weight-based metrics.
 *
 * @throws MonosemError ERR_ABORTED by the signal.
 */
export async function dictionaryGeometry(
  sae: Sae,
  options: { readonly signal?: AbortSignal } = {},
): Promise<DictionaryGeometry> {
  const { encoder, decoder, encoderBias, magnitudeBias } = sae.parameters;
  const { dSae, transcoder } = sae.config;
  const bias = encoderBias ?? magnitudeBias;
  const { signal } = options;
  return {
    maxDecoderCosine: await largestCosines(decoder, signal),
    maxEncoderCosine: await largestCosines(encoder, signal),
    ...(await rowStatistics(encoder, decoder, !transcoder, signal)),
    encoderBias: bias === undefined ? new Float64Array(dSae) : Float64Array.from(await bias.readFloat32()),
  };
}

/** Per row of `directions` [n, width] the largest cosine to another row; rows of norm 0 have cosine 0 to all. */
async function largestCosines(directions: Tensor, signal: AbortSignal | undefined): Promise<Float64Array> {
  const count = directions.shape[0]!;
  const largest = new Float64Array(count).fill(Number.NaN);
  using nearest = new NearestRows(directions);
  for (let first = 0; first < count; first += blockRows) {
    throwIfAborted(signal, "the comparison of latents");
    const block = await nearest.of(first, Math.min(blockRows, count - first), 1);
    for (const [row, [near]] of block.entries()) if (near !== undefined) largest[first + row] = near.cosine;
  }
  return largest;
}

async function rowStatistics(
  encoder: Tensor,
  decoder: Tensor,
  sameSpace: boolean,
  signal: AbortSignal | undefined,
): Promise<Pick<DictionaryGeometry, "encoderNorm" | "decoderNorm" | "encoderDecoderCosine">> {
  const { kernels } = encoder.device;
  const dSae = encoder.shape[0]!;
  const encoderNorm = new Float64Array(dSae);
  const decoderNorm = new Float64Array(dSae);
  const cosine = sameSpace ? new Float64Array(dSae) : undefined;
  for (let first = 0; first < dSae; first += blockRows) {
    throwIfAborted(signal, "the comparison of latents");
    const rows = Math.min(blockRows, dSae - first);
    using encoderRows = kernels.sliceRows(encoder, first, rows);
    using decoderRows = kernels.sliceRows(decoder, first, rows);
    const [encoders, decoders] = await Promise.all([encoderRows.readFloat32(), decoderRows.readFloat32()]);
    const [dIn, dOut] = [encoders.length / rows, decoders.length / rows];
    for (let row = 0; row < rows; row++) {
      const reads = encoders.subarray(row * dIn, (row + 1) * dIn);
      const writes = decoders.subarray(row * dOut, (row + 1) * dOut);
      const norms = [Math.sqrt(dot(reads, reads)), Math.sqrt(dot(writes, writes))] as const;
      [encoderNorm[first + row], decoderNorm[first + row]] = norms;
      const product = norms[0] * norms[1];
      if (cosine !== undefined && product !== 0) cosine[first + row] = dot(reads, writes) / product;
    }
  }
  return { encoderNorm, decoderNorm, encoderDecoderCosine: cosine };
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
