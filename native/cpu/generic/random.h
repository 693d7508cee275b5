// Random numbers and permutations from the counter-based generator.
#pragma once

#include "cpu/generic/philox.h"
#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// Calls use(i, words, j) for every i in [begin, end): number i is word j = (offset + i) % 4 of counter (offset + i)
// / 4.
template <class Use>
inline void forEachRandom(uint64_t seed, uint64_t offset, int64_t begin, int64_t end, const Use& use) {
  for (int64_t i = begin; i < end;) {
    const uint64_t number = offset + uint64_t(i);
    const std::array<uint32_t, 4> words = randomWords(seed, number / 4);
    for (int word = int(number % 4); word < 4 && i < end; ++word, ++i) use(i, words, word);
  }
}

// low + (high - low) * u, where u has 24 random bits: in [low, high).
inline void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, 4096, [&](int64_t begin, int64_t end, int) {
    forEachRandom(seed, offset, begin, end, [&](int64_t i, const std::array<uint32_t, 4>& words, int word) {
      const float unit = float(words[size_t(word)] >> 8) * 0x1p-24f;
      out[i] = low + (high - low) * unit;
    });
  });
}

// Box and Muller: words 2j and 2j + 1 give the pair r cos(phi), r sin(phi).
inline void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, 4096, [&](int64_t begin, int64_t end, int) {
    forEachRandom(seed, offset, begin, end, [&](int64_t i, const std::array<uint32_t, 4>& words, int word) {
      const double unit = (double(words[size_t(word & ~1)]) + 1) * 0x1p-32;  // in (0, 1]
      const double angle = 2 * 3.14159265358979323846 * (double(words[size_t(word | 1)]) * 0x1p-32);
      const double radius = std::sqrt(-2 * std::log(unit));
      out[i] = standardDeviation * float(radius * (word & 1 ? std::sin(angle) : std::cos(angle)));
    });
  });
}

// Fisher and Yates, from the last place down; place i draws 64 random bits of counter offset + i, scaled to [0, i].
inline void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) {
  std::iota(out.data, out.data + out.size, 0);
  for (int64_t i = out.size - 1; i > 0; --i) {
    const std::array<uint32_t, 4> words = randomWords(seed, offset + uint64_t(i));
    // (bits * (i + 1)) >> 64, by halves
    const uint64_t bound = uint64_t(i) + 1;
    const uint64_t pick = (uint64_t(words[1]) * bound + ((uint64_t(words[0]) * bound) >> 32)) >> 32;
    std::swap(out[i], out[int64_t(pick)]);
  }
}

}  // namespace monosem::MONOSEM_ISA
