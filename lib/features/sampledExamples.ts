import { BINS_PER_SIGN } from "../analysis/activationHistogram.js";
import type { FeatureExample } from "../analysis/features.js";
import { ExampleRows, type StateArrays, type WindowShape } from "./exampleRows.js";
import { type FiringChains, NONE } from "./firingChains.js";
import { hashOf } from "./hash.js";
import type { ActivationQuantile } from "./latentRecord.js";

/** Slices of a latent's range of activations, which is the power of two that its histogram has. */
export const SLICES = 8;
/** Examples kept from each. */
const PER_SLICE = 2;
const BINS_PER_SLICE = BINS_PER_SIGN / SLICES;

/**
 * Per latent and sign a random sample from each eighth of its range of activations: each firing has a random rank that
 * follows from the seed, the latent and its place alone, and of each slice those of the lowest ranks stay, no two with the
 * same tokens. When the range doubles, two slices become one and the lowest of both stay: just those that would be there
 * had the range been known. So neither how contexts are grouped nor an interruption changes the sample.
 */
export class SampledExamples {
  readonly #seed: number;
  readonly #rows: ExampleRows;
  readonly #ranks: Uint32Array;
  /** [dSae, SLICES] */
  readonly #counts: Uint8Array;

  constructor(dSae: number, window: WindowShape, seed: number) {
    this.#seed = seed;
    this.#rows = new ExampleRows(dSae * SLICES * PER_SLICE, window);
    this.#ranks = new Uint32Array(dSae * SLICES * PER_SLICE);
    this.#counts = new Uint8Array(dSae * SLICES);
  }

  static bytesPerLatent(window: WindowShape): number {
    return SLICES * (PER_SLICE * (ExampleRows.rowBytes(window) + 4) + 1);
  }

  /** @param range - of the latent's histogram, at least the magnitude of the firing */
  offer(latent: number, context: number, chains: FiringChains, firing: number, range: number): void {
    const share = Math.abs(chains.values[firing]!) / range;
    const slice = latent * SLICES + Math.max(0, Math.ceil(share * SLICES) - 1);
    const rank = hashOf(this.#seed, latent, context, chains.positions[firing]!);
    const first = slice * PER_SLICE;
    const count = this.#counts[slice]!;
    const last = this.#last(first, count);
    if (count === PER_SLICE && rank >= this.#ranks[last]!) return;
    const same = this.#rows.rowWithTokens(first, count, chains, firing);
    if (same !== NONE && rank >= this.#ranks[same]!) return;
    let row = same;
    if (row === NONE && count < PER_SLICE) {
      row = first + count;
      this.#counts[slice] = count + 1;
    } else if (row === NONE) row = last;
    this.#rows.write(row, context, chains, latent, firing);
    this.#ranks[row] = rank;
  }

  /** The range of the latent's histogram was doubled. */
  widen(latent: number, doublings: number): void {
    for (let turn = 0; turn < doublings; turn++) {
      for (let slice = 0; slice < SLICES; slice++) {
        const merged =
          slice < SLICES / 2 ? [...this.#ranked(latent, 2 * slice), ...this.#ranked(latent, 2 * slice + 1)] : [];
        this.#replace(latent * SLICES + slice, merged);
      }
    }
  }

  /** Where there are any firings, highest slice first; within a slice in the order of the text. */
  quantiles(latent: number, sign: 1 | -1, { ranges, counts }: HistogramState): ActivationQuantile[] {
    const width = ranges[latent]! / SLICES;
    const bins = (side: number): Uint32Array =>
      counts.subarray((2 * latent + side) * BINS_PER_SIGN, (2 * latent + side + 1) * BINS_PER_SIGN);
    const [own, other] = sign > 0 ? [bins(0), bins(1)] : [bins(1), bins(0)];
    const firings = sum(own) + sum(other);
    const found: ActivationQuantile[] = [];
    for (let slice = SLICES - 1; slice >= 0; slice--) {
      const inSlice = sum(own.subarray(slice * BINS_PER_SLICE, (slice + 1) * BINS_PER_SLICE));
      if (inSlice === 0) continue;
      const [near, far] = [slice * width, (slice + 1) * width];
      const examples = this.#ranked(latent, slice).map(({ example }) => example);
      examples.sort((a, b) => a.context - b.context || a.position - b.position);
      const [low, high] = sign > 0 ? [near, far] : [-far, 0 - near];
      found.push({ low, high, share: inSlice / firings, examples });
    }
    return sign > 0 ? found : found.reverse();
  }

  get state(): StateArrays {
    return { ...this.#rows.state, ranks: this.#ranks, counts: this.#counts };
  }

  #last(first: number, count: number): number {
    let last = first;
    for (let row = first + 1; row < first + count; row++) if (this.#ranks[row]! > this.#ranks[last]!) last = row;
    return last;
  }

  #ranked(latent: number, slice: number): Ranked[] {
    const first = (latent * SLICES + slice) * PER_SLICE;
    return Array.from({ length: this.#counts[latent * SLICES + slice]! }, (_, index) => ({
      rank: this.#ranks[first + index]!,
      example: this.#rows.read(first + index),
    }));
  }

  #replace(slice: number, ranked: Ranked[]): void {
    const texts = new Set<string>();
    const kept = ranked
      .sort((a, b) => a.rank - b.rank)
      .filter(({ example }) => {
        const text = example.tokens.join();
        return !texts.has(text) && texts.add(text);
      })
      .slice(0, PER_SLICE);
    this.#counts[slice] = kept.length;
    kept.forEach(({ rank, example }, index) => {
      this.#ranks[slice * PER_SLICE + index] = rank;
      this.#rows.put(slice * PER_SLICE + index, example);
    });
  }
}

/** Of `ActivationHistograms`. */
interface HistogramState {
  readonly ranges: Float64Array;
  readonly counts: Uint32Array;
}

interface Ranked {
  readonly rank: number;
  readonly example: FeatureExample;
}

function sum(counts: Uint32Array): number {
  return counts.reduce((total, count) => total + count, 0);
}
