import { readFileSync } from "node:fs";
import { DenseFeatures, SparseFeatures } from "../../lib/probing/featureMatrix.js";

interface Fit {
  readonly kind: "logistic" | "ridge";
  readonly penalty: number;
  readonly standardise: boolean;
  readonly weights: readonly number[];
  readonly bias: number;
}

interface Golden {
  readonly dense: readonly (readonly number[])[];
  readonly sparse: readonly (readonly number[])[];
  readonly labels: readonly number[];
  readonly fits: { readonly dense: readonly Fit[]; readonly sparse: readonly Fit[] };
  readonly moments: Record<"dense" | "sparse", { readonly mean: number[]; readonly standardDeviation: number[] }>;
  readonly metrics: Record<"accuracy" | "auroc" | "f1" | "precision" | "recall", number> & { scores: number[] };
  readonly folds: readonly { readonly train: number[]; readonly test: number[] }[];
  readonly penalties: readonly number[];
  readonly crossValidation: Record<"logistic" | "ridge", readonly number[]>;
}

/** What scikit-learn says; fixtures/probing/make_probes.py made it. */
export const golden = JSON.parse(
  readFileSync(new URL("../fixtures/probing/probes.json", import.meta.url), "utf8"),
) as Golden;

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
