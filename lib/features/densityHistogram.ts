import type { Histogram } from "../analysis/activationHistogram.js";

const BINS_PER_DECADE = 4;

/** The latents that fire at all, by log10 of the share of `tokens` on which they do; four bins a decade, edges at powers of ten. */
export function densityHistogram(firingCounts: Float64Array, tokens: number): Histogram {
  const binWidth = 1 / BINS_PER_DECADE;
  const rarest = firingCounts.reduce((least, count) => (count > 0 ? Math.min(least, count) : least), tokens);
  // Bins are open at their lower end: a density of exactly 1% needs the decade below.
  const firstEdge = tokens === 0 ? -1 : Math.ceil(Math.log10(rarest / tokens)) - 1;
  const counts = new Array<number>(-firstEdge * BINS_PER_DECADE).fill(0);
  for (const count of firingCounts) {
    if (count === 0) continue;
    const bin = Math.ceil((Math.log10(count / tokens) - firstEdge) * BINS_PER_DECADE) - 1;
    counts[Math.min(counts.length - 1, Math.max(0, bin))]! += 1;
  }
  return { firstEdge, binWidth, counts };
}
