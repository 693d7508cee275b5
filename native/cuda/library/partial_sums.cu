#include "cuda/library/partial_sums.h"

#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr unsigned addThreads = 1024;

// By one block: each of its threads adds every 1024th part, then the threads are added.
__global__ void __launch_bounds__(addThreads) addPartsKernel(const double* parts, int64_t count, double* sum) {
  __shared__ double scratch[33];
  double own = 0;
#pragma unroll 4
  for (int64_t part = threadIdx.x; part < count; part += addThreads) own += parts[part];
  const double total = blockSum(own, scratch);
  if (threadIdx.x == 0) *sum += total;
}

}  // namespace

void addParts(Context& gpu, const double* parts, int64_t count, double* sum) {
  launch(gpu, addPartsKernel, Launch{1, addThreads}, parts, count, sum);
}

}  // namespace monosem::cuda
