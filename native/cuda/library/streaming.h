// Reading and writing what passes through once, so that it does not push out of the caches what is read again.
#pragma once

#include "cuda/library/pack.h"

namespace monosem::cuda {

// loadPack and storePack of floats, whose lines leave the caches first.
template <int width>
__device__ inline Pack<float, width> loadOnce(const float* place) {
  if constexpr (width == 4) {
    const float4 pack = __ldcs(reinterpret_cast<const float4*>(place));
    return {{pack.x, pack.y, pack.z, pack.w}};
  } else {
    static_assert(width == 1);
    return {{__ldcs(place)}};
  }
}
template <int width>
__device__ inline void storeOnce(float* place, const Pack<float, width>& pack) {
  if constexpr (width == 4) {
    __stcs(reinterpret_cast<float4*>(place), make_float4(pack.at[0], pack.at[1], pack.at[2], pack.at[3]));
  } else {
    static_assert(width == 1);
    __stcs(place, pack.at[0]);
  }
}

// Begins to bring the line of `place` into the second-level cache.
__device__ inline void prefetch([[maybe_unused]] const float* place) {
#if defined(__CUDACC__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(place));
#endif
}
constexpr int64_t floatsPerLine = 32;

}  // namespace monosem::cuda
