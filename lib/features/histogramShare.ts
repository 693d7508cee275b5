import type { Histogram } from "../analysis/activationHistogram.js";

/** The share of a histogram's values that are at most `value`, as if each bin's lay evenly in it; 0 of an empty one. */
export function shareAtMost({ firstEdge, binWidth, counts }: Histogram, value: number): number {
  let [below, all] = [0, 0];
  for (const [bin, count] of counts.entries()) {
    const inBin = (value - (firstEdge + bin * binWidth)) / binWidth;
    below += count * Math.max(0, Math.min(1, inBin));
    all += count;
  }
  return all === 0 ? 0 : below / all;
}
