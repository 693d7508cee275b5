// Products with bf16 weights.
#pragma once

#include "cuda/library/context.h"
#include "engine/views.h"

namespace monosem::cuda {

// out[m, n] = sum over k of x[m, k] * weights[n, k], in the context's precision; out is new memory.
void multiplyByBrain(Context& gpu, Matrix<const float> x, Matrix<const uint16_t> weights, Matrix<float> out);

}  // namespace monosem::cuda
