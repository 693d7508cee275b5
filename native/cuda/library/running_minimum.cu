// The running mean of the smallest active value: BatchTopK's threshold for inference.
#include "cuda/library/kernels.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr float infinity = INFINITY;
constexpr unsigned threads = 1024;

// What blocks have found: minus their smallest active value, or minus infinity; and whether a value is not finite.
struct Finding {
  float negatedSmallest;
  int notFinite;
};

// Of a part of the values for each block. The smallest is the same in any order.
__global__ void findSmallestKernel(const float* values, int64_t entries, Finding* findings) {
  __shared__ float scratch[33];
  float negatedSmallest = -infinity;
  int notFinite = 0;
  FOR_EACH_ELEMENT(entry, entries) {
    const float value = values[entry];
    if (!isFinite(value)) notFinite = 1;
    if (value != 0 && -value > negatedSmallest) negatedSmallest = -value;
  }
  notFinite = __syncthreads_or(notFinite);
  negatedSmallest = blockMax(negatedSmallest, scratch);
  if (threadIdx.x == 0) findings[blockIdx.x] = {negatedSmallest, notFinite};
}

// Puts the findings together and, if there is an active entry and all values are finite:
//   state[0] = decay * state[0] + (1 - decay) * smallest;  state[1] = decay * state[1] + (1 - decay)
//   out[:] = state[0] / state[1]
// By one block.
__global__ void __launch_bounds__(threads)
    updateRunningMinimumKernel(const Finding* findings, int64_t count, double decay, double* state, Vector<float> out,
                               LateFailureNote* note) {
  __shared__ float scratch[33];
  __shared__ float mean;
  float negatedSmallest = -infinity;
  int notFinite = 0;
  for (int64_t i = threadIdx.x; i < count; i += threads) {
    const Finding finding = findings[i];
    if (finding.negatedSmallest > negatedSmallest) negatedSmallest = finding.negatedSmallest;
    notFinite |= finding.notFinite;
  }
  notFinite = __syncthreads_or(notFinite);
  negatedSmallest = blockMax(negatedSmallest, scratch);
  if (notFinite) {
    if (threadIdx.x == 0) noteFailure(note, LateFailure::valuesNotFinite);
    return;
  }
  if (negatedSmallest == -infinity) return;
  if (threadIdx.x == 0) {
    state[0] = decay * state[0] + (1 - decay) * double(-negatedSmallest);
    state[1] = decay * state[1] + (1 - decay);
    mean = float(state[0] / state[1]);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < out.size; i += threads) out.data[i] = mean;
}

}  // namespace

// Reads 4 bytes per entry.
void updateRunningMinimum(Context& gpu, CodesView codes, double decay, Vector<double> state, Vector<float> out) {
  const Launch how = elementwise(gpu, codes.entries);
  Finding* findings = gpu.allocate<Finding>(how.blocks.x);
  launch(gpu, findSmallestKernel, how, codes.values, codes.entries, findings);
  launch(gpu, updateRunningMinimumKernel, Launch{1, threads}, findings, int64_t(how.blocks.x), decay, state.data, out,
         gpu.failureNote());
}

}  // namespace monosem::cuda
