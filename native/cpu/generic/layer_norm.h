// Layer normalisation.
#pragma once

#include "cpu/generic/dense.h"

namespace monosem::MONOSEM_ISA {

// Per row: mean and variance (of the centred values) in double;
//   scale = sqrt(variance + epsilon), normalized = (x - mean) / scale, out = normalized * weight + bias.
// out, normalized, scale, weight and bias may each be absent. A row is read twice, the second time from cache.
inline void layerNorm(Matrix<const float> x, Vector<const float> weight, Vector<const float> bias, double epsilon,
                      Matrix<float> out, Matrix<float> normalized, Vector<float> scale, ThreadPool& pool) {
  const int64_t columns = x.columns;
  pool.forEachRange(x.rows, rowsPerItem(columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x.row(r);
      DoubleSum total, squares;
      forEachVector(columns, [&](int64_t c, int lanes) { total.add(loadLanes(row + c, lanes)); });
      const double mean = total.total() / double(columns);
      const Floats means = broadcast(float(mean));
      int64_t c = 0;
      for (; c + width <= columns; c += width) {
        const Floats centred = load(row + c) - means;
        squares.addProduct(centred, centred);
      }
      double squareSum = squares.total();
      for (; c < columns; ++c) squareSum += (double(row[c]) - mean) * (double(row[c]) - mean);
      const double rowScale = std::sqrt(squareSum / double(columns) + epsilon);
      if (scale) scale[r] = float(rowScale);
      const Floats factor = broadcast(float(1 / rowScale));
      forEachVector(columns, [&](int64_t column, int lanes) {
        Floats value = (loadLanes(row + column, lanes) - means) * factor;
        if (normalized) storeLanes(normalized.row(r) + column, value, lanes);
        if (!out) return;
        if (weight) value = value * loadLanes(weight.data + column, lanes);
        if (bias) value = value + loadLanes(bias.data + column, lanes);
        storeLanes(out.row(r) + column, value, lanes);
      });
    }
  });
}

}  // namespace monosem::MONOSEM_ISA
