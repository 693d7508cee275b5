import { nextBatch } from "../activations/nextBatch.js";
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

export interface MeasurementOptions {
  readonly batchSize: number;
  /** Whose mean norm is wanted. */
  readonly columns: readonly Columns[];
  readonly sample: boolean;
  /** Leaves batches that hold NaN or infinity out. */
  readonly skipNonFinite: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Measures the first batches of a source (32,768 activations, or all of a smaller one) and then restores it to where it
 * was, so that training starts with the same batches as without the measurement.
 *
 * @throws MonosemError ERR_CONFIG when the source is empty or all its activations are zero in some of the columns,
 *   ERR_NON_FINITE when one is NaN or infinite, with `skipNonFinite` when every batch holds such a one; as `nextBatch`.
 */
export async function measureInputs(
  source: ActivationSource,
  device: Device,
  options: MeasurementOptions,
): Promise<InputStatistics> {
  const { kernels } = device;
  const start = await source.saveState();
  const kept: Tensor[] = [];
  let seen = 0;
  let rows = 0;
  let keptRows = 0;
  // the sample is of all columns
  const measured = options.sample ? [...options.columns, { from: 0, width: source.dIn }] : options.columns;
  const sums = new Map(measured.map((columns) => [keyOf(columns), 0]));
  try {
    while (seen < sampleTokens) {
      using batch = await nextBatch(source, options.batchSize, device, options.signal);
      if (batch === undefined) break;
      const batchRows = batch.shape[0]!;
      seen += batchRows;
      const norms = await normSums(batch, measured, device);
      if (norms === undefined) {
        if (options.skipNonFinite) continue;
        const where = await source.findNonFinite?.(batchRows);
        throw new MonosemError(
          "ERR_NON_FINITE",
          where === undefined
            ? `among the first ${seen} activations are NaN, infinity or numbers whose squares are infinite`
            : `${where} holds NaN or infinity`,
        );
      }
      for (const [key, sum] of norms) sums.set(key, sums.get(key)! + sum);
      rows += batchRows;
      if (options.sample && keptRows < medianTokens) {
        const take = Math.min(batchRows, medianTokens - keptRows);
        kept.push(kernels.sliceRows(batch, 0, take));
        keptRows += take;
      }
    }
    await source.restoreState(start);
    if (seen === 0) throw new MonosemError("ERR_CONFIG", "the activations to train on are empty");
    if (rows === 0) {
      throw new MonosemError(
        "ERR_NON_FINITE",
        `there is nothing to measure: every batch of ${options.batchSize} activations holds NaN or infinity`,
      );
    }
    for (const columns of options.columns) {
      if (sums.get(keyOf(columns)) === 0) {
        throw new MonosemError("ERR_CONFIG", "the activations are all zero: there is no scale to measure");
      }
    }
    const sample = options.sample ? joined(kept, keptRows, source.dIn, device) : undefined;
    return {
      meanNorm: (columns) => sums.get(keyOf(columns))! / rows,
      sample,
      [Symbol.dispose]: () => sample?.dispose(),
    };
  } finally {
    for (const tensor of kept) tensor.dispose();
  }
}

/** Σ |x| over a batch, by columns; undefined where that or Σ |x|² is not finite. */
async function normSums(
  batch: Tensor,
  measured: readonly Columns[],
  device: Device,
): Promise<ReadonlyMap<string, number> | undefined> {
  const { kernels } = device;
  const sums = new Map<string, number>();
  for (const columns of measured) {
    if (sums.has(keyOf(columns))) continue; // what several SAEs encode, or one encodes and reconstructs
    using part = kernels.sliceColumns(batch, columns.from, columns.width);
    using norms = kernels.rowNorms(part);
    using squares = kernels.multiply(norms, norms);
    using sum = device.zeros([1], "f64");
    using squareSum = device.zeros([1], "f64");
    kernels.sum(norms, sum);
    kernels.sum(squares, squareSum);
    if (!Number.isFinite(await squareSum.readScalar())) return undefined;
    sums.set(keyOf(columns), await sum.readScalar());
  }
  return sums;
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
