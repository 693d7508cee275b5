/** The finaliser of MurmurHash3: 32 bits to 32 bits, one to one, each bit of the result depending on all of the word's. */
export function mixBits(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}
