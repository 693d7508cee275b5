// A GPU's kernels for operands in the host's memory, so that the kernel tests run on it as they are.
#pragma once

#include <memory>

#include "cuda/cuda_library.h"
#include "engine/kernels.h"

namespace monosem::test {

// Every call copies its operands to the device, waits, and copies what was written back; results are made with `host`.
// Late failures are thrown by the call that caused them.
std::unique_ptr<Kernels> makeMirroredKernels(std::shared_ptr<cuda::OpenContext> open, Allocator& host);

}  // namespace monosem::test
