import type { FeatureExample } from "../analysis/features.js";
import { ExampleRows, type StateArrays, type WindowShape } from "./exampleRows.js";
import { type FiringChains, NONE } from "./firingChains.js";

/**
 * Per latent the strongest firings of one sign, at most one per context and no two with the same tokens; of equals the
 * earlier.
 */
export class StrongestExamples {
  readonly #limit: number;
  readonly #rows: ExampleRows;
  readonly #counts: Uint32Array;

  constructor(dSae: number, limit: number, window: WindowShape) {
    this.#limit = limit;
    this.#rows = new ExampleRows(dSae * limit, window);
    this.#counts = new Uint32Array(dSae);
  }

  static bytesPerLatent(limit: number, window: WindowShape): number {
    return limit * ExampleRows.rowBytes(window) + 4;
  }

  /** @param peak - the strongest firing of this context */
  offer(latent: number, context: number, chains: FiringChains, peak: number): void {
    const limit = this.#limit;
    if (limit === 0) return;
    const first = latent * limit;
    const count = this.#counts[latent]!;
    const strength = Math.abs(chains.values[peak]!);
    const weakest = this.#weakest(first, count);
    if (count === limit && strength <= Math.abs(this.#rows.activations[weakest]!)) return;
    const same = this.#rows.rowWithTokens(first, count, chains, peak);
    if (same !== NONE && strength <= Math.abs(this.#rows.activations[same]!)) return;
    let row = same;
    if (row === NONE && count < limit) {
      row = first + count;
      this.#counts[latent] = count + 1;
    } else if (row === NONE) row = weakest;
    this.#rows.write(row, context, chains, latent, peak);
  }

  /** Strongest first; of equals the earlier context first. */
  examples(latent: number): FeatureExample[] {
    const first = latent * this.#limit;
    return Array.from({ length: this.#counts[latent]! }, (_, index) => this.#rows.read(first + index)).sort(
      (a, b) => Math.abs(b.activation) - Math.abs(a.activation) || a.context - b.context,
    );
  }

  get state(): StateArrays {
    return { ...this.#rows.state, counts: this.#counts };
  }

  /** Of equals the one from the latest context. */
  #weakest(first: number, count: number): number {
    const { activations, contexts } = this.#rows;
    let weakest = first;
    for (let row = first + 1; row < first + count; row++) {
      const difference = Math.abs(activations[row]!) - Math.abs(activations[weakest]!);
      if (difference < 0 || (difference === 0 && contexts[row]! > contexts[weakest]!)) weakest = row;
    }
    return weakest;
  }
}
