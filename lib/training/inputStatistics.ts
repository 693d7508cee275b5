import type { ActivationSource } from "../activations/source.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Columns } from "./hookColumns.js";

/** Enough that the mean norm is known to a fraction of a percent. */
const sampleTokens = 32_768;
/** Rows kept for the geometric median. */
const medianTokens = 8_192;

export interface InputStatistics extends Disposable {
  /** E|x| over the sample, of those columns. */
  readonly meanNorm: (columns: Columns) => number;
  /** The first activations, f32 [rows, dIn of the source]; when asked for. */
  readonly sample: Tensor | undefined;
}

/**
 * Measures the first batches of a source (32,768 activations, or all of a smaller one) and then restores it to where it
 * was, so that training starts with the same batches as without the measurement.
 *
 * @throws MonosemError ERR_CONFIG when the source is empty or all its activations are zero in some of the columns,
 *   ERR_NON_FINITE when one is NaN or infinite.
 */
export async function measureInputs(
  source: ActivationSource,
  device: Device,
  options: { batchSize: number; columns: readonly Columns[]; sample: boolean; signal?: AbortSignal | undefined },
): Promise<InputStatistics> {
  const { kernels } = device;
  const start = await source.saveState();
  const kept: Tensor[] = [];
  let rows = 0;
  let keptRows = 0;
  const sums = new Map(options.columns.map((columns) => [keyOf(columns), { columns, sum: device.zeros([1], "f64") }]));
  try {
    while (rows < sampleTokens) {
      using batch = await source.next(options.batchSize, options.signal);
      if (batch === undefined) break;
      const batchRows = batch.shape[0]!;
      for (const { columns, sum } of sums.values()) {
        using part = kernels.sliceColumns(batch, columns.from, columns.width);
        using norms = kernels.rowNorms(part);
        kernels.sum(norms, sum);
      }
      rows += batchRows;
      if (options.sample && keptRows < medianTokens) {
        const take = Math.min(batchRows, medianTokens - keptRows);
        kept.push(kernels.sliceRows(batch, 0, take));
        keptRows += take;
      }
    }
    await source.restoreState(start);
    if (rows === 0) throw new MonosemError("ERR_CONFIG", "the activations to train on are empty");
    const norms = new Map<string, number>();
    for (const [key, { sum }] of sums) {
      const meanNorm = (await sum.readScalar()) / rows;
      if (!Number.isFinite(meanNorm)) {
        throw new MonosemError("ERR_NON_FINITE", `the first ${rows} activations hold NaN or infinity`);
      }
      if (meanNorm === 0) throw new MonosemError("ERR_CONFIG", `the first ${rows} activations are all zero`);
      norms.set(key, meanNorm);
    }
    const sample = options.sample ? joined(kept, keptRows, source.dIn, device) : undefined;
    return {
      meanNorm: (columns) => norms.get(keyOf(columns))!,
      sample,
      [Symbol.dispose]: () => sample?.dispose(),
    };
  } finally {
    for (const tensor of kept) tensor.dispose();
    for (const { sum } of sums.values()) sum.dispose();
  }
}

function keyOf({ from, width }: Columns): string {
  return `${from}+${width}`;
}

function joined(parts: readonly Tensor[], rows: number, dIn: number, device: Device): Tensor {
  const points = device.empty([rows, dIn]);
  let first = 0;
  for (const part of parts) {
    device.kernels.copyRows(part, points, first);
    first += part.shape[0]!;
  }
  return points;
}
