// The sum of an array by one block, with several loads under way at once: what one block takes is mostly their latency.
#pragma once

#include "cuda/library/pack.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {

// The `threads` of a block together: numbers[0] + ... + numbers[count - 1]. Which of them a thread adds, and in which
// order, depends on `count` alone. `numbers` is aligned for packs.
template <class Total, unsigned threads, class Number>
__device__ inline Total ownSumOf(const Number* numbers, int64_t count) {
  constexpr int atOnce = 4;
  const int64_t packs = count / packWidth;
  Total sum = 0;
#pragma unroll 1
  for (int64_t first = threadIdx.x; first < packs; first += atOnce * threads) {
    // Loaded and added without a branch, so that no load waits for another.
    Pack<Number, packWidth> loaded[atOnce];
    for (int i = 0; i < atOnce; ++i)
      loaded[i] = loadPack<packWidth>(numbers + min(first + i * threads, packs - 1) * packWidth);
    for (int i = 0; i < atOnce; ++i)
      for (int j = 0; j < packWidth; ++j) sum += first + i * threads < packs ? loaded[i].at[j] : Number(0);
  }
  const int64_t rest = packs * packWidth + threadIdx.x;
  if (rest < count) sum += numbers[rest];
  return sum;
}

}  // namespace monosem::cuda
