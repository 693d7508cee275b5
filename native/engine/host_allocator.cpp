#include "engine/host_allocator.h"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace monosem {
namespace {

constexpr size_t kAlignment = 64;
// Large blocks start on huge pages: far fewer address translations and page faults in the matrix products and Adam.
constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kLarge = size_t(4) << 20;

std::align_val_t alignmentOf(size_t size) {
  return std::align_val_t(size >= kLarge ? kHugePage : kAlignment);
}

class HostMemory final : public MemorySource {
 public:
  void* allocate(size_t size) override {
    void* bytes = ::operator new(size, alignmentOf(size), std::nothrow);
#if defined(__linux__)
    if (bytes && size >= kLarge) madvise(bytes, size / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    return bytes;
  }
  void release(void* bytes, size_t size) override {
    ::operator delete(bytes, alignmentOf(size));
  }
};

}  // namespace

HostAllocator::HostAllocator(uint64_t limitBytes) : CachingAllocator(std::make_unique<HostMemory>(), limitBytes) {}

}  // namespace monosem
