#include "cuda/library/partial_sums.h"

namespace monosem::cuda {
namespace {

// Two packs for a thread, which it loads at once.
constexpr int64_t partsPerBlock = 2 * packWidth * addThreads;

__global__ void __launch_bounds__(addThreads) addPartsKernel(const double* parts, int64_t count, PartialSums sums) {
  __shared__ double scratch[33];
  const int64_t first = int64_t(blockIdx.x) * partsPerBlock;
  sums.add(ownSumOf<double, addThreads>(parts + first, min(partsPerBlock, count - first)), scratch);
}

}  // namespace

void addParts(Context& gpu, const double* parts, int64_t count, double* sum) {
  const unsigned blocks = piecesOf(count, partsPerBlock);
  launch(gpu, addPartsKernel, Launch{blocks, addThreads}, parts, count, PartialSums(gpu, blocks, sum));
}

}  // namespace monosem::cuda
