import { mixBits } from "../mixBits.js";

/**
 * 32 bits that depend on `keys` alone and look random (the finaliser of MurmurHash3, key by key): choices that are made by
 * them are the same on every machine and in whatever order things come.
 *
 * @param keys - integers from 0 to 2^32 - 1
 */
export function hashOf(a: number, b: number, c: number, d: number): number {
  return mixBits(mixBits(mixBits(mixBits(a ^ 0x243f6a88) ^ b) ^ c) ^ d) >>> 0;
}

/** The same of one key: no two keys have the same hash. */
export function distinctHash(key: number): number {
  return mixBits(key ^ 0x13198a2e) >>> 0;
}
