import { readFileSync } from "node:fs";

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
