import { native } from "./addon.js";
import { Codes } from "./codes.js";
import { Operands } from "./operands.js";
import type { Tensor } from "./tensor.js";

/**
 * How the features of synthetic data fire. Of sample s, with independent standard normal numbers g [rank] and
 * e [features], feature f fires where
 *
 *     factors[f] · g + sqrt(1 - |factors[f]|²) e_f > the (1 - probabilities[f]) quantile of the standard normal distribution
 *
 * with magnitude max(0, means[f] + deviations[f] * N(0, 1)). The first features form trees, numbered breadth first: the
 * `roots`, their `children` in order of the parents, and so on down `depth` levels below the roots (fewer when there are
 * not that many features). A child fires only together with its parent, its magnitude is multiplied by its parent's over
 * the parent's mean, and of the children of one parent that would fire a random one does.
 */
export interface FeatureDistribution {
  /** f32 [features], in [0, 1]. */
  readonly probabilities: Tensor;
  /** f32 [features, rank], rows of norm below 1. Without it features fire independently. */
  readonly factors?: Tensor | undefined;
  /** f32 [features], above 0. */
  readonly means: Tensor;
  /** f32 [features], not below 0. */
  readonly deviations: Tensor;
  readonly roots: number;
  readonly children: number;
  readonly depth: number;
}

/**
 * The features of the samples `offset`, `offset` + 1, ...: codes [rows, features] whose values are magnitudes, all above
 * 0. A sample depends on the seed and its own number alone.
 *
 * @throws {MonosemError} As kernels do; ERR_INVALID_ARGUMENT at the next read for what is no distribution.
 */
export function drawFeatures(
  distribution: FeatureDistribution,
  rows: number,
  options: { readonly seed: number; readonly offset: number },
): Codes {
  const { device } = distribution.probabilities;
  const call = new Operands(device, "drawFeatures");
  const probabilities = call.tensor("probabilities", distribution.probabilities, ["features"]);
  const factors = call.optionalTensor("factors", distribution.factors, ["features", "rank"]);
  const means = call.tensor("means", distribution.means, ["features"]);
  const deviations = call.tensor("deviations", distribution.deviations, ["features"]);
  const roots = call.integer("roots", distribution.roots);
  const children = call.integer("children", distribution.children);
  const depth = call.integer("depth", distribution.depth);
  const seed = call.integer("seed", options.seed);
  const offset = call.integer("offset", options.offset);
  call.integer("rows", rows);
  call.integer("the number of the last sample", offset + rows);
  const codes = native.newCodes(call.native, rows, call.size("features"));
  native.drawFeatures(
    call.native,
    probabilities,
    factors,
    means,
    deviations,
    roots,
    children,
    depth,
    seed,
    offset,
    codes,
  );
  return new Codes(device, rows, call.size("features"), codes);
}
