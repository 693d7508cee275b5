// Normalisation of rows: the layer norm and the RMS norm of transformers, and the standardisation of activations.
#pragma once

#include "cpu/generic/dense.h"
#include "cpu/generic/weighted_rows.h"

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

// Per row, with the mean square in double:
//   scale = sqrt(mean of x^2 + epsilon), normalized = x / scale, out = normalized * weight.
// out, normalized, scale and weight may each be absent. A row is read twice, the second time from cache.
inline void rmsNorm(Matrix<const float> x, Vector<const float> weight, double epsilon, Matrix<float> out,
                    Matrix<float> normalized, Vector<float> scale, ThreadPool& pool) {
  const int64_t columns = x.columns;
  pool.forEachRange(x.rows, rowsPerItem(columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x.row(r);
      const double rowScale = std::sqrt(dotProductInDouble(row, row, columns) / double(columns) + epsilon);
      if (scale) scale[r] = float(rowScale);
      const Floats factor = broadcast(float(1 / rowScale));
      forEachVector(columns, [&](int64_t column, int lanes) {
        Floats value = loadLanes(row + column, lanes) * factor;
        if (normalized) storeLanes(normalized.row(r) + column, value, lanes);
        if (!out) return;
        if (weight) value = value * loadLanes(weight.data + column, lanes);
        storeLanes(out.row(r) + column, value, lanes);
      });
    }
  });
}

// Per row: normalized = (x - mean) / (standardDeviation + epsilon); the variance is divided by columns - 1, a single
// column has standard deviation 0. Sums run in double, over values centred in float by the rounded mean; what rounding
// it leaves, their own mean, is taken out of the variance and of the result. A row is read three times, twice from
// cache.
inline void standardiseRows(Matrix<const float> x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                            Vector<float> standardDeviation, ThreadPool& pool) {
  const int64_t columns = x.columns;
  pool.forEachRange(x.rows, rowsPerItem(columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x.row(r);
      DoubleSum total;
      forEachVector(columns, [&](int64_t c, int lanes) { total.add(loadLanes(row + c, lanes)); });
      mean[r] = float(total.total() / double(columns));
      const Floats means = broadcast(mean[r]);
      DoubleSum centredTotal, squares;
      int64_t c = 0;
      for (; c + width <= columns; c += width) {
        const Floats centred = load(row + c) - means;
        centredTotal.add(centred);
        squares.addProduct(centred, centred);
      }
      double centredSum = centredTotal.total(), squareSum = squares.total();
      for (; c < columns; ++c) {
        const double centred = double(row[c] - mean[r]);
        centredSum += centred;
        squareSum += centred * centred;
      }
      squareSum = std::max(squareSum - centredSum * centredSum / double(columns), 0.0);
      standardDeviation[r] = columns > 1 ? float(std::sqrt(squareSum / double(columns - 1))) : 0.0f;
      const Floats divisor = broadcast(standardDeviation[r] + float(epsilon));
      const Floats left = broadcast(float(centredSum / double(columns)));
      forEachVector(columns, [&](int64_t column, int lanes) {
        storeLanes(normalized.row(r) + column, (loadLanes(row + column, lanes) - means - left) / divisor, lanes);
      });
    }
  });
}

}  // namespace monosem::MONOSEM_ISA
