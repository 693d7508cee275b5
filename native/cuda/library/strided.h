// Row-major matrices whose rows may lie further apart than they are long.
//
// cuBLAS has its fast products for rows that begin at multiples of 16 bytes. How many columns a chunk of codes has is
// mostly up to a chunk's size, but where dead latents are encoded, to their number.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/views.h"

namespace monosem::cuda {

template <class T>
struct Strided {
  T* data;
  int64_t rows, columns;
  int64_t stride;  // elements from the beginning of a row to that of the next

  Strided(T* data, int64_t rows, int64_t columns, int64_t stride)
      : data(data), rows(rows), columns(columns), stride(stride) {}
  Strided(T* data, int64_t rows, int64_t columns) : Strided(data, rows, columns, columns) {}
  template <class U, class = std::enable_if_t<std::is_convertible_v<U*, T*>>>
  Strided(Matrix<U> matrix) : Strided(matrix.data, matrix.rows, matrix.columns) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  Strided(Strided<U> matrix) : Strided(matrix.data, matrix.rows, matrix.columns, matrix.stride) {}
};

// For rows of float or Bfloat16 that begin at multiples of 16 bytes.
inline int64_t alignedStride(int64_t columns) {
  constexpr int64_t alignment = 8;
  return (columns + alignment - 1) / alignment * alignment;
}

}  // namespace monosem::cuda
