import type { NativeSelection } from "./addon.js";
import type { FeatureSet } from "./codes.js";
import type { Operands } from "./operands.js";
import type { Tensor } from "./tensor.js";

/**
 * Which entries {@link Kernels.encode} keeps, z being the pre-activation. All are exact. `features` restricts any of
 * them to a subset of the features.
 *
 * - `positive`: z > 0; the value is z.
 * - `topk`: the k largest z of each row, ties by (z descending, feature ascending); the value is max(z, 0). With
 *   `by: "magnitude"` the k largest |z|, and the value is z, signed. A row has min(k, eligible features) entries.
 * - `batchtopk`: the `k` largest positive z of the whole call (for BatchTopK: floor(k per token * rows)), fewer when
 *   fewer are positive, ties by (z descending, row ascending, feature ascending); the value is z.
 * - `above`: z > thresholds[f] - margin, thresholds [dSae]; the value is max(z, 0) where z > thresholds[f] and 0 within
 *   the margin (default 0), so that such entries are selected without being active. NaN in the thresholds is
 *   ERR_NON_FINITE at the next read.
 * - `all`: every z; the value is max(z, 0). The codes are as large as a [rows, dSae] matrix, three times over.
 */
export type Selection = { readonly features?: FeatureSet | undefined } & (
  | { readonly select: "positive" }
  | { readonly select: "topk"; readonly k: number; readonly by?: "value" | "magnitude" | undefined }
  | { readonly select: "batchtopk"; readonly k: number }
  | { readonly select: "above"; readonly thresholds: Tensor; readonly margin?: number | undefined }
  | { readonly select: "all" }
);

/** The selection as the native module takes it; "dSae" must be known to the call. */
export function nativeSelection(call: Operands, selection: Selection): NativeSelection {
  switch (selection.select) {
    case "positive":
    case "all":
      return [selection.select];
    case "topk": {
      const by = selection.by ?? "value";
      if (by !== "value" && by !== "magnitude") {
        call.fail("ERR_INVALID_ARGUMENT", `selection.by must be "value" or "magnitude", found ${String(by)}`);
      }
      return ["topk", call.integer("selection.k", selection.k, 1), by === "magnitude"];
    }
    case "batchtopk":
      return ["batchtopk", call.integer("selection.k", selection.k)];
    case "above":
      return [
        "above",
        call.tensor("selection.thresholds", selection.thresholds, ["dSae"]),
        call.number("selection.margin", selection.margin ?? 0, 0),
      ];
    default: {
      const { select } = selection as { select: unknown };
      return call.fail(
        "ERR_INVALID_ARGUMENT",
        `selection.select must be "positive", "topk", "batchtopk", "above" or "all", found ${String(select)}`,
      );
    }
  }
}
