// The linear layer: matrix product, bias, activation and residual in one pass.
//
//   out[r, f] = activation(bias[f] + sum over k of x[r, k] * weights[f, k]) + residual[r, f]
//
// Many rows go through the packed product (matrix_product.h); its tiles are finished and written while they are in
// cache. For a few rows, as in generation, packing the weights would cost more than the product: then every row of the
// weights is read once, where it lies, and multiplied with all rows of x. The two differ in their order of summation,
// so that a row's result depends on the number of rows in rounding; never on the number of threads.
//
// Weights may be bf16: those of a few rows are widened in registers, the others block by block into the second-level
// cache, where they are packed. The results are those of the same weights in float32, bit for bit.
#pragma once

#include "cpu/generic/dense.h"
#include "cpu/generic/matrix_product.h"
#include "cpu/generic/simd_math.h"

namespace monosem::MONOSEM_ISA {

constexpr int64_t fewRows = 32;

// What is done to a row's products before they are written to out, of `columns` consecutive features.
struct LinearEpilogue {
  Activation activation;
  Matrix<const float> residual;
  Matrix<float> out;
  int64_t firstColumn = 0;  // of out, where the product that is taken begins

  void finish(int64_t row, int64_t firstFeature, const float* products, int64_t columns) const {
    float* result = out.row(row) + firstFeature;
    const float* added = residual ? residual.row(row) + firstFeature : nullptr;
    forEachVector(columns, [&](int64_t c, int lanes) {
      Floats value = activate(loadLanes(products + c, lanes), activation);
      if (added) value = value + loadLanes(added + c, lanes);
      storeLanes(result + c, value, lanes);
    });
  }

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) const {
    for (int i = 0; i < scores.rows; ++i)
      finish(scores.firstRow + i, firstColumn + scores.firstColumn, scores.row(i), scores.columns);
  }
};

inline Floats loadWeights(const float* p, int lanes) {
  return loadLanes(p, lanes);
}
inline Floats loadWeights(const uint16_t* p, int lanes) {
  return loadBrainLanes(p, lanes);
}

// products[i * stride + j] = x row i . weights row j for `rows` x `features` consecutive rows of each. Every dot
// product is one chain of vectors, k ascending, added up as a tree.
template <int rows, int features, class Weight>
inline void dotProducts(const float* x, const Weight* weights, int64_t depth, float* products, int64_t stride) {
  Floats sums[rows][features];
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < features; ++j) sums[i][j] = zeros();
  forEachVector(depth, [&](int64_t k, int lanes) {
    Floats right[features];
    for (int j = 0; j < features; ++j) right[j] = loadWeights(weights + j * depth + k, lanes);
    for (int i = 0; i < rows; ++i) {
      const Floats left = loadLanes(x + i * depth + k, lanes);
      for (int j = 0; j < features; ++j) sums[i][j] = fma(left, right[j], sums[i][j]);
    }
  });
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < features; ++j) products[i * stride + j] = sum(sums[i][j]);
}

// All rows of x times `features` rows of the weights.
template <int features, class Weight>
inline void dotProductsOfFewRows(Matrix<const float> x, const Weight* weights, float* products, int64_t stride) {
  int64_t row = 0;
  for (; row + 4 <= x.rows; row += 4)
    dotProducts<4, features>(x.row(row), weights, x.columns, products + row * stride, stride);
  for (; row < x.rows; ++row) dotProducts<1, features>(x.row(row), weights, x.columns, products + row * stride, stride);
}

template <class Weight>
inline void linearOfFewRows(Matrix<const float> x, Matrix<const Weight> weights, Vector<const float> bias,
                            const LinearEpilogue& epilogue, ThreadPool& pool) {
  constexpr int64_t featuresPerItem = 32;
  pool.forEachRange(weights.rows, featuresPerItem, [&](int64_t begin, int64_t end, int) {
    float products[fewRows * featuresPerItem];
    int64_t feature = begin;
    for (; feature + 2 <= end; feature += 2)
      dotProductsOfFewRows<2>(x, weights.row(feature), products + (feature - begin), featuresPerItem);
    if (feature < end) dotProductsOfFewRows<1>(x, weights.row(feature), products + (feature - begin), featuresPerItem);
    for (int64_t row = 0; row < x.rows; ++row) {
      float* ofRow = products + row * featuresPerItem;
      if (bias)
        for (int64_t c = begin; c < end; ++c) ofRow[c - begin] += bias[c];
      epilogue.finish(row, begin, ofRow, end - begin);
    }
  });
}

inline void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias, Activation activation,
                   Matrix<const float> residual, Matrix<float> out, Allocator& allocator, ThreadPool& pool) {
  const LinearEpilogue epilogue{activation, residual, out};
  if (x.rows <= fewRows) return linearOfFewRows(x, weights, bias, epilogue, pool);
  const PackedRows packed(x, 0, x.rows, nullptr, allocator, pool);
  multiplyByBlocks(packed, {weights, nullptr, weights.rows}, bias.data, nullptr, allocator, pool, epilogue);
}

inline void linearBrain(Matrix<const float> x, Matrix<const uint16_t> weights, Vector<const float> bias,
                        Activation activation, Matrix<const float> residual, Matrix<float> out, Allocator& allocator,
                        ThreadPool& pool) {
  LinearEpilogue epilogue{activation, residual, out};
  if (x.rows <= fewRows) return linearOfFewRows(x, weights, bias, epilogue, pool);
  const PackedRows packed(x, 0, x.rows, nullptr, allocator, pool);
  const int64_t depth = weights.columns, perBlock = std::min(columnsPerBlock(depth), weights.rows);
  const Block widened = allocator.allocateArray<float>(perBlock * depth);
  for (int64_t first = 0; first < weights.rows; first += perBlock) {
    const int64_t count = std::min(perBlock, weights.rows - first);
    convert(weights.row(first), true, {widened.as<float>(), count * depth}, pool);
    epilogue.firstColumn = first;
    multiplyByBlocks(packed, {{widened.as<const float>(), count, depth}, nullptr, count},
                     bias ? bias.data + first : nullptr, nullptr, allocator, pool, epilogue);
  }
}

}  // namespace monosem::MONOSEM_ISA
