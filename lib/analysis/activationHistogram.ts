/**
 * Counts in equal bins from `firstEdge` on, each `binWidth` wide. Of a bin's two edges the one farther from 0 belongs to
 * it: bin i holds (firstEdge + i * binWidth, firstEdge + (i + 1) * binWidth] where values are positive.
 */
export interface Histogram {
  readonly firstEdge: number;
  readonly binWidth: number;
  readonly counts: readonly number[];
}

/** Bins on each side of 0. */
export const BINS_PER_SIGN = 32;

/**
 * Exact histograms of values other than 0 whose ranges are not known beforehand, such as one for each latent. A histogram
 * has 32 equal bins over (0, range] and as many over [-range, 0), where range is a power of two; a value beyond it doubles
 * the range, which merges the bins pairwise. So between half and all of the bins of the side with the strongest value are
 * in use at the end, nothing is sampled, and the order of the values does not matter.
 */
export class ActivationHistograms {
  /** Per histogram, the range; 0 while it is empty. */
  readonly ranges: Float64Array;
  /** [histograms, 2, 32]: of each the positive values, then the negative ones, by distance from 0. */
  readonly counts: Uint32Array;

  constructor(histograms: number) {
    this.ranges = new Float64Array(histograms);
    this.counts = new Uint32Array(histograms * 2 * BINS_PER_SIGN);
  }

  /** @returns how often the range of values counted before was doubled */
  add(histogram: number, value: number): number {
    const magnitude = Math.abs(value);
    const doublings = magnitude > this.ranges[histogram]! ? this.#widen(histogram, magnitude) : 0;
    const bin = Math.max(0, Math.ceil((magnitude / this.ranges[histogram]!) * BINS_PER_SIGN) - 1);
    this.counts[(2 * histogram + (value > 0 ? 0 : 1)) * BINS_PER_SIGN + bin]! += 1;
    return doublings;
  }

  /** Bins from 0, or the one that holds the most negative value, up to the one that holds the largest, or 0. */
  snapshot(histogram: number): Histogram {
    const binWidth = this.ranges[histogram]! / BINS_PER_SIGN;
    const first = 2 * histogram * BINS_PER_SIGN;
    const [positive, negative] = [first, first + BINS_PER_SIGN].map((start) => {
      const counts = this.counts.subarray(start, start + BINS_PER_SIGN);
      return Array.from(counts.subarray(0, counts.findLastIndex((count) => count > 0) + 1));
    }) as [number[], number[]];
    return { firstEdge: 0 - negative.length * binWidth, binWidth, counts: [...negative.reverse(), ...positive] };
  }

  #widen(histogram: number, magnitude: number): number {
    let range = this.ranges[histogram]!;
    let doublings = 0;
    if (range === 0) {
      range = 2 ** Math.ceil(Math.log2(magnitude));
      // log2 of a subnormal or of a value next to a power of two may round down.
      while (range < magnitude) range *= 2;
    }
    for (; range < magnitude; range *= 2, doublings++) {
      for (const start of [2 * histogram, 2 * histogram + 1].map((side) => side * BINS_PER_SIGN)) {
        const counts = this.counts.subarray(start, start + BINS_PER_SIGN);
        for (let bin = 0; bin < BINS_PER_SIGN; bin++) {
          counts[bin] = bin < BINS_PER_SIGN / 2 ? counts[2 * bin]! + counts[2 * bin + 1]! : 0;
        }
      }
    }
    this.ranges[histogram] = range;
    return doublings;
  }
}
