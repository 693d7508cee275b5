// The linear layer: matrix product, bias, activation and residual in one pass.
#pragma once

#include "cpu/generic/simd_math.h"
#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

// out = activation(x . weights^T + bias) + residual
inline void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias, Activation activation,
                   Matrix<const float> residual, Matrix<float> out, Allocator&, ThreadPool& pool) {
  pool.forEach(x.rows, [&](int64_t row, int) {
    float* result = out.row(row);
    std::vector<float> products(static_cast<size_t>(weights.rows));
    for (int64_t column = 0; column < weights.rows; ++column)
      products[size_t(column)] =
          dotProduct(x.row(row), weights.row(column), x.columns) + (bias ? bias[column] : 0.0f);
    forEachVector(weights.rows, [&](int64_t c, int lanes) {
      Floats value = activate(loadLanes(products.data() + c, lanes), activation);
      if (residual) value = value + loadLanes(residual.row(row) + c, lanes);
      storeLanes(result + c, value, lanes);
    });
  });
}

}  // namespace monosem::MONOSEM_ISA
