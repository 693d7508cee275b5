// An allocator for tests: every block has exactly the size asked for, so that a sanitizer sees a step beyond it, and
// holds NaN, so that nothing can rely on fresh memory being zero.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/allocator.h"

namespace monosem::test {

class ExactAllocator final : public Allocator {
 public:
  Block allocate(size_t bytes) override {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1) != 0) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    return makeBlock(std::shared_ptr<void>(memory, std::free), bytes);
  }
  Block allocateIfRoom(size_t bytes) override { return allocate(bytes); }
  MemoryStatistics statistics() const override { return {}; }
  void setLimit(uint64_t) override {}
  void resetPeak() override {}
  void releaseCache() override {}
  void close() override {}
};

}  // namespace monosem::test
