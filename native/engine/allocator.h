// Device memory: blocks with a shared owner, a cache of freed blocks, a limit, and exact accounting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

namespace monosem {

class Allocator;

// A block of device memory; copies share it, the last one gives it back to its allocator's cache.
class Block {
 public:
  Block() = default;
  explicit operator bool() const { return bytes_ != nullptr; }
  template <class T>
  T* as() const {
    return static_cast<T*>(bytes_ ? bytes_.get() : nullptr);
  }
  size_t size() const { return size_; }

 private:
  friend class Allocator;
  Block(std::shared_ptr<void> bytes, size_t size) : bytes_(std::move(bytes)), size_(size) {}
  std::shared_ptr<void> bytes_;
  size_t size_ = 0;
};

// Keeps something that depends on what device memory holds, and is told when that changes other than by a kernel.
class MemoryWatcher {
 public:
  virtual ~MemoryWatcher() = default;
  // What these bytes held is gone: the host has written them, or their block was let go. Told before the memory can be
  // anybody else's, on whichever thread that happens, which holds no lock of the allocator.
  virtual void contentGone(const void* begin, size_t bytes) noexcept = 0;
  // Memory is short: lets go of what is kept for speed alone. Whether there was any. As contentGone, without a lock.
  virtual bool makeRoom() noexcept = 0;
};

struct MemoryStatistics {
  uint64_t current = 0;  // bytes in live blocks
  uint64_t peak = 0;     // the largest `current` so far
  uint64_t cached = 0;   // bytes freed but kept for reuse
  uint64_t limit = 0;    // 0: none; current + cached never exceeds it
};

// Thread safe. Blocks are 64-byte aligned and may be larger than asked for; their content is undefined. A device whose
// memory the host cannot address overrides the three transfers, which run on its queue's thread or, for blocks that no
// queued work knows yet, on the thread that allocated them.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // Throws EngineError(outOfMemory) naming bytes asked for, in use and the limit. A size of 0 gives a valid block.
  virtual Block allocate(size_t bytes) = 0;
  // For what only saves time: an empty block where there is no room, which nothing is let go for.
  virtual Block allocateIfRoom(size_t bytes) = 0;
  virtual MemoryStatistics statistics() const = 0;
  virtual void setLimit(uint64_t bytes) = 0;
  virtual void resetPeak() = 0;
  virtual void releaseCache() = 0;
  // The device is closed: releases what is kept for reuse, and from now on every block that is given back.
  virtual void close() = 0;

  virtual void upload(const void* host, const Block& block, size_t bytes) {
    if (bytes > 0) std::memcpy(block.as<void>(), host, bytes);
  }
  virtual void download(const Block& block, void* host, size_t bytes) {
    if (bytes > 0) std::memcpy(host, block.as<void>(), bytes);
  }
  virtual void clear(const Block& block, size_t bytes) { std::memset(block.as<void>(), 0, bytes); }

  // Has the watcher told from now on, until it is gone; at most one. False: it will not be, because the host may write
  // this memory without asking.
  virtual bool watch(const std::shared_ptr<MemoryWatcher>&) { return false; }

  template <class T>
  Block allocateArray(int64_t count) {
    return allocate(sizeof(T) * size_t(count));
  }

 protected:
  static Block makeBlock(std::shared_ptr<void> bytes, size_t size) { return Block(std::move(bytes), size); }
};

}  // namespace monosem
