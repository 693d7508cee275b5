/** Counts in equal bins: bin i holds values in (firstEdge + i * binWidth, firstEdge + (i + 1) * binWidth]. */
export interface Histogram {
  readonly firstEdge: number;
  readonly binWidth: number;
  readonly counts: readonly number[];
}

const BINS = 32;

/**
 * An exact histogram of positive values whose range is not known beforehand. It has 32 equal bins over (0, range],
 * where range is a power of two; a value beyond it doubles the range, which merges the bins pairwise. So between half
 * and all of the bins are in use at the end, nothing is sampled, and the order of the values does not matter.
 */
export class ActivationHistogram {
  #range = 0;
  readonly #counts: Float64Array = new Float64Array(BINS);

  add(value: number): void {
    if (value > this.#range) this.#widen(value);
    const bin = Math.ceil((value / this.#range) * BINS) - 1;
    this.#counts[Math.max(0, bin)]! += 1;
  }

  /** Bins up to the one that holds the largest value. */
  snapshot(): Histogram {
    const last = this.#counts.findLastIndex((count) => count > 0);
    return { firstEdge: 0, binWidth: this.#range / BINS, counts: Array.from(this.#counts.subarray(0, last + 1)) };
  }

  #widen(value: number): void {
    if (this.#range === 0) {
      this.#range = 2 ** Math.ceil(Math.log2(value));
      // log2 of a subnormal or of a value next to a power of two may round down.
      while (this.#range < value) this.#range *= 2;
      return;
    }
    while (this.#range < value) {
      this.#range *= 2;
      for (let bin = 0; bin < BINS; bin++) {
        this.#counts[bin] = bin < BINS / 2 ? this.#counts[2 * bin]! + this.#counts[2 * bin + 1]! : 0;
      }
    }
  }
}
