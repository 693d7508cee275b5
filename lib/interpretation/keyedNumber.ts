import { mixBits } from "../mixBits.js";

/**
 * A number in [0, 1) that depends on `keys` alone and looks random: choices that are made by it are the same on every
 * machine and in whatever order things come.
 *
 * The keys are mixed by the finaliser of MurmurHash3.
 *
 * @param keys - integers from 0 to 2^53 - 1, such as a seed and the number of a document
 */
export function keyedNumber(...keys: readonly number[]): number {
  let low = 0x243f6a88;
  let high = 0x13198a2e;
  for (const key of keys) {
    low = mixBits(low ^ key);
    high = mixBits(high ^ Math.floor(key / 2 ** 32) ^ low);
    low = mixBits(low + high);
  }
  return ((mixBits(high) >>> 0) * 2 ** 21 + (mixBits(low) >>> 11)) / 2 ** 53;
}

/** The items in an order that depends on `keys` alone. */
export function keyedShuffle<Item>(items: readonly Item[], ...keys: readonly number[]): Item[] {
  return items
    .map((item, index) => ({ item, order: keyedNumber(...keys, index) }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
