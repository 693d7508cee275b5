import { crc32 } from "node:zlib";
import type { SafetensorsData } from "../formats/safetensors.js";

/** The CRC-32 of what came `before` and the bytes of an array. (Node's own forgets what came before an empty array.) */
export function checksumOf(array: SafetensorsData, before: number): number {
  return array.length === 0 ? before : crc32(bytesOf(array), before);
}

/** The bytes of an array. */
export function bytesOf({ buffer, byteOffset, byteLength }: SafetensorsData): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
