/** How well the directions of a dictionary match the true ones. */
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { maximumAssignment } from "./linearAssignment.js";

export interface DirectionRecovery {
  /**
   * Mean correlation coefficient: mean |cosine| over the one-to-one matching of latents with features that makes it as
   * large as possible (min(latents, features) pairs).
   */
  readonly mcc: number;
  /** Mean over features of the largest cosine with any latent (Sharkey et al. 2022). */
  readonly mmcs: number;
  /** Different features among the latents' best ones, over the number of latents. */
  readonly uniqueness: number;
  /** For each latent the feature of the largest |cosine|, the lowest among equals, [latents]. */
  readonly bestFeature: Uint32Array;
}

/**
 * Compares directions, of any length, latents [latents, dIn] with true features [features, dIn]. A row of zeros has cosine 0
 * with everything. Reads all latents * features cosines.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH for other widths or no rows at all; ERR_NON_FINITE for NaN among the directions;
 *   ERR_ABORTED by the signal.
 */
export async function compareDirections(
  latents: Tensor,
  features: Tensor,
  signal?: AbortSignal,
): Promise<DirectionRecovery> {
  const { kernels } = latents.device;
  const [rows = 0, width] = latents.shape;
  const [columns = 0] = features.shape;
  if (features.shape[1] !== width || rows === 0 || columns === 0) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `directions to compare must be [latents, dIn] and [features, dIn], found [${latents.shape.join(", ")}] and ` +
        `[${features.shape.join(", ")}]`,
    );
  }
  using unitLatents = kernels.normaliseRows(latents);
  using unitFeatures = kernels.normaliseRows(features);
  using products = kernels.linear(unitLatents, unitFeatures);
  const cosines = await products.readFloat32();
  const similarities = cosines.map(Math.abs);

  const columnOfRow = await maximumAssignment(similarities, rows, columns, signal);
  let matched = 0;
  for (const [row, column] of columnOfRow.entries()) {
    if (column !== -1) matched += similarities[row * columns + column]!;
  }
  const bestFeature = new Uint32Array(rows);
  const nearest = new Float64Array(columns).fill(-1);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    let best = 0;
    for (let column = 0; column < columns; column++) {
      if (similarities[begin + column]! > similarities[begin + best]!) best = column;
      if (cosines[begin + column]! > nearest[column]!) nearest[column] = cosines[begin + column]!;
    }
    bestFeature[row] = best;
  }
  return {
    mcc: matched / Math.min(rows, columns),
    mmcs: nearest.reduce((sum, cosine) => sum + cosine, 0) / columns,
    uniqueness: new Set(bestFeature).size / rows,
    bestFeature,
  };
}
