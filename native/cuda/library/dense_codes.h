// Codes that are still dense, as matrices with the zeros between the entries.
//
// An L1 model begins with half of its latents active, and the dead latents of an auxiliary loss are few but all in use.
// Then reading a row of a matrix for every entry costs more than multiplying with the zeros. With codes as a matrix
// [rows, C] the kernels are products:
//
//   decode              values . decoder                    [rows, columns], summed over the chunks
//   decode gradient     dOutput . decoder^T                 [rows, C], of which the places of entries are taken
//   row gradients       coefficients^T . dense              [C, width]
//
// and a sum per feature is one over the rows of a column,
//
// for one chunk of C columns after another, so that no [rows, dSae] matrix exists. Columns are the features that were
// eligible, or with a subset their positions there.
#pragma once

#include <vector>

#include "cuda/library/bfloat16.h"
#include "cuda/library/context.h"
#include "cuda/library/strided.h"

namespace monosem::cuda {

// Whether the products take less time than reading a row per entry, in the context's precision.
bool worthDense(const Context& gpu, const CodesView& codes);

// Columns [first, first + count) of codes.
struct ColumnChunk {
  int64_t first = 0;
  int64_t count = 0;
};

// All columns, ascending, cut so that a matrix [rows, count] is scratch of bounded size. The first chunk is the
// largest.
std::vector<ColumnChunk> columnChunks(const CodesView& codes);

// dense[t, c] = scale * the coefficient of the entry of row t in column chunk.first + c; 0 where there is none.
// dense [codes.rows, chunk.count]; coefficients [entries], row order. T: float, or Bfloat16, rounded.
template <class T>
void scatterChunk(Context& gpu, const CodesView& codes, const float* coefficients, float scale, ColumnChunk chunk,
                  Strided<T> dense);

}  // namespace monosem::cuda
