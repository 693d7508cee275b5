// The kernels for AVX2 with FMA and F16C (Haswell, Zen and later).
#if defined(__x86_64__)

#include <immintrin.h>

#include "cpu/isa/common.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt")
#endif

#define MONOSEM_ISA avx2
#define MONOSEM_SIMD_HEADER "cpu/isa/simd_avx2.h"
#include "cpu/generic/cpu_kernels.h"

namespace monosem::avx2 {

std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads) {
  return std::make_unique<CpuKernels>("avx2", allocator, threads);
}

}  // namespace monosem::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
