// The size of a core's second-level cache, by which the matrix product chooses its blocks. Results do not depend on it.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace monosem {

inline int64_t secondLevelCacheBytes() {
  int64_t bytes = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  constexpr int64_t smallest = int64_t(256) << 10, usual = int64_t(1) << 20, largest = int64_t(4) << 20;
  if (bytes <= 0) return usual;
  return bytes < smallest ? smallest : bytes > largest ? largest : bytes;  // a large one is shared between cores
}

}  // namespace monosem
