// The kernel interface on a GPU: turns operands into views, calls the library's table, and gives results their blocks.
#pragma once

#include <memory>
#include <vector>

#include "cuda/cuda_library.h"
#include "engine/kernels.h"

namespace monosem::cuda {

std::unique_ptr<Kernels> makeCudaKernels(std::shared_ptr<OpenContext> open, Allocator& allocator);

}  // namespace monosem::cuda
