import type { StateArrays } from "./exampleRows.js";
import type { DocumentActivation } from "./latentRecord.js";

/** Documents kept per latent. */
const KEPT = 5;
/** Tokens kept of how a document begins. */
export const BEGINNING = 16;

/**
 * Per latent the documents with the highest mean activation over their counted tokens. Documents come one after the other;
 * of the one at hand there is a sum for each latent.
 */
export class DocumentMeans {
  /** [dSae, KEPT] */
  readonly #documents: Uint32Array;
  readonly #means: Float64Array;
  readonly #lengths: Uint8Array;
  /** [dSae, KEPT, BEGINNING] */
  readonly #beginnings: Int32Array;
  /** [dSae] */
  readonly #kept: Uint8Array;
  readonly #sums: Float64Array;
  /** Of the document at hand: the latents that fire in it are the first `#firing` of `#latents`. */
  readonly #latents: Uint32Array;
  readonly #fires: Uint8Array;
  readonly #beginning: Int32Array = new Int32Array(BEGINNING);
  /** Its number, its tokens counted, its latents that fire, and the tokens of its beginning. */
  readonly #current: Float64Array = new Float64Array(4);

  constructor(dSae: number) {
    this.#documents = new Uint32Array(dSae * KEPT);
    this.#means = new Float64Array(dSae * KEPT);
    this.#lengths = new Uint8Array(dSae * KEPT);
    this.#beginnings = new Int32Array(dSae * KEPT * BEGINNING);
    this.#kept = new Uint8Array(dSae);
    this.#sums = new Float64Array(dSae);
    this.#latents = new Uint32Array(dSae);
    this.#fires = new Uint8Array(dSae);
  }

  static readonly bytesPerLatent: number = KEPT * (13 + 4 * BEGINNING) + 14;

  /** The token that counts next. */
  addToken(document: number, token: number): void {
    if (document !== this.#current[0]) this.#finish(document);
    if (this.#current[3]! < BEGINNING) this.#beginning[this.#current[3]!++] = token;
    this.#current[1]! += 1;
  }

  /** A firing on the token added last. */
  addFiring(latent: number, value: number): void {
    if (this.#fires[latent] === 0) {
      this.#fires[latent] = 1;
      this.#latents[this.#current[2]!++] = latent;
    }
    this.#sums[latent]! += value;
  }

  /** No more text comes. */
  end(): void {
    this.#finish(0);
  }

  /** Highest mean first; of equals the earlier. A document whose mean is not positive is no example of the latent. */
  documents(latent: number): DocumentActivation[] {
    return Array.from({ length: this.#kept[latent]! }, (_, index) => {
      const row = latent * KEPT + index;
      return {
        document: this.#documents[row]!,
        meanActivation: this.#means[row]!,
        tokens: this.#beginnings.slice(row * BEGINNING, row * BEGINNING + this.#lengths[row]!),
      };
    }).sort((a, b) => b.meanActivation - a.meanActivation || a.document - b.document);
  }

  get state(): StateArrays {
    return {
      documents: this.#documents,
      means: this.#means,
      lengths: this.#lengths,
      beginnings: this.#beginnings,
      kept: this.#kept,
      sums: this.#sums,
      latents: this.#latents,
      fires: this.#fires,
      beginning: this.#beginning,
      current: this.#current,
    };
  }

  #finish(next: number): void {
    const [document, tokens, firing, length] = this.#current as unknown as [number, number, number, number];
    for (let index = 0; index < firing; index++) {
      const latent = this.#latents[index]!;
      this.#offer(latent, document, this.#sums[latent]! / tokens, length);
      this.#sums[latent] = 0;
      this.#fires[latent] = 0;
    }
    this.#current.set([next, 0, 0, 0]);
  }

  #offer(latent: number, document: number, mean: number, length: number): void {
    if (mean <= 0) return;
    const first = latent * KEPT;
    const kept = this.#kept[latent]!;
    let row = first + kept;
    if (kept < KEPT) this.#kept[latent] = kept + 1;
    else {
      row = first;
      for (let other = first + 1; other < first + KEPT; other++) {
        const difference = this.#means[other]! - this.#means[row]!;
        if (difference < 0 || (difference === 0 && this.#documents[other]! > this.#documents[row]!)) row = other;
      }
      if (mean <= this.#means[row]!) return;
    }
    this.#documents[row] = document;
    this.#means[row] = mean;
    this.#lengths[row] = length;
    this.#beginnings.set(this.#beginning, row * BEGINNING);
  }
}
