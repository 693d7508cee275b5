// Sums of columns, in double, to chosen places.
#pragma once

#include "cuda/library/context.h"

namespace monosem::cuda {

// out[places[c]] = scale * the sum of column c; places null: out[c].
void columnSumsAt(Context& gpu, Rows a, double scale, const uint32_t* places, float* out);

}  // namespace monosem::cuda
