// The features that have not fired for a while.
#include <limits>

#include "cuda/library/gpu.h"
#include "cuda/library/kernels.h"
#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

constexpr uint32_t noPosition = std::numeric_limits<uint32_t>::max();

// dead[f] = 1 where tokensSinceFired[f] >= threshold, else 0.
__global__ void findDeadKernel(Vector<const double> tokensSinceFired, double threshold, uint32_t* dead) {
  FOR_EACH_ELEMENT(feature, tokensSinceFired.size) dead[feature] = tokensSinceFired.data[feature] >= threshold ? 1 : 0;
}

// Both directions between a dead feature and its place among them, `deadBefore`.
__global__ void numberDeadKernel(const uint32_t* dead, const uint64_t* deadBefore, int64_t features, uint32_t* indices,
                                 uint32_t* position) {
  FOR_EACH_ELEMENT(feature, features) {
    if (dead[feature]) indices[deadBefore[feature]] = uint32_t(feature);
    position[feature] = dead[feature] ? uint32_t(deadBefore[feature]) : noPosition;
  }
}

}  // namespace

// Waits for their number.
void featuresNotFiredFor(Context& gpu, Vector<const double> tokensSinceFired, double threshold, MadeFeatureSet* made) {
  const int64_t features = tokensSinceFired.size;
  uint32_t* dead = gpu.allocate<uint32_t>(features);
  uint64_t* deadBefore = gpu.allocate<uint64_t>(features + 1);
  launch(gpu, findDeadKernel, elementwise(gpu, features), tokensSinceFired, threshold, dead);
  exclusiveScan(gpu, dead, features, deadBefore);
  made->count = int64_t(gpu.read(deadBefore + features));
  made->indices = gpu.allocate<uint32_t>(made->count);
  made->position = gpu.allocate<uint32_t>(features);
  launch(gpu, numberDeadKernel, elementwise(gpu, features), dead, deadBefore, features, made->indices, made->position);
}

}  // namespace monosem::cuda
