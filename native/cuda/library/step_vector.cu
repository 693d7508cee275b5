// Adam on a vector, and the clipping factor that it shares with the step of a matrix.
#include "cuda/library/adam.h"
#include "cuda/library/kernels.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

// min(1, maxNorm / (sqrt(*squaredNorm) + 1e-6)), or NaN and a failure noted where the norm is not finite. By one
// thread: many devices are slow in double.
__device__ float makeClipFactor(const Clip& clip, LateFailureNote* note) {
  const double norm = sqrt(*clip.squaredNorm);
  if (norm < double(INFINITY)) {  // not so for NaN
    const double limit = clip.maxNorm / (norm + 1e-6);
    return limit < 1 ? float(limit) : 1;
  }
  noteFailure(note, LateFailure::normNotFinite, 0, norm);
  return NAN;
}

__global__ void clipFactorKernel(Clip clip, float* factor, LateFailureNote* note) {
  if (threadIdx.x == 0) *factor = makeClipFactor(clip, note);
}

// Adam on each element by itself, with the clipping factor * gradient: reads four arrays and writes three of them once.
// The blocks are so few that each makes the factor sooner than a kernel before them would have.
__global__ void __launch_bounds__(256)
    stepVectorKernel(Floats gradient, Vector<float> weights, Vector<float> m, Vector<float> v, AdamUpdate update,
                     Clip clip, LateFailureNote* note) {
  __shared__ float factor;
  if (threadIdx.x == 0) factor = clip.squaredNorm ? makeClipFactor(clip, note) : 1;
  __syncthreads();
  if (factor != factor) return;
  FOR_EACH_ELEMENT(i, weights.size) {
    float newM = m.data[i], newV = v.data[i];
    weights.data[i] = update(__fmul_rn(factor, gradient.data[i]), weights.data[i], newM, newV);
    m.data[i] = newM;
    v.data[i] = newV;
  }
}

}  // namespace

const float* clipFactor(Context& gpu, const Clip& clip) {
  if (!clip.squaredNorm) return nullptr;
  float* const factor = gpu.allocate<float>(1);
  launch(gpu, clipFactorKernel, Launch{dim3(1), 32}, clip, factor, gpu.failureNote());
  return factor;
}

void stepVector(Context& gpu, Floats gradient, Vector<float> weights, Vector<float> m, Vector<float> v, AdamStep adam,
                Clip clip) {
  launch(gpu, stepVectorKernel, elementwise(gpu, weights.size), gradient, weights, m, v, AdamUpdate(adam), clip,
         clip.squaredNorm ? gpu.failureNote() : nullptr);
}

}  // namespace monosem::cuda
