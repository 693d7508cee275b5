import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";

/**
 * The point whose summed distance to all rows of `points` is least, by Weiszfeld's iteration from the mean: repeatedly
 * the mean weighted by 1 / distance. Stops when the point moves by less than 1e-6 of the rows' mean distance from it, or
 * after 100 iterations; rows closer than that count as if they were at that distance.
 *
 * Used for b_dec at initialisation: unlike the mean it ignores the few directions of enormous activations.
 *
 * @param points f32 [rows, dIn], at least one row
 * @returns f32 [dIn], the caller's to dispose
 */
export async function geometricMedian(points: Tensor, device: Device): Promise<Tensor> {
  const { kernels } = device;
  const rows = points.shape[0]!;
  const median = kernels.columnSums(points, { scale: 1 / rows });
  for (let iteration = 0; iteration < 100; iteration++) {
    using centred = kernels.addRow(points, median, { scale: -1 });
    using norms = kernels.rowNorms(centred);
    const distances = await norms.readFloat32();
    const tolerance = 1e-6 * (distances.reduce((total, distance) => total + distance, 0) / rows);
    if (tolerance === 0) break; // all rows are the same point
    const weights = Float32Array.from(distances, (distance) => 1 / Math.max(distance, tolerance));
    const total = weights.reduce((sum, weight) => sum + weight, 0);

    using weightTensor = device.tensor(weights, [rows]);
    // the weighted mean of the centred rows is the step, and keeps its digits when the step is small
    using step = kernels.weightedRowSum(weightTensor, centred, { scale: 1 / total });
    const moved = Math.hypot(...(await step.readFloat32()));
    kernels.add(median, step, { out: median });
    if (moved < tolerance) break;
  }
  return median;
}
