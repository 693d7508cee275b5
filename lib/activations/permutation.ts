import { setImmediate as otherWork } from "node:timers/promises";
import { mixBits } from "../mixBits.js";

/** Steps between two turns of the event loop: about a millisecond. */
const stepsPerTurn = 2 ** 16;

/**
 * A uniformly random permutation of 0 ... size - 1 that depends on `keys` alone: the same keys give the same permutation
 * on every machine, so that no generator's state needs to be saved.
 *
 * Fisher-Yates with counter-based random numbers: number i is i mixed with the keys by the finaliser of MurmurHash3.
 *
 * @param keys - such as a seed and the number of an epoch: integers from 0 to 2^53 - 1
 */
export async function keyedPermutation(size: number, keys: readonly number[]): Promise<Uint32Array> {
  let low = 0x9e3779b9;
  let high = 0x85ebca6b;
  for (const key of keys) {
    low = mixBits(low ^ key);
    high = mixBits(high ^ Math.floor(key / 2 ** 32) ^ low);
    low = mixBits(low ^ high);
  }
  const permutation = Uint32Array.from({ length: size }, (_, i) => i);
  for (let i = size - 1; i > 0; i--) {
    // 53 random bits, so that the choice among i + 1 has no bias to speak of.
    const upper = mixBits(mixBits(i ^ low) ^ high) >>> 0;
    const lower = mixBits(mixBits(i ^ high) ^ low) >>> 11;
    const j = Math.floor(((upper * 2 ** 21 + lower) / 2 ** 53) * (i + 1));
    const taken = permutation[j]!;
    permutation[j] = permutation[i]!;
    permutation[i] = taken;
    if (i % stepsPerTurn === 0) await otherWork();
  }
  return permutation;
}
