// The decoder on sparse codes.
#pragma once

#include "cpu/generic/dense_codes.h"
#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

// Sparse decode with residual.
//
//   out[t, :] = bias + sum over entries e of row t: value[e] * decoder[feature[e], :]  -  target[t, :]
//   *squaredError += sum of out^2
//
// The sum runs over the entries in their order (features ascending). Reads a decoder row per entry, or the decoder once
// where the codes are dense (see dense_codes.h); the target once; writes out once. Rows are independent; their squared
// errors are summed in double, each row by itself and then over the rows in order.
inline void decode(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias,
                   Matrix<const float> target, Matrix<float> out, double* squaredError, Allocator& allocator,
                   ThreadPool& pool) {
  const int64_t columns = out.columns;
  Block rowErrors;
  if (squaredError) rowErrors = allocator.allocateArray<double>(codes.rows);
  const bool dense = worthDense(codes);
  if (dense) decodeDense(codes, decoder, bias, out, allocator, pool);
  pool.forEachRange(codes.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* result = out.row(row);
      if (!dense) {
        if (bias)
          std::memcpy(result, bias.data, sizeof(float) * size_t(columns));
        else
          std::memset(result, 0, sizeof(float) * size_t(columns));
        const uint64_t first = codes.offsets()[row];
        addWeightedRows(decoder.data, columns, codes.feature() + first, codes.value() + first,
                        int64_t(codes.offsets()[row + 1] - first), result);
      }
      if (target)
        forEachVector(columns, [&](int64_t c, int lanes) {
          storeLanes(result + c, loadLanes(result + c, lanes) - loadLanes(target.row(row) + c, lanes), lanes);
        });
      if (squaredError) rowErrors.as<double>()[row] = dotProductInDouble(result, result, columns);
    }
  });
  if (squaredError)
    for (int64_t row = 0; row < codes.rows; ++row) *squaredError += rowErrors.as<double>()[row];
}

// The loss's gradient with respect to the values.
//
//   out[e] = scale * dOutput[row(e)] . decoder[feature(e)] + featureScale * perFeature[feature(e)]
//
// and, unless `every` entry is wanted, 0 where the entry is not active. Reads a decoder row per entry that is computed,
// dOutput once; rows are independent.
inline void decodeGradient(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput, double scale,
                           Vector<const float> perFeature, double featureScale, bool every, float* out,
                           Allocator& allocator, ThreadPool& pool) {
  if (worthDense(codes))
    return decodeGradientDense(codes, decoder, dOutput, scale, perFeature, featureScale, every, out, allocator, pool);
  pool.forEachRange(codes.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (uint64_t entry = codes.offsets()[row]; entry < codes.offsets()[row + 1]; ++entry) {
        if (!every && codes.value()[entry] == 0) {
          out[entry] = 0;
          continue;
        }
        const uint32_t feature = codes.feature()[entry];
        float gradient = float(scale) * dotProduct(dOutput.row(row), decoder.row(feature), decoder.columns);
        if (perFeature) gradient += float(featureScale) * perFeature[feature];
        out[entry] = gradient;
      }
  });
}

// out[t, f] = the value of entry (t, f), 0 where there is none.
inline void densify(const Codes& codes, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(codes.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      std::memset(out.row(row), 0, sizeof(float) * size_t(out.columns));
      for (uint64_t entry = codes.offsets()[row]; entry < codes.offsets()[row + 1]; ++entry)
        out.row(row)[codes.feature()[entry]] = codes.value()[entry];
    }
  });
}

}  // namespace monosem::MONOSEM_ISA
