import { DenseFeatures, SparseFeatures } from "../../lib/probing/featureMatrix.js";

export function denseFeatures(rows: readonly (readonly number[])[]): DenseFeatures {
  return new DenseFeatures(Float64Array.from(rows.flat()), rows.length, rows[0]!.length);
}

/** Without the zeros. */
export function sparseFeatures(rows: readonly (readonly number[])[]): SparseFeatures {
  const entries = { rowOffsets: [0], indices: [] as number[], values: [] as number[] };
  for (const row of rows) {
    row.forEach((value, column) => {
      if (value === 0) return;
      entries.indices.push(column);
      entries.values.push(value);
    });
    entries.rowOffsets.push(entries.values.length);
  }
  return new SparseFeatures(entries, rows[0]!.length);
}
