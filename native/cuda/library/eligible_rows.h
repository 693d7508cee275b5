// Copies of the rows that a chunk of the eligible features has in a matrix [dSae, width].
#pragma once

#include "cuda/library/bfloat16.h"

namespace monosem::cuda {

__device__ inline uint32_t featureAt(const FeatureSetView& eligible, int64_t position) {
  return eligible.indices ? eligible.indices[position] : uint32_t(position);
}

// rows[i, :] = matrix[feature(first + i), :] for i < count, as they are or rounded. T: float or Bfloat16.
template <class T>
void copyEligibleRows(Context& gpu, Rows matrix, const FeatureSetView& eligible, int64_t first, int64_t count, T* rows);

}  // namespace monosem::cuda
