// Sums in double whose parts come from blocks.
#pragma once

#include "cuda/library/block_sum.h"

namespace monosem::cuda {

// Of the blocks of kernels that add to a sum.
constexpr unsigned addThreads = 256;

// *sum += the blocks' parts. The block that is the last to come adds them, which saves a launch; it adds them in their
// own order, so that the result does not depend on which one it is.
class PartialSums {
 public:
  // For one launch of so many blocks of addThreads, in one dimension.
  PartialSums(Context& gpu, unsigned blocks, double* sum)
      : sum_(sum), parts_(gpu.allocate<double>(blocks)), blocksDone_(gpu.blocksDone()) {}

  // The block's part is what its threads have together. Called once by all threads of every block, after everything
  // else; `scratch` as for blockSum.
  __device__ void add(double ofThread, double* scratch) const {
    const double part = blockSum(ofThread, scratch);
    if (gridDim.x == 1) {
      if (threadIdx.x == 0) *sum_ += part;
      return;
    }
    __shared__ bool isLast;
    if (threadIdx.x == 0) {
      parts_[blockIdx.x] = part;
      __threadfence();  // the part is there before its block counts
      isLast = atomicAdd(blocksDone_, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!isLast) return;
    __threadfence();
    const double all = blockSum(ownSumOf<double, addThreads>(parts_, gridDim.x), scratch);
    if (threadIdx.x > 0) return;
    *sum_ += all;
    *blocksDone_ = 0;
  }

 private:
  double* sum_;
  double* parts_;
  unsigned* blocksDone_;
};

// *sum += parts[0] + ... + parts[count - 1]; the order of summation depends on `count` alone.
void addParts(Context& gpu, const double* parts, int64_t count, double* sum);

}  // namespace monosem::cuda
