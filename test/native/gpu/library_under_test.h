// The CUDA library whose kernels a test program runs: the real one on a GPU, or its emulation.
#pragma once

#include "cuda/cuda_library.h"

namespace monosem::test {

const cuda::Api& libraryUnderTest();

}  // namespace monosem::test
