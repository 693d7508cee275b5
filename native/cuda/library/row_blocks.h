// Kernels that need something of a whole row first, a sum or its largest element: a block goes through the row
// together, and then takes the next row that is its own.
#pragma once

#include "cuda/library/pack.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {

constexpr int mostRowThreads = 512;

// As many threads as have about eight elements of a row each.
inline Launch blockPerRow(int64_t rows, int64_t columns) {
  constexpr int64_t elementsPerWarp = 8 * warpSize_, mostWarps = mostRowThreads / warpSize_, mostBlocks = INT32_MAX;
  const int64_t warps = (columns + elementsPerWarp - 1) / elementsPerWarp;
  return {dim3(unsigned(rows < mostBlocks ? rows : mostBlocks)), unsigned(warps < 1           ? 1
                                                                          : warps < mostWarps ? warps
                                                                                              : mostWarps) *
                                                                     warpSize_};
}

// for (int64_t row : of this block) of [0, rows).
#define FOR_EACH_ROW(row, rows) for (int64_t row = blockIdx.x; row < (rows); row += gridDim.x)

// Calls use(column, pack) for this thread's packs of the columns of a row.
template <int width, class Use>
__device__ inline void forEachPack(const float* row, int64_t columns, const Use& use) {
  for (int64_t column = int64_t(threadIdx.x) * width; column < columns; column += int64_t(blockDim.x) * width)
    use(column, loadPack<width>(row + column));
}

// This thread's elements of a row, whose length is no multiple of a pack where it is a vocabulary: eight at a time, a
// block's width apart. Calls use(values, places) for each such group; beyond the row stands -infinity.
constexpr int groupSize = 8;
template <class Use>
__device__ inline void forEachGroup(const float* row, int64_t columns, const Use& use) {
  for (int64_t first = threadIdx.x; first < columns; first += groupSize * int64_t(blockDim.x)) {
    float values[groupSize];
    int64_t places[groupSize];
#pragma unroll
    for (int i = 0; i < groupSize; ++i) {
      places[i] = first + i * int64_t(blockDim.x);
      values[i] = places[i] < columns ? row[places[i]] : -INFINITY;
    }
    use(values, places);
  }
}

}  // namespace monosem::cuda
