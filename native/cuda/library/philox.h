// Philox 4x32-10, the counter-based generator of cpu/generic/philox.h: the same words for the same counter and key.
#pragma once

#include "cuda/library/gpu.h"

namespace monosem::cuda {

struct RandomWords {
  uint32_t word[4];
};

// Ten rounds.
__device__ inline RandomWords philox(RandomWords counter, uint64_t seed) {
  constexpr uint32_t firstFactor = 0xD2511F53u, secondFactor = 0xCD9E8D57u;
  uint32_t firstKey = uint32_t(seed), secondKey = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint32_t* word = counter.word;
    counter = {{__umulhi(secondFactor, word[2]) ^ word[1] ^ firstKey, secondFactor * word[2],
                __umulhi(firstFactor, word[0]) ^ word[3] ^ secondKey, firstFactor * word[0]}};
    firstKey += 0x9E3779B9u;
    secondKey += 0xBB67AE85u;
  }
  return counter;
}

// The words of counter `counter` under key `seed`.
__device__ inline RandomWords randomWords(uint64_t seed, uint64_t counter) {
  return philox({{uint32_t(counter), uint32_t(counter >> 32), 0, 0}}, seed);
}

}  // namespace monosem::cuda
