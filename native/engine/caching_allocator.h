// Device memory that is asked for once and used again and again.
//
// Sizes are rounded up to one of eight classes per power of two, so that freed blocks fit later requests; the
// accounting counts rounded sizes. Freed blocks are kept for reuse as long as live and kept bytes together stay within
// a multiple of the most that was ever live at once. Beyond it the blocks that were freed longest ago go back to where
// they came from. With a multiple of 1 the process never holds more than its own peak. But then blocks of different
// sizes push one another out where a program's phases, again and again, want now these and now those, and nearly its
// peak each time; which is dear where giving back and asking waits for the device.
#pragma once

#include <memory>

#include "engine/allocator.h"

namespace monosem {

// Where the memory comes from; used by one thread at a time.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual void* allocate(size_t size) = 0;  // null: there is no more; may throw an EngineError for another reason
  virtual void release(void* bytes, size_t size) = 0;
};

class CachingAllocator : public Allocator {
 public:
  // `heldPerPeak`: the multiple. Less is held where the limit demands it, or the source has no more.
  explicit CachingAllocator(std::unique_ptr<MemorySource> source, uint64_t limitBytes = 0, uint64_t heldPerPeak = 1);
  ~CachingAllocator() override;

  Block allocate(size_t bytes) override;
  Block allocateIfRoom(size_t bytes) override;
  MemoryStatistics statistics() const override;
  void setLimit(uint64_t bytes) override;
  void resetPeak() override;
  void releaseCache() override;
  void close() override;

 protected:
  void setWatcher(std::weak_ptr<MemoryWatcher> watcher);
  void contentGone(const Block& block, size_t bytes);

 private:
  class Pool;
  Block blockOf(void* memory, size_t size);

  std::shared_ptr<Pool> pool_;  // shared with the blocks, which may outlive their device
};

}  // namespace monosem
