// The kernels in plain C++, for every processor: what the compiler's default target offers (x86-64: SSE2).
#include "cpu/isa/common.h"

#define MONOSEM_ISA baseline
#define MONOSEM_SIMD_HEADER "cpu/isa/simd_baseline.h"
#include "cpu/generic/cpu_kernels.h"

namespace monosem::baseline {

std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads) {
  return std::make_unique<CpuKernels>("baseline", allocator, threads);
}

}  // namespace monosem::baseline
