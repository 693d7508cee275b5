// The activations on the device, the twin of cpu/generic/simd_math.h. NaN stays NaN in all of them.
#pragma once

#include <cmath>

#include "cuda/library/gpu.h"
#include "engine/kernels.h"

namespace monosem::cuda {

__device__ inline float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x <= 0 ? 0.0f : x;
    case Activation::geluTanh: {
      const float inner = x * (0.044715f * x * x + 1.0f);
      const float half = 0.5f * x;
      return half * tanhf(0.7978845608028654f * inner) + half;
    }
    case Activation::gelu:  // x (1 + erf(x / sqrt 2)) / 2, without the cancellation at negative x
      return 0.5f * x * erfcf(x * -0.70710678118654752f);
    case Activation::exp:
      return expf(x);
    case Activation::sigmoid:
      return 1.0f / (1.0f + expf(-x));
    case Activation::tanh:
      return tanhf(x);
    case Activation::heaviside:
      return x > 0 ? 1.0f : x <= 0 ? 0.0f : x;
    case Activation::silu:
      return x / (1.0f + expf(-x));
  }
  return x;
}

}  // namespace monosem::cuda
