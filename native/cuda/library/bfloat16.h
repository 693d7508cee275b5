// Numbers rounded to bfloat16: float32 with 8 bits of precision, as tensor cores multiply them.
#pragma once

#include "cuda/library/pack.h"

namespace monosem::cuda {

struct Bfloat16 {
  uint16_t bits;  // the upper half of a float32's
};

// To the nearest, ties to even. NaN stays NaN; what is too large becomes infinity.
__device__ inline void roundTo(float value, Bfloat16& rounded) {
  const uint32_t bits = __float_as_uint(value);
  const bool isNan = (bits & 0x7fffffffu) > 0x7f800000u;
  rounded.bits = uint16_t(isNan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
// For kernels that write either.
__device__ inline void roundTo(float value, float& same) {
  same = value;
}

template <int width>
__device__ inline Pack<Bfloat16, width> rounded(const Pack<float, width>& values) {
  Pack<Bfloat16, width> result;
#pragma unroll
  for (int i = 0; i < width; ++i) roundTo(values.at[i], result.at[i]);
  return result;
}
template <int width>
__device__ inline Pack<float, width> widened(const Pack<Bfloat16, width>& values) {
  Pack<float, width> result;
#pragma unroll
  for (int i = 0; i < width; ++i) result.at[i] = __uint_as_float(uint32_t(values.at[i].bits) << 16);
  return result;
}
// For kernels that read either.
template <int width>
__device__ inline Pack<float, width> widened(const Pack<float, width>& same) {
  return same;
}

// A float32 that is rounded when it is read, where kernels would read a rounded copy but there is none: whether there
// is one must not show in results.
struct Unrounded {
  float value;
};
template <int width>
__device__ inline Pack<float, width> widened(const Pack<Unrounded, width>& values) {
  Pack<Bfloat16, width> result;
#pragma unroll
  for (int i = 0; i < width; ++i) roundTo(values.at[i].value, result.at[i]);
  return widened(result);
}

// use(rows): those of the matrix as kernels read them that gather or sum them in the context's precision, of float;
// of Bfloat16 where `rounded`, their copy, is not null; or Unrounded.
template <class Use>
void withRowsInPrecision(const Context& gpu, Rows matrix, const uint16_t* rounded, const Use& use) {
  if (gpu.precision() != Precision::bfloat16)
    use(matrix);
  else if (rounded)
    use(Matrix<const Bfloat16>{reinterpret_cast<const Bfloat16*>(rounded), matrix.rows, matrix.columns});
  else
    use(Matrix<const Unrounded>{reinterpret_cast<const Unrounded*>(matrix.data), matrix.rows, matrix.columns});
}

// A rounded copy in the memory of the call, [matrix.rows, matrix.columns].
Matrix<const Bfloat16> roundedToBfloat16(Context& gpu, Rows matrix);
// The copy that there is, or one in the memory of the call where it is null.
inline Matrix<const Bfloat16> roundedToBfloat16(Context& gpu, Rows matrix, const Bfloat16* copy) {
  if (copy) return {copy, matrix.rows, matrix.columns};
  return roundedToBfloat16(gpu, matrix);
}

}  // namespace monosem::cuda
