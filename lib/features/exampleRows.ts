import type { FeatureExample } from "../analysis/features.js";
import { type FiringChains, NONE } from "./firingChains.js";

/** How much text is kept around a peak. */
export interface WindowShape {
  readonly tokensBefore: number;
  readonly tokensAfter: number;
}

/** Arrays by name: all that a part of the collector remembers, to be saved and restored. */
export type StateArrays = Readonly<Record<string, Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array>>;

/**
 * Rows that each hold one example, column by column: 8 bytes for each token of the window and 16 for the rest. A row that
 * was never written takes no memory until it is: the system gives a page of zeros when it is first touched.
 */
export class ExampleRows {
  readonly width: number;
  readonly #before: number;
  readonly activations: Float32Array;
  readonly contexts: Uint32Array;
  readonly #positions: Uint32Array;
  readonly #lengths: Uint32Array;
  readonly #tokens: Int32Array;
  readonly #values: Float32Array;

  constructor(rows: number, { tokensBefore, tokensAfter }: WindowShape) {
    this.width = tokensBefore + 1 + tokensAfter;
    this.#before = tokensBefore;
    this.activations = new Float32Array(rows);
    this.contexts = new Uint32Array(rows);
    this.#positions = new Uint32Array(rows);
    this.#lengths = new Uint32Array(rows);
    this.#tokens = new Int32Array(rows * this.width);
    this.#values = new Float32Array(rows * this.width);
  }

  /** Bytes that a row takes. */
  static rowBytes({ tokensBefore, tokensAfter }: WindowShape): number {
    return 16 + 8 * (tokensBefore + 1 + tokensAfter);
  }

  /** @param firing - of `latent` in the context at hand */
  write(row: number, context: number, chains: FiringChains, latent: number, firing: number): void {
    const position = chains.positions[firing]!;
    const { first, end } = this.#window(position, chains.tokens);
    this.activations[row] = chains.values[firing]!;
    this.contexts[row] = context;
    this.#positions[row] = position;
    this.#lengths[row] = end - first;
    const at = row * this.width;
    this.#tokens.set(chains.tokens.subarray(first, end), at);
    const values = this.#values.subarray(at, at + this.width).fill(0);
    for (let other = chains.heads[latent]!; other !== NONE; other = chains.next[other]!) {
      const index = chains.positions[other]! - first;
      if (index >= 0 && index < end - first) values[index] = chains.values[other]!;
    }
  }

  /** The first of `count` rows from `start` on with the tokens that a firing would have; NONE where there is no such row. */
  rowWithTokens(start: number, count: number, chains: FiringChains, firing: number): number {
    const { first, end } = this.#window(chains.positions[firing]!, chains.tokens);
    for (let row = start; row < start + count; row++) {
      if (this.#lengths[row] !== end - first) continue;
      let [index, at] = [first, row * this.width];
      while (index < end && this.#tokens[at] === chains.tokens[index]) {
        index += 1;
        at += 1;
      }
      if (index === end) return row;
    }
    return NONE;
  }

  read(row: number): FeatureExample {
    const position = this.#positions[row]!;
    const [start, end] = [row * this.width, row * this.width + this.#lengths[row]!];
    return {
      activation: this.activations[row]!,
      context: this.contexts[row]!,
      position,
      tokens: this.#tokens.slice(start, end),
      activations: this.#values.slice(start, end),
      peak: Math.min(position, this.#before),
    };
  }

  /** Puts an example that was read elsewhere into a row. */
  put(row: number, { activation, context, position, tokens, activations }: FeatureExample): void {
    this.activations[row] = activation;
    this.contexts[row] = context;
    this.#positions[row] = position;
    this.#lengths[row] = tokens.length;
    this.#tokens.set(tokens, row * this.width);
    this.#values.set(activations, row * this.width);
  }

  get state(): StateArrays {
    return {
      activations: this.activations,
      contexts: this.contexts,
      positions: this.#positions,
      lengths: this.#lengths,
      tokens: this.#tokens,
      values: this.#values,
    };
  }

  #window(position: number, tokens: Int32Array): { first: number; end: number } {
    const first = Math.max(0, position - this.#before);
    return { first, end: Math.min(tokens.length, position + this.width - this.#before) };
  }
}
