import type { ActivationSource } from "../activations/source.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { geometricMedian } from "../sae/geometricMedian.js";

/** Enough that the mean norm is known to a fraction of a percent. */
const sampleTokens = 32_768;
/** Rows kept for the geometric median. */
const medianTokens = 8_192;

export interface InputStatistics {
  /** E|x| over the sample. */
  readonly meanNorm: number;
  /** f32 [dIn], when asked for; the caller's to dispose. */
  readonly median: Tensor | undefined;
}

/**
 * Measures the first batches of a source (32,768 activations, or all of a smaller one) and then restores it to where it
 * was, so that training starts with the same batches as without the measurement.
 *
 * @throws MonosemError ERR_CONFIG when the source is empty or all its activations are zero, ERR_NON_FINITE when one is
 *   NaN or infinite.
 */
export async function measureInputs(
  source: ActivationSource,
  device: Device,
  options: { batchSize: number; median: boolean; signal?: AbortSignal },
): Promise<InputStatistics> {
  const { kernels } = device;
  const start = await source.saveState();
  const kept: Tensor[] = [];
  let rows = 0;
  let keptRows = 0;
  using normSum = device.zeros([1], "f64");
  try {
    while (rows < sampleTokens) {
      using batch = await source.next(options.batchSize, options.signal);
      if (batch === undefined) break;
      const batchRows = batch.shape[0]!;
      using norms = kernels.rowNorms(batch);
      kernels.sum(norms, normSum);
      rows += batchRows;
      if (options.median && keptRows < medianTokens) {
        const take = Math.min(batchRows, medianTokens - keptRows);
        kept.push(kernels.sliceRows(batch, 0, take));
        keptRows += take;
      }
    }
    await source.restoreState(start);
    if (rows === 0) throw new MonosemError("ERR_CONFIG", "the activations to train on are empty");
    const meanNorm = (await normSum.readScalar()) / rows;
    if (!Number.isFinite(meanNorm)) {
      throw new MonosemError("ERR_NON_FINITE", `the first ${rows} activations hold NaN or infinity`);
    }
    if (meanNorm === 0) throw new MonosemError("ERR_CONFIG", `the first ${rows} activations are all zero`);
    return { meanNorm, median: options.median ? await medianOf(kept, keptRows, source.dIn, device) : undefined };
  } finally {
    for (const tensor of kept) tensor.dispose();
  }
}

async function medianOf(parts: readonly Tensor[], rows: number, dIn: number, device: Device): Promise<Tensor> {
  using points = device.empty([rows, dIn]);
  let first = 0;
  for (const part of parts) {
    device.kernels.copyRows(part, points, first);
    first += part.shape[0]!;
  }
  return await geometricMedian(points, device);
}
