// torch.optim.Adam's update of a parameter, and the factor of gradient clipping.
#pragma once

#include <cmath>

#include "cuda/library/gpu.h"

namespace monosem::cuda {

// The constants of one step, in PyTorch's grouping:
//
//   m += (1 - beta1) * (g - m);   v = beta2 * v + (1 - beta2) * g^2
//   weights -= learningRate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
struct AdamUpdate {
  float firstRate, secondDecay, secondRate, stepSize, rootScale, epsilon;

  explicit AdamUpdate(const AdamStep& step)
      : firstRate(float(1 - step.beta1)),
        secondDecay(float(step.beta2)),
        secondRate(float(1 - step.beta2)),
        stepSize(float(step.learningRate / (1 - std::pow(step.beta1, double(step.step))))),
        rootScale(float(1 / std::sqrt(1 - std::pow(step.beta2, double(step.step))))),
        epsilon(float(step.epsilon)) {}

  // Returns the new weight, updates the moments.
  __device__ float operator()(float gradient, float weight, float& m, float& v) const {
    m = fmaf(firstRate, gradient - m, m);
    v = fmaf(__fmul_rn(secondRate, gradient), gradient, __fmul_rn(secondDecay, v));
    return fmaf(-stepSize, m / fmaf(sqrtf(v), rootScale, epsilon), weight);
  }
};

// What every gradient is multiplied by, in device memory; null: 1. Where the norm is not finite, the kernel that makes
// it notes the failure, and the factor is NaN: then the step must write nothing.
const float* clipFactor(Context& gpu, const Clip& clip);

// clipFactor's number, for each thread.
__device__ inline float factorAt(const float* clipFactor) {
  return clipFactor ? *clipFactor : 1;
}

}  // namespace monosem::cuda
