// The kernels for 64-bit ARM, where NEON is part of the architecture: no compiler switch is needed.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "cpu/isa/common.h"

#define MONOSEM_ISA neon
#define MONOSEM_SIMD_HEADER "cpu/isa/simd_neon.h"
#include "cpu/generic/cpu_kernels.h"

namespace monosem::neon {

std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads) {
  return std::make_unique<CpuKernels>("neon", allocator, threads);
}

}  // namespace monosem::neon

#endif
