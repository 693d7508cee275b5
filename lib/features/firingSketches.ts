import type { StateArrays } from "./exampleRows.js";
import { distinctHash } from "./hash.js";
import type { CoActiveLatent } from "./latentRecord.js";

/** Firings sketched per latent. */
const SKETCH = 128;
/** Latents told per latent. */
const TOLD = 10;
/** Of the latents that share most of the sketch, so many are compared in full. */
const CANDIDATES = 64;
/** latent + hash * 2^21 is exact in a double. */
const MOST_LATENTS = 2 ** 21;

/**
 * Which latents fire on the same tokens, in 512 bytes per latent: of the tokens on which a latent fires the 128 whose
 * numbers have the lowest hashes (bottom-k min-hash, Cohen & Kaplan 2007). Below the lower of two latents' highest hashes
 * their sketches miss nothing, and what is there is a random sample of the tokens on which either fires: the share of them
 * on which both do estimates the Jaccard overlap J with a standard error of sqrt(J (1 - J) / 128) at most, 0.044. For two
 * latents that fire on at most 128 tokens it is exact.
 */
export class FiringSketches {
  readonly #dSae: number;
  /** [dSae, SKETCH]: of each latent a heap with the highest hash on top. */
  readonly #hashes: Uint32Array;
  readonly #sizes: Uint8Array;

  constructor(dSae: number) {
    this.#dSae = dSae;
    this.#hashes = new Uint32Array(dSae * SKETCH);
    this.#sizes = new Uint8Array(dSae);
  }

  static readonly bytesPerLatent: number = SKETCH * 4 + 1;

  /** The hash under which a token's firings are added. @param token - its number in the pass, below 2^32 */
  hash(token: number): number {
    return distinctHash(token);
  }

  add(latent: number, hash: number): void {
    const hashes = this.#hashes;
    const first = latent * SKETCH;
    const size = this.#sizes[latent]!;
    if (size < SKETCH) {
      this.#sizes[latent] = size + 1;
      let at = size;
      for (let parent = (at - 1) >> 1; at > 0 && hashes[first + parent]! < hash; parent = (at - 1) >> 1) {
        hashes[first + at] = hashes[first + parent]!;
        at = parent;
      }
      hashes[first + at] = hash;
      return;
    }
    if (hash >= hashes[first]!) return;
    let at = 0;
    for (let child = 1; child < SKETCH; child = 2 * at + 1) {
      if (child + 1 < SKETCH && hashes[first + child + 1]! > hashes[first + child]!) child += 1;
      if (hashes[first + child]! <= hash) break;
      hashes[first + at] = hashes[first + child]!;
      at = child;
    }
    hashes[first + at] = hash;
  }

  /**
   * Of each latent those with the largest overlaps, largest first; of equals the lower latent.
   *
   * @param firingCounts - tells which sketches hold every firing
   */
  coActive(firingCounts: Float64Array): (latent: number) => CoActiveLatent[] {
    const sketches = Array.from({ length: this.#dSae }, (_, latent) => {
      const hashes = this.#hashes.slice(latent * SKETCH, latent * SKETCH + this.#sizes[latent]!).sort();
      return { hashes, complete: firingCounts[latent]! <= SKETCH };
    });
    const holders = new Holders(sketches.map(({ hashes }) => hashes));
    const shared = new Uint16Array(this.#dSae);
    return (latent) => {
      const sketch = sketches[latent]!;
      const others: number[] = [];
      for (const hash of sketch.hashes) {
        holders.forEach(hash, (other) => {
          if (other === latent) return;
          if (shared[other] === 0) others.push(other);
          shared[other]! += 1;
        });
      }
      others.sort((a, b) => shared[b]! - shared[a]! || a - b);
      for (const other of others) shared[other] = 0;
      return others
        .slice(0, CANDIDATES)
        .map((other) => ({ latent: other, overlap: overlapOf(sketch, sketches[other]!) }))
        .sort((a, b) => b.overlap - a.overlap || a.latent - b.latent)
        .slice(0, TOLD);
    };
  }

  get state(): StateArrays {
    return { hashes: this.#hashes, sizes: this.#sizes };
  }
}

/** Whether there can be sketches of so many latents. */
export function canSketch(dSae: number): boolean {
  return dSae <= MOST_LATENTS;
}

interface Sketch {
  /** Ascending. */
  readonly hashes: Uint32Array;
  /** Whether it holds every firing. */
  readonly complete: boolean;
}

/** Of the tokens on which either fires and about which both sketches know, the share on which both do. */
function overlapOf(a: Sketch, b: Sketch): number {
  const known = Math.min(
    ...[a, b].map(({ hashes, complete }) => (complete ? Number.POSITIVE_INFINITY : hashes.at(-1)!)),
  );
  let [both, either, i, j] = [0, 0, 0, 0];
  while (i < a.hashes.length || j < b.hashes.length) {
    const [left, right] = [a.hashes[i] ?? Number.POSITIVE_INFINITY, b.hashes[j] ?? Number.POSITIVE_INFINITY];
    if (Math.min(left, right) > known) break;
    either += 1;
    if (left === right) both += 1;
    if (left <= right) i += 1;
    if (right <= left) j += 1;
  }
  return both / either;
}

/** Which sketches hold a hash. */
class Holders {
  /** hash * 2^21 + latent, ascending. */
  readonly #pairs: Float64Array;

  constructor(sketches: readonly Uint32Array[]) {
    this.#pairs = new Float64Array(sketches.reduce((sum, { length }) => sum + length, 0));
    let pair = 0;
    for (const [latent, hashes] of sketches.entries()) {
      for (const hash of hashes) this.#pairs[pair++] = hash * MOST_LATENTS + latent;
    }
    this.#pairs.sort();
  }

  forEach(hash: number, visit: (latent: number) => void): void {
    const pairs = this.#pairs;
    let [low, high] = [0, pairs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs[middle]! < hash * MOST_LATENTS) low = middle + 1;
      else high = middle;
    }
    for (; low < pairs.length && pairs[low]! < (hash + 1) * MOST_LATENTS; low++) {
      visit(pairs[low]! - hash * MOST_LATENTS);
    }
  }
}
