// The kernels for AVX-512 F, DQ, BW, VL (Skylake-X, Zen 4 and later).
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "cpu/isa/common.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                          \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt")
#endif

#define MONOSEM_ISA avx512
#define MONOSEM_SIMD_HEADER "cpu/isa/simd_avx512.h"
#if defined(__linux__)
#define MONOSEM_SCREEN_HEADER "cpu/isa/amx_screen.h"
#endif
#include "cpu/generic/cpu_kernels.h"

namespace monosem::avx512 {

std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads) {
  return std::make_unique<CpuKernels>("avx512", allocator, threads);
}

bool hasMatrixUnit() {
#if defined(MONOSEM_SCREEN_HEADER)
  return canScreen();
#else
  return false;
#endif
}

std::unique_ptr<Kernels> makeKernelsWithMatrixUnit(Allocator& allocator, int threads) {
  return std::make_unique<CpuKernels>("avx512-amx", allocator, threads, true);
}

}  // namespace monosem::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
