/** The texts of a vocabulary's tokens as one tensor of UTF-8 bytes, and where in it each begins. */
export interface StoredVocabulary {
  /** [tokens + 1] */
  readonly offsets: Uint32Array;
  readonly bytes: Uint8Array;
}

export function encodeVocabulary(texts: readonly string[]): StoredVocabulary {
  const encoded = texts.map((text) => Buffer.from(text));
  const offsets = new Uint32Array(texts.length + 1);
  for (const [token, { length }] of encoded.entries()) offsets[token + 1] = offsets[token]! + length;
  return { offsets, bytes: new Uint8Array(Buffer.concat(encoded)) };
}

/** The text of a token; bytes that are not UTF-8 become U+FFFD. */
export function decodeToken({ offsets, bytes }: StoredVocabulary, token: number): string {
  return Buffer.from(bytes.subarray(offsets[token], offsets[token + 1])).toString("utf8");
}
