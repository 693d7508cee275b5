// The k largest positive pre-activations of a whole batch, exact; ties by (z descending, row ascending, feature
// ascending).
//
// A sample of the rows shows about where the k-th largest stands. The batch is then encoded above a bound a little
// lower, so that a small part of the scores is kept, and the k largest are picked from those. Where fewer than k were
// found, the bound was too high, and the batch is encoded again above a lower one, in the end above 0: the sample
// decides how long it takes, never what is selected.
#pragma once

#include "cpu/generic/encode_above.h"
#include "cpu/generic/top_k.h"

namespace monosem::MONOSEM_ISA {

constexpr int64_t sampledRows = 128;
constexpr double sampleMargin = 1.3;  // how many more entries than wanted the bound lets through, by the sample

// The k < entries entries of codes with the largest pre-activations; earlier entries win among equals.
class LargestEntries {
 public:
  LargestEntries(const Codes& codes, int64_t k, Allocator& allocator) : k_(k) {
    if (uint64_t(codes.entries) > std::numeric_limits<uint32_t>::max())
      throw EngineError(ErrorCode::unsupported, "Among " + std::to_string(codes.entries) +
                                                    " positive pre-activations the largest of a batch cannot be found; "
                                                    "at most 4294967295 are possible. Use a smaller batch.");
    scores_ = allocator.allocateArray<float>(codes.entries + width);
    entries_ = allocator.allocateArray<uint32_t>(codes.entries + width);
    for (int64_t e = 0; e < codes.entries; ++e) {
      scores_.as<float>()[e] = codes.preActivation()[e];
      entries_.as<uint32_t>()[e] = uint32_t(e);
    }
    smallest_ = keepLargest(scores_.as<float>(), entries_.as<uint32_t>(), codes.entries, k);
  }

  float smallest() const { return smallest_; }

  // Cuts the codes down to these entries.
  void keepIn(Codes& codes, Allocator& allocator) const {
    const uint32_t* entries = entries_.as<const uint32_t>();
    const Block features = allocator.allocateArray<uint32_t>(k_), preActivations = allocator.allocateArray<float>(k_);
    for (int64_t i = 0; i < k_; ++i) {
      features.as<uint32_t>()[i] = codes.feature()[entries[i]];
      preActivations.as<float>()[i] = scores_.as<const float>()[i];
    }
    uint64_t* rowOffsets = codes.rowOffsets.as<uint64_t>();
    int64_t passed = 0;
    for (int64_t row = 1; row <= codes.rows; ++row) {
      while (passed < k_ && entries[passed] < rowOffsets[row]) ++passed;
      rowOffsets[row] = uint64_t(passed);
    }
    codes.entries = k_;
    codes.features = features;
    codes.preActivations = preActivations;
  }

 private:
  int64_t k_;
  float smallest_ = 0;
  Block scores_, entries_;
};

// Bounds for more and more entries than wanted, the first time `sampleMargin` as many; 0 where the sample holds no
// more.
class SampledBound {
 public:
  SampledBound(Matrix<const float> x, const Eligible& eligible, int64_t k, Allocator& allocator, ThreadPool& pool) {
    if (x.rows < 4 * sampledRows) return;  // the sample would cost as much as it saves
    const Block rows = allocator.allocateArray<float>(sampledRows * x.columns);
    for (int64_t i = 0; i < sampledRows; ++i)
      std::memcpy(rows.as<float>() + i * x.columns, x.row((2 * i + 1) * x.rows / (2 * sampledRows)),
                  size_t(x.columns) * sizeof(float));
    const Block zero = boundsFor(
        eligible, [](uint32_t) { return 0.0f; }, allocator);
    sample_.rows = sampledRows;
    sample_.rowOffsets = allocator.allocateArray<uint64_t>(sampledRows + 1);
    encodeAbove({rows.as<const float>(), sampledRows, x.columns}, eligible, zero.as<const float>(), sample_, allocator,
                pool);
    wanted_ = double(k) * double(sampledRows) / double(x.rows);
  }

  float next(Allocator& allocator) {
    wanted_ *= sampleMargin;
    const int64_t wanted = int64_t(std::ceil(wanted_));
    return wanted < sample_.entries ? LargestEntries(sample_, wanted, allocator).smallest() : 0;
  }

 private:
  Codes sample_;
  double wanted_ = 0;
};

inline void encodeBatchTopK(Matrix<const float> x, const Eligible& eligible, int64_t k, Codes& codes,
                            Allocator& allocator, ThreadPool& pool) {
  SampledBound sampled(x, eligible, k, allocator, pool);
  float bound = k > 0 ? sampled.next(allocator) : infinity;
  while (true) {
    const Block bounds = boundsFor(
        eligible, [&](uint32_t) { return bound; }, allocator);
    encodeAbove(x, eligible, bounds.as<const float>(), codes, allocator, pool);
    if (codes.entries >= k || bound == 0) break;
    bound = sampled.next(allocator);
  }
  if (codes.entries > k) LargestEntries(codes, k, allocator).keepIn(codes, allocator);
}

}  // namespace monosem::MONOSEM_ISA
