// Sums in double whose parts come from blocks.
#pragma once

#include "cuda/library/context.h"

namespace monosem::cuda {

// *sum += parts[0] + ... + parts[count - 1]; the order of summation depends on `count` alone.
void addParts(Context& gpu, const double* parts, int64_t count, double* sum);

}  // namespace monosem::cuda
