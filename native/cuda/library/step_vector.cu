// Adam on a vector, and the clipping factor that it shares with the step of a matrix.
#include "cuda/library/adam.h"
#include "cuda/library/kernels.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

// *factor = min(1, maxNorm / (sqrt(*squaredNorm) + 1e-6)), or NaN and a failure noted where the norm is not finite. One
// thread: the steps' own would all divide in double, which many devices do slowly.
__global__ void clipFactorKernel(Clip clip, float* factor, LateFailureNote* note) {
  if (threadIdx.x > 0) return;
  const double norm = sqrt(*clip.squaredNorm);
  if (norm < double(INFINITY)) {  // not so for NaN
    const double limit = clip.maxNorm / (norm + 1e-6);
    *factor = limit < 1 ? float(limit) : 1;
  } else {
    noteFailure(note, LateFailure::normNotFinite, 0, norm);
    *factor = NAN;
  }
}

// Adam on each element by itself, with factor * gradient: reads four arrays and writes three of them once.
__global__ void __launch_bounds__(256) stepVectorKernel(Floats gradient, Vector<float> weights, Vector<float> m,
                                                        Vector<float> v, AdamUpdate update, const float* clipFactor) {
  const float factor = factorAt(clipFactor);
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
  launch(gpu, stepVectorKernel, elementwise(gpu, weights.size), gradient, weights, m, v, AdamUpdate(adam),
         clipFactor(gpu, clip));
}

}  // namespace monosem::cuda
