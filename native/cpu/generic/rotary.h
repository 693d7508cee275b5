// Rotary positions (Su et al. 2021, arXiv:2104.09864): pairs of a head's elements are turned by an angle that grows
// with the position.
//
//   out[a_i] = x[a_i] cos_i - x[b_i] sin_i,  out[b_i] = x[b_i] cos_i + x[a_i] sin_i        for i < pairs
//
// with (a_i, b_i) = (i, pairs + i), or (2i, 2i + 1) where they are interleaved; the elements from 2 * pairs on are
// copied. x and out [rows, heads * dHead], cosines and sines [rows, pairs]. Elementwise: one read, one write.
#pragma once

#include "cpu/generic/dense.h"

namespace monosem::MONOSEM_ISA {

inline void rotateHalves(const float* x, const float* cosines, const float* sines, int64_t pairs, float* out) {
  forEachVector(pairs, [&](int64_t i, int lanes) {
    const Floats a = loadLanes(x + i, lanes), b = loadLanes(x + pairs + i, lanes);
    const Floats cosine = loadLanes(cosines + i, lanes), sine = loadLanes(sines + i, lanes);
    storeLanes(out + i, negatedFma(b, sine, a * cosine), lanes);
    storeLanes(out + pairs + i, fma(a, sine, b * cosine), lanes);
  });
}

inline void rotateNeighbours(const float* x, const float* cosines, const float* sines, int64_t pairs, float* out) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    out[2 * i] = a * cosines[i] - b * sines[i];
    out[2 * i + 1] = b * cosines[i] + a * sines[i];
  }
}

inline void rotate(Matrix<const float> x, int64_t heads, Matrix<const float> cosines, Matrix<const float> sines,
                   bool interleaved, Matrix<float> out, ThreadPool& pool) {
  if (heads == 0) return;
  const int64_t dHead = x.columns / heads, pairs = cosines.columns;
  pool.forEachRange(x.rows, rowsPerItem(x.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t head = 0; head < heads; ++head) {
        const float* from = x.row(r) + head * dHead;
        float* to = out.row(r) + head * dHead;
        (interleaved ? rotateNeighbours : rotateHalves)(from, cosines.row(r), sines.row(r), pairs, to);
        std::copy(from + 2 * pairs, from + dHead, to + 2 * pairs);
      }
  });
}

}  // namespace monosem::MONOSEM_ISA
