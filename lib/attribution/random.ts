import { MonosemError } from "../errors.js";

/**
 * Uniform numbers in [0, 1) that depend on the seed alone: sfc32 (Doty-Humphrey, PractRand), with 32 bits each.
 *
 * @param seed - an integer from 0 to 2^53 - 1
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function randomNumbers(seed: number): () => number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `a seed is an integer from 0 to 2^53 - 1, found ${seed}`);
  }
  let [a, b, c, counter] = [seed | 0, Math.floor(seed / 2 ** 32) | 0, 0x9e3779b9 | 0, 1];
  const next = (): number => {
    const result = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return (result >>> 0) / 2 ** 32;
  };
  // The state of the first rounds still looks like the seed.
  for (let round = 0; round < 16; round++) next();
  return next;
}

/** 0 ... size - 1 in random order (Fisher-Yates); with `taken` only that many of them. */
export function randomOrder(size: number, random: () => number, taken: number = size): Uint32Array {
  const order = Uint32Array.from({ length: size }, (_, i) => i);
  for (let i = 0; i < taken; i++) {
    const j = i + Math.floor(random() * (size - i));
    const moved = order[i]!;
    order[i] = order[j]!;
    order[j] = moved;
  }
  return order.subarray(0, taken);
}
