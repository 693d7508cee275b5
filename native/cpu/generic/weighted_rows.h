// The inner loop of every sparse kernel: a weighted sum of chosen rows of a matrix.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// Columns [column, column + vectors * width) of addWeightedRows, with the sums in registers.
template <int vectors>
inline void addWeightedRowsBlock(const float* matrix, int64_t columns, int64_t column, const uint32_t* rows,
                                 const float* weights, int64_t count, float* out) {
  Floats sums[vectors];
  for (int i = 0; i < vectors; ++i) sums[i] = load(out + column + i * width);
  for (int64_t entry = 0; entry < count; ++entry) {
    const float* row = matrix + int64_t(rows[entry]) * columns + column;
    const Floats weight = broadcast(weights[entry]);
    for (int i = 0; i < vectors; ++i) sums[i] = fma(weight, load(row + i * width), sums[i]);
  }
  for (int i = 0; i < vectors; ++i) store(out + column + i * width, sums[i]);
}

// out[c] += sum over e in [0, count): weights[e] * matrix[rows[e], c], in the order of e, for c in [0, columns).
//
// Reads count rows; a block of columns stays in registers while the entries pass by.
inline void addWeightedRows(const float* matrix, int64_t columns, const uint32_t* rows, const float* weights,
                            int64_t count, float* out) {
  int64_t column = 0;
  for (; column + registerBlock * width <= columns; column += registerBlock * width)
    addWeightedRowsBlock<registerBlock>(matrix, columns, column, rows, weights, count, out);
  for (; column + 4 * width <= columns; column += 4 * width)
    addWeightedRowsBlock<4>(matrix, columns, column, rows, weights, count, out);
  for (; column + width <= columns; column += width)
    addWeightedRowsBlock<1>(matrix, columns, column, rows, weights, count, out);
  if (column < columns) {
    const int lanes = int(columns - column);
    Floats sums = loadFirst(out + column, lanes);
    for (int64_t entry = 0; entry < count; ++entry)
      sums = fma(broadcast(weights[entry]), loadFirst(matrix + int64_t(rows[entry]) * columns + column, lanes), sums);
    storeFirst(out + column, sums, lanes);
  }
}

// a . b, summed in float: four interleaved chains of vectors, added as a tree.
inline float dotProduct(const float* a, const float* b, int64_t size) {
  Floats sums[4] = {zeros(), zeros(), zeros(), zeros()};
  int64_t i = 0;
  for (; i + 4 * width <= size; i += 4 * width)
    for (int chain = 0; chain < 4; ++chain)
      sums[chain] = fma(load(a + i + chain * width), load(b + i + chain * width), sums[chain]);
  for (; i + width <= size; i += width) sums[0] = fma(load(a + i), load(b + i), sums[0]);
  if (i < size) sums[1] = fma(loadFirst(a + i, int(size - i)), loadFirst(b + i, int(size - i)), sums[1]);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// a . b and b . b in one pass, each as two interleaved chains.
struct DotAndSquaredNorm {
  float dot, squaredNorm;
};
inline DotAndSquaredNorm dotAndSquaredNorm(const float* a, const float* b, int64_t size) {
  Floats dots[2] = {zeros(), zeros()}, squares[2] = {zeros(), zeros()};
  int64_t i = 0;
  for (; i + 2 * width <= size; i += 2 * width)
    for (int chain = 0; chain < 2; ++chain) {
      const Floats second = load(b + i + chain * width);
      dots[chain] = fma(load(a + i + chain * width), second, dots[chain]);
      squares[chain] = fma(second, second, squares[chain]);
    }
  forEachVector(size - i, [&](int64_t offset, int lanes) {
    const Floats second = loadLanes(b + i + offset, lanes);
    dots[0] = fma(loadLanes(a + i + offset, lanes), second, dots[0]);
    squares[0] = fma(second, second, squares[0]);
  });
  return {sum(dots[0] + dots[1]), sum(squares[0] + squares[1])};
}

// a . b, summed in double.
inline double dotProductInDouble(const float* a, const float* b, int64_t size) {
  DoubleSum total;
  forEachVector(size,
                [&](int64_t i, int lanes) { total.addProduct(loadLanes(a + i, lanes), loadLanes(b + i, lanes)); });
  return total.total();
}

}  // namespace monosem::MONOSEM_ISA
