#include "engine/caching_allocator.h"

#include <algorithm>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "engine/error.h"

namespace monosem {
namespace {

constexpr size_t kAlignment = 64;

// The smallest class that holds `bytes`: a multiple of an eighth of the power of two below it, and of 64.
size_t sizeClass(size_t bytes) {
  if (bytes <= kAlignment * 8) return std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  size_t power = kAlignment * 8;
  while (power <= bytes / 2) power *= 2;
  const size_t step = power / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

class CachingAllocator::Pool {
 public:
  Pool(std::unique_ptr<MemorySource> source, uint64_t heldPerPeak)
      : source_(std::move(source)), heldPerPeak_(heldPerPeak) {}
  ~Pool() {
    for (const Freed& freed : byAge_) source_->release(freed.bytes, freed.size);
  }

  void* take(size_t size, size_t asked) {
    std::lock_guard<std::mutex> lock(mutex_);
    void* bytes = takeCached(size);
    if (!bytes) bytes = takeNew(size);
    if (!bytes) refuse(asked);
    return bytes;
  }

  // Null where there is no room. That is found out once: it costs the cache, and whoever asks will do so again.
  void* takeIfRoom(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    void* bytes = takeCached(size);
    if (bytes || current_ + size >= leastWithoutRoom_) return bytes;
    bytes = takeNew(size);
    if (!bytes) leastWithoutRoom_ = current_ + size;
    return bytes;
  }

  void giveBack(void* bytes, size_t size) noexcept {
    contentGone(bytes, size);
    std::lock_guard<std::mutex> lock(mutex_);
    current_ -= size;
    if (closed_) return source_->release(bytes, size);
    try {
      byAge_.push_back({bytes, size});
    } catch (const std::bad_alloc&) {
      source_->release(bytes, size);
      return;
    }
    try {
      bySize_.emplace(size, std::prev(byAge_.end()));
    } catch (const std::bad_alloc&) {
      byAge_.pop_back();
      source_->release(bytes, size);
      return;
    }
    cached_ += size;
  }

  void setWatcher(std::weak_ptr<MemoryWatcher> watcher) {
    std::lock_guard<std::mutex> lock(mutex_);
    watcher_ = std::move(watcher);
  }

  // The watcher is told without the lock: it may give blocks back.
  void contentGone(const void* begin, size_t bytes) noexcept {
    if (const auto told = watcher()) told->contentGone(begin, bytes);
  }
  bool makeRoom() noexcept {
    const auto asked = watcher();
    return asked && asked->makeRoom();
  }

  MemoryStatistics statistics() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return {current_, peak_, cached_, limit_};
  }

  void setLimit(uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
    leastWithoutRoom_ = UINT64_MAX;
    if (limit_ > 0) shrinkCache(limit_ > current_ ? limit_ - current_ : 0);
  }

  void resetPeak() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = current_;
  }

  void releaseCache() {
    std::lock_guard<std::mutex> lock(mutex_);
    leastWithoutRoom_ = UINT64_MAX;
    shrinkCache(0);
  }

  void close() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    shrinkCache(0);
  }

 private:
  struct Freed {
    void* bytes;
    size_t size;
  };

  std::shared_ptr<MemoryWatcher> watcher() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return watcher_.lock();
  }

  // A cached block; null: there is none of that size.
  void* takeCached(size_t size) {
    const auto next = bySize_.upper_bound(size);
    if (next == bySize_.begin() || std::prev(next)->first != size) return nullptr;
    const auto found = std::prev(next);  // the one freed last is the likeliest to be in the processor's cache
    void* bytes = found->second->bytes;
    cached_ -= size;
    byAge_.erase(found->second);
    bySize_.erase(found);
    grow(size);
    return bytes;
  }

  // A block from the source; null: there is none within the limit, or the source has no more.
  void* takeNew(size_t size) {
    if (limit_ > 0 && current_ + size > limit_) return nullptr;
    if (limit_ > 0) shrinkCache(limit_ - current_ - size);
    // The cache makes room before the process grows beyond what it may hold.
    const uint64_t after = current_ + size;
    shrinkCache(heldPerPeak_ * std::max(highest_, after) - after);
    void* bytes = source_->allocate(size);
    if (!bytes) {
      shrinkCache(0);
      bytes = source_->allocate(size);
    }
    if (bytes) grow(size);
    return bytes;
  }

  void grow(size_t size) {
    current_ += size;
    peak_ = std::max(peak_, current_);
    highest_ = std::max(highest_, current_);
  }

  // Gives the oldest cached blocks back to the system until at most `bytes` stay.
  void shrinkCache(uint64_t bytes) {
    while (cached_ > bytes) {
      const auto oldest = byAge_.begin();
      auto range = bySize_.equal_range(oldest->size);
      while (range.first->second != oldest) ++range.first;
      bySize_.erase(range.first);
      cached_ -= oldest->size;
      source_->release(oldest->bytes, oldest->size);
      byAge_.erase(oldest);
    }
  }

  [[noreturn]] void refuse(size_t asked) const {
    std::string message =
        "cannot allocate " + std::to_string(asked) + " bytes: " + std::to_string(current_) + " bytes are in use";
    message +=
        limit_ > 0 ? " of the limit of " + std::to_string(limit_) + " bytes" : " and the system has no more to give";
    throw EngineError(ErrorCode::outOfMemory, message);
  }

  const std::unique_ptr<MemorySource> source_;
  const uint64_t heldPerPeak_;
  mutable std::mutex mutex_;
  std::list<Freed> byAge_;  // freed blocks, the one freed longest ago first
  std::multimap<size_t, std::list<Freed>::iterator> bySize_;
  uint64_t current_ = 0, peak_ = 0, cached_ = 0, limit_ = 0;
  uint64_t highest_ = 0;                    // the peak that no reset touches
  uint64_t leastWithoutRoom_ = UINT64_MAX;  // that `current_` could not grow to
  bool closed_ = false;
  std::weak_ptr<MemoryWatcher> watcher_;
};

CachingAllocator::CachingAllocator(std::unique_ptr<MemorySource> source, uint64_t limitBytes, uint64_t heldPerPeak)
    : pool_(std::make_shared<Pool>(std::move(source), heldPerPeak)) {
  pool_->setLimit(limitBytes);
}

CachingAllocator::~CachingAllocator() {
  pool_->releaseCache();
}

Block CachingAllocator::allocate(size_t bytes) {
  const size_t size = sizeClass(bytes);
  void* memory = nullptr;
  try {
    memory = pool_->take(size, bytes);
  } catch (const EngineError& error) {
    if (error.code() != ErrorCode::outOfMemory || !pool_->makeRoom()) throw;
    memory = pool_->take(size, bytes);
  }
  return blockOf(memory, size);
}

Block CachingAllocator::allocateIfRoom(size_t bytes) {
  const size_t size = sizeClass(bytes);
  void* const memory = pool_->takeIfRoom(size);
  return memory ? blockOf(memory, size) : Block();
}

Block CachingAllocator::blockOf(void* memory, size_t size) {
  return makeBlock(std::shared_ptr<void>(memory, [pool = pool_, size](void* p) { pool->giveBack(p, size); }), size);
}

MemoryStatistics CachingAllocator::statistics() const {
  return pool_->statistics();
}
void CachingAllocator::setLimit(uint64_t bytes) {
  pool_->setLimit(bytes);
}
void CachingAllocator::resetPeak() {
  pool_->resetPeak();
}
void CachingAllocator::releaseCache() {
  pool_->releaseCache();
}
void CachingAllocator::close() {
  pool_->close();
}

void CachingAllocator::setWatcher(std::weak_ptr<MemoryWatcher> watcher) {
  pool_->setWatcher(std::move(watcher));
}
void CachingAllocator::contentGone(const Block& block, size_t bytes) {
  pool_->contentGone(block.as<const void>(), bytes);
}

}  // namespace monosem
