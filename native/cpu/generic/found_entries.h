// The entries that a selection finds in a chunk of rows before it is known how many there will be.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// Entries in the order in which one thread finds them, in slabs, so that nothing moves when there are more than
// expected.
class EntryLog {
 public:
  // Room for `count` more entries, all in one slab.
  void reserve(int64_t count, Allocator& allocator) {
    if (used_ + count <= capacity_) return;
    capacity_ = std::max(count, slabEntries);
    used_ = 0;
    slabs_.push_back({allocator.allocateArray<float>(capacity_), allocator.allocateArray<uint32_t>(capacity_)});
  }
  float* scores() { return slabs_.back().scores.as<float>() + used_; }
  uint32_t* positions() { return slabs_.back().positions.as<uint32_t>() + used_; }
  void advance(int64_t count) { used_ += count; }

 private:
  struct Slab {
    Block scores, positions;
  };
  static constexpr int64_t slabEntries = 1 << 16;
  std::vector<Slab> slabs_;
  int64_t used_ = 0, capacity_ = 0;
};

// Some entries of one row, positions ascending.
struct Segment {
  float* scores = nullptr;
  uint32_t* positions = nullptr;
  int64_t count = 0;
};

// The entries found in a chunk of rows. Different rows may be used by different threads at once.
class FoundEntries {
 public:
  FoundEntries(int64_t rows, int threads, Allocator& allocator)
      : allocator_(allocator), logs_(size_t(threads)), segments_(size_t(rows)) {}

  // Where a thread may write up to `room` entries, and as many as a vector has lanes beyond them.
  Segment begin(int thread, int64_t room) {
    EntryLog& log = logs_[size_t(thread)];
    log.reserve(room + width, allocator_);
    return {log.scores(), log.positions(), 0};
  }
  // Keeps the first `count` of what has been written since.
  void advance(int thread, int64_t count) { logs_[size_t(thread)].advance(count); }
  // Gives a row some more of its entries, whose positions continue those it has.
  void add(int64_t row, const Segment& segment) {
    if (segment.count > 0) segments_[size_t(row)].push_back(segment);
  }
  void clear() {
    logs_.assign(logs_.size(), {});
    segments_.assign(segments_.size(), {});
  }
  const std::vector<Segment>& segments(int64_t row) const { return segments_[size_t(row)]; }

 private:
  Allocator& allocator_;
  std::vector<EntryLog> logs_;                  // one per thread
  std::vector<std::vector<Segment>> segments_;  // one per row
};

}  // namespace monosem::MONOSEM_ISA
