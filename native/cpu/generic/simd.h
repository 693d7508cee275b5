// Vectors of floats, as the kernels see them. The lanes' type comes from the instruction set's header; here stands what
// all have in common, and what the header must offer:
//
//   Floats, Ints     Floats::width lanes of float, of int32
//   Mask             one truth value per lane
//   registerBlock    how many Floats an inner loop may keep as sums, beside two operands
//   load, store      unaligned; loadFirst(p, n), storeFirst(p, x, n): the first n < width lanes only, other lanes 0
//   broadcast, zeros, lanes 0, 1, 2 ... as laneIndices()
//   + - * /          fma(a, b, c) = a * b + c, negatedFma(a, b, c) = c - a * b, sqrt; max, min: NaN when the second
//                    operand is
//   a > b, a >= b    -> Mask (false for NaN); select(mask, yes, no); maskBits(mask): lane i is bit i
//   compressStore    the selected lanes, packed, at p; up to `width` lanes may be written; returns their number
//   roundToInts (to nearest, |x| < 2^22), toFloats, bitsOf, fromBits, shiftLeft<n>, integer + - ^
//   multiplyWide(a, b, high, low): the halves of the 64-bit products, the lanes taken as unsigned
//   sum, maximum     over the lanes, as a tree: lane i with lane i + width / 2, and so on
//   DoubleSum        sums floats in double
//   transposeSquare  out[i * stride + lane] = rows[lane][column + i] for width x width elements
#pragma once

#include "cpu/isa/common.h"
#include MONOSEM_SIMD_HEADER

namespace monosem::MONOSEM_ISA {

constexpr int width = Floats::width;

inline void prefetch(const void* address) {
  __builtin_prefetch(address, 0, 3);
}
inline void prefetchForWrite(const void* address) {
  __builtin_prefetch(address, 1, 3);
}

// Calls body(column, load, store) ... for whole vectors of [0, count), then once for what is left: body receives the
// offset and the number of lanes.
template <class Body>
inline __attribute__((always_inline)) void forEachVector(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + width <= count; i += width) body(i, width);
  if (i < count) body(i, int(count - i));
}

inline Floats loadLanes(const float* p, int lanes) {
  return lanes == width ? load(p) : loadFirst(p, lanes);
}
// Of bf16 numbers; reads no further than the lanes.
inline Floats loadBrainLanes(const uint16_t* p, int lanes) {
  if (lanes == width) return loadBrain(p);
  uint16_t padded[width] = {};
  std::memcpy(padded, p, size_t(lanes) * sizeof(uint16_t));
  return loadBrain(padded);
}
inline void storeLanes(float* p, Floats x, int lanes) {
  if (lanes == width)
    store(p, x);
  else
    storeFirst(p, x, lanes);
}

}  // namespace monosem::MONOSEM_ISA
