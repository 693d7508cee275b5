// The host's memory as device memory.
//
// Sizes are rounded up to one of eight classes per power of two, so that freed blocks fit later requests; the
// accounting counts rounded sizes. Freed blocks are kept for reuse as long as live and kept bytes together stay within
// the most that was ever live at once: the process never holds more than its own peak. Beyond it the blocks that were
// freed longest ago go back to the system.
#pragma once

#include <memory>

#include "engine/allocator.h"

namespace monosem {

class HostAllocator : public Allocator {
 public:
  explicit HostAllocator(uint64_t limitBytes = 0);
  ~HostAllocator() override;

  Block allocate(size_t bytes) override;
  MemoryStatistics statistics() const override;
  void setLimit(uint64_t bytes) override;
  void resetPeak() override;
  void releaseCache() override;

 private:
  class Pool;
  std::shared_ptr<Pool> pool_;  // shared with the blocks, which may outlive their device
};

}  // namespace monosem
