import type { ByteSource } from "../../lib/formats/fileBytes.js";

/** Bytes at hand, as a parser reads them from a file. Reading outside of them, which a parser must never do, throws. */
export function memoryBytes(bytes: Uint8Array, path = "memory"): ByteSource {
  return {
    path,
    byteLength: bytes.length,
    read: async (position, length) => {
      if (!(position >= 0 && length >= 0 && position + length <= bytes.length)) {
        throw new RangeError(`read of ${length} bytes at ${position} of ${bytes.length}`);
      }
      return new Uint8Array(bytes.subarray(position, position + length));
    },
    close: async () => undefined,
  };
}
