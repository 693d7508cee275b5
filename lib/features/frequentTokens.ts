import type { StateArrays } from "./exampleRows.js";
import type { TokenCount } from "./latentRecord.js";

/** Tokens watched per latent. */
const WATCHED = 32;

/**
 * Per latent the tokens on which it fires most often, in bounded memory: the space-saving sketch of Metwally, Agrawal &
 * El Abbadi 2005. A token that is not watched takes the place of the one with the lowest estimate, and inherits that
 * estimate as its uncertainty. What is told is what was seen for certain, the firings since the token was last admitted:
 * exact for a latent that fires on at most 32 different tokens, and never too much; a token is missed or undercounted by at
 * most 1/32 of the latent's firings.
 */
export class FrequentTokens {
  /** [dSae] */
  readonly #used: Uint8Array;
  /** [dSae, WATCHED]; of `counts` the firings since the token was admitted. */
  readonly #tokens: Int32Array;
  readonly #counts: Uint32Array;
  readonly #inherited: Uint32Array;
  readonly #sums: Float64Array;

  constructor(dSae: number) {
    this.#used = new Uint8Array(dSae);
    this.#tokens = new Int32Array(dSae * WATCHED);
    this.#counts = new Uint32Array(dSae * WATCHED);
    this.#inherited = new Uint32Array(dSae * WATCHED);
    this.#sums = new Float64Array(dSae * WATCHED);
  }

  static readonly bytesPerLatent: number = 1 + WATCHED * 20;

  add(latent: number, token: number, value: number): void {
    const first = latent * WATCHED;
    const used = this.#used[latent]!;
    let slot = first;
    while (slot < first + used && this.#tokens[slot] !== token) slot += 1;
    if (slot === first + used) slot = this.#admit(latent, token);
    this.#counts[slot]! += 1;
    this.#sums[slot]! += value;
  }

  /** Most firings first; of equals the lower token. */
  tokens(latent: number): TokenCount[] {
    return Array.from({ length: this.#used[latent]! }, (_, index) => {
      const slot = latent * WATCHED + index;
      const count = this.#counts[slot]!;
      return { token: this.#tokens[slot]!, count, meanActivation: this.#sums[slot]! / count };
    }).sort((a, b) => b.count - a.count || a.token - b.token);
  }

  get state(): StateArrays {
    return {
      used: this.#used,
      tokens: this.#tokens,
      counts: this.#counts,
      inherited: this.#inherited,
      sums: this.#sums,
    };
  }

  #admit(latent: number, token: number): number {
    const first = latent * WATCHED;
    const used = this.#used[latent]!;
    let slot = first + used;
    if (used < WATCHED) this.#used[latent] = used + 1;
    else {
      slot = first;
      for (let other = first + 1; other < first + WATCHED; other++) {
        if (this.#estimate(other) < this.#estimate(slot)) slot = other;
      }
      this.#inherited[slot] = this.#estimate(slot);
      this.#counts[slot] = 0;
      this.#sums[slot] = 0;
    }
    this.#tokens[slot] = token;
    return slot;
  }

  /** What the token's firings can be at most. */
  #estimate(slot: number): number {
    return this.#counts[slot]! + this.#inherited[slot]!;
  }
}
