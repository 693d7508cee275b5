/** IEEE half precision (f16) and bfloat16 as the bits that files hold, to f32 and back. */

/**
 * Widens bfloat16 bits; exact, because bfloat16 is the upper half of an f32.
 *
 * @param bits - any number of bfloat16 values
 */
export function float32FromBFloat16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

/**
 * Widens f16 bits; exact. Subnormals, infinities and NaN payloads are kept.
 *
 * @param bits - any number of f16 values
 */
export function float32FromFloat16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  // Subnormal halves are normal floats: let the platform's arithmetic make them, mantissa * 2^-24.
  const wide = new Uint32Array(bits.length);
  const floats = new Float32Array(wide.buffer);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i]!;
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 0x1f;
    const mantissa = half & 0x3ff;
    if (exponent === 0) floats[i] = (sign < 0 ? -1 : 1) * mantissa * 2 ** -24;
    else if (exponent === 0x1f) wide[i] = sign | 0x7f800000 | (mantissa << 13);
    else wide[i] = sign | ((exponent + 112) << 23) | (mantissa << 13);
  }
  return floats;
}

/**
 * Rounds f32 to bfloat16 bits, to nearest, ties to even, as PyTorch does; NaN stays a (quiet) NaN.
 *
 * @param values - any number of values
 */
export function bfloat16FromFloat32(values: Float32Array): Uint16Array<ArrayBuffer> {
  const wide = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < wide.length; i++) {
    const word = wide[i]!;
    const notANumber = (word & 0x7fffffff) > 0x7f800000;
    bits[i] = notANumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}
