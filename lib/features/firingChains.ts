import { MonosemError } from "../errors.js";

/** The active latents of rows of activations, as `Codes.read` gives them. */
export interface CodeEntries {
  /** `[rows + 1]`: row r has the entries from `rowOffsets[r]` to `rowOffsets[r + 1]`. */
  readonly rowOffsets: Float64Array;
  readonly features: Uint32Array;
  readonly values: Float32Array;
}

/** The end of a chain, and the head of a latent that does not fire. */
export const NONE = -1;

/**
 * The firings of one context, chained latent by latent in the order of the text: `heads[latent]` is the latent's first
 * firing, `next[firing]` the one after it. Firings are numbered in the order of the rows. Filled anew for each context.
 */
export class FiringChains {
  readonly heads: Int32Array;
  readonly #tails: Int32Array;
  next: Int32Array = new Int32Array(0);
  /** Per firing, where in the context it is. */
  positions: Int32Array = new Int32Array(0);
  values: Float32Array = new Float32Array(0);
  /** The latents that fire in the context, each once, in the order of their first firings. */
  firing: Uint32Array = new Uint32Array(0);
  readonly #firing: Uint32Array;
  /** The whole text of the context. */
  tokens: Int32Array = new Int32Array(0);

  constructor(dSae: number) {
    this.heads = new Int32Array(dSae).fill(NONE);
    this.#tails = new Int32Array(dSae);
    this.#firing = new Uint32Array(dSae);
  }

  /**
   * @param positions - that count, ascending: row `firstRow + i` holds the active latents at `positions[i]`
   * @param context - its number, for messages
   * @param visit - called for each firing in the order of the text
   * @throws MonosemError ERR_SHAPE_MISMATCH, ERR_NON_FINITE, ERR_INVALID_ARGUMENT for a latent that there is not
   */
  fill(
    tokens: Int32Array,
    positions: Int32Array,
    { rowOffsets, features, values }: CodeEntries,
    firstRow: number,
    context: number,
    visit: (latent: number, value: number, index: number) => void,
  ): void {
    const start = rowOffsets[firstRow];
    const end = rowOffsets[firstRow + positions.length];
    if (start === undefined || end === undefined) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${positions.length} positions from row ${firstRow} on, but there are only ${rowOffsets.length - 1} rows of codes`,
      );
    }
    this.#check(positions, { rowOffsets, features, values }, firstRow, context);
    for (const latent of this.firing) this.heads[latent] = NONE;
    if (this.next.length < end - start) {
      this.next = new Int32Array(end - start);
      this.positions = new Int32Array(end - start);
      this.values = new Float32Array(end - start);
    }
    const { heads, next } = this;
    let [firings, latents] = [0, 0];
    for (let index = 0; index < positions.length; index++) {
      const rowEnd = rowOffsets[firstRow + index + 1]!;
      for (let entry = rowOffsets[firstRow + index]!; entry < rowEnd; entry++) {
        const value = values[entry]!;
        if (value === 0) continue; // selected, but not active
        const latent = features[entry]!;
        if (heads[latent] === NONE) {
          heads[latent] = firings;
          this.#firing[latents++] = latent;
        } else next[this.#tails[latent]!] = firings;
        this.#tails[latent] = firings;
        next[firings] = NONE;
        this.positions[firings] = positions[index]!;
        this.values[firings] = value;
        firings += 1;
        visit(latent, value, index);
      }
    }
    this.firing = this.#firing.subarray(0, latents);
    this.tokens = tokens;
  }

  /** Before anything is counted, so that a context is in the statistics whole or not at all. */
  #check(
    positions: Int32Array,
    { rowOffsets, features, values }: CodeEntries,
    firstRow: number,
    context: number,
  ): void {
    const dSae = this.heads.length;
    for (let index = 0; index < positions.length; index++) {
      const rowEnd = rowOffsets[firstRow + index + 1]!;
      for (let entry = rowOffsets[firstRow + index]!; entry < rowEnd; entry++) {
        const [latent, value] = [features[entry]!, values[entry]!];
        if (latent >= dSae) {
          throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no latent ${latent}: there are ${dSae}`);
        }
        if (Number.isFinite(value)) continue;
        throw new MonosemError(
          "ERR_NON_FINITE",
          `latent ${latent} has activation ${value} in context ${context} at position ${positions[index]}`,
        );
      }
    }
  }
}
