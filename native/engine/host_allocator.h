// The host's memory as device memory.
#pragma once

#include "engine/caching_allocator.h"

namespace monosem {

class HostAllocator final : public CachingAllocator {
 public:
  explicit HostAllocator(uint64_t limitBytes = 0);
};

}  // namespace monosem
