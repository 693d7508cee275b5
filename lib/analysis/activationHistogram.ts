/**
 * Counts in equal bins from `firstEdge` on, each `binWidth` wide. Of a bin's two edges the one farther from 0 belongs to
 * it: bin i holds (firstEdge + i * binWidth, firstEdge + (i + 1) * binWidth] where values are positive.
 */
export interface Histogram {
  readonly firstEdge: number;
  readonly binWidth: number;
  readonly counts: readonly number[];
}

const BINS_PER_SIGN = 32;

/**
 * An exact histogram of values other than 0 whose range is not known beforehand. It has 32 equal bins over (0, range] and
 * as many over [-range, 0), where range is a power of two; a value beyond it doubles the range, which merges the bins
 * pairwise. So between half and all of the bins of the side with the strongest value are in use at the end, nothing is
 * sampled, and the order of the values does not matter.
 */
export class ActivationHistogram {
  #range = 0;
  /** By distance from 0. */
  readonly #positive: Float64Array = new Float64Array(BINS_PER_SIGN);
  readonly #negative: Float64Array = new Float64Array(BINS_PER_SIGN);

  add(value: number): void {
    const magnitude = Math.abs(value);
    if (magnitude > this.#range) this.#widen(magnitude);
    const bin = Math.ceil((magnitude / this.#range) * BINS_PER_SIGN) - 1;
    const counts = value > 0 ? this.#positive : this.#negative;
    counts[Math.max(0, bin)]! += 1;
  }

  /** Bins from 0, or the one that holds the most negative value, up to the one that holds the largest, or 0. */
  snapshot(): Histogram {
    const binWidth = this.#range / BINS_PER_SIGN;
    const [negative, positive] = [this.#negative, this.#positive].map((counts) =>
      Array.from(counts.subarray(0, counts.findLastIndex((count) => count > 0) + 1)),
    ) as [number[], number[]];
    return { firstEdge: 0 - negative.length * binWidth, binWidth, counts: [...negative.reverse(), ...positive] };
  }

  #widen(magnitude: number): void {
    if (this.#range === 0) {
      this.#range = 2 ** Math.ceil(Math.log2(magnitude));
      // log2 of a subnormal or of a value next to a power of two may round down.
      while (this.#range < magnitude) this.#range *= 2;
      return;
    }
    while (this.#range < magnitude) {
      this.#range *= 2;
      for (const counts of [this.#positive, this.#negative]) {
        for (let bin = 0; bin < BINS_PER_SIGN; bin++) {
          counts[bin] = bin < BINS_PER_SIGN / 2 ? counts[2 * bin]! + counts[2 * bin + 1]! : 0;
        }
      }
    }
  }
}
