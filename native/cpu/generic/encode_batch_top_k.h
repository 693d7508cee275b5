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

// Offers the scores that a thread sees to the row of `largest` with its number.
struct SampleConsumer {
  RunningTopK<ByValue>& largest;

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i) largest.offer(scores.thread, scores.row(i), 0, scores.columns);
  }
};

// Bounds, each lower than the one before, that the sample lets expect to pass somewhat more than k entries.
class SampledBounds {
 public:
  SampledBounds(Matrix<const float> x, const Eligible& eligible, int64_t k, [[maybe_unused]] bool screening,
                Allocator& allocator, ThreadPool& pool) {
    if (x.rows < 4 * sampledRows || k == 0) return;  // the sample would cost as much as it saves
    expected_ = double(k) * double(sampledRows) / double(x.rows);
    const Block rows = allocator.allocateArray<float>(sampledRows * x.columns);
    for (int64_t i = 0; i < sampledRows; ++i)
      std::memcpy(rows.as<float>() + i * x.columns, x.row((2 * i + 1) * x.rows / (2 * sampledRows)),
                  size_t(x.columns) * sizeof(float));
    const Matrix<const float> sample{rows.as<const float>(), sampledRows, x.columns};
    const int64_t most = int64_t(factors[attempts - 1] * expected_) + 2;  // one more than the last bound needs
    if (most >= sampledRows * eligible.count()) return;
    RunningTopK<ByValue> largest(pool.threads(), most, sampledRows * eligible.count(), allocator);
#if defined(MONOSEM_SCREEN_HEADER)
    if (screening && worthScreeningAbove(x.rows, eligible.count(), x.columns)) {
      screenSample(sample, eligible.rows(), eligible.bias(), largest, allocator, pool);
    } else
#endif
    {
      const PackedRows packed(sample, 0, sampledRows, nullptr, allocator, pool);
      SampleConsumer consumer{largest};
      multiplyByBlocks(packed, eligible.rows(), eligible.bias(), nullptr, allocator, pool, consumer);
    }
    largest_ = allocator.allocateArray<float>(pool.threads() * most);
    for (int thread = 0; thread < pool.threads(); ++thread) {
      const int64_t found = largest.finish(thread);
      std::copy(largest.scoresOf(thread), largest.scoresOf(thread) + found, largest_.as<float>() + count_);
      count_ += found;
    }
  }

  float next(Allocator& allocator) {
    if (attempt_ == attempts || count_ == 0) return 0;
    const int64_t wanted = int64_t(factors[attempt_++] * expected_) + 1;
    if (wanted >= count_) return 0;
    const Block scores = allocator.allocateArray<float>(count_ + width);
    const Block places = allocator.allocateArray<uint32_t>(count_ + width);
    std::memcpy(scores.as<float>(), largest_.as<const float>(), size_t(count_) * sizeof(float));
    return std::max(0.0f, keepLargest(scores.as<float>(), places.as<uint32_t>(), count_, wanted));
  }

 private:
  static constexpr int64_t sampledRows = 128;
  // How many times as many entries as wanted.
  static constexpr int attempts = 2;
  static constexpr double factors[attempts] = {1.25, 2};

  double expected_ = 0;  // how many of the k largest the sample holds
  int attempt_ = 0;
  int64_t count_ = 0;
  Block largest_;
};

// Cuts codes down to the k < entries entries with the largest pre-activations; earlier entries win among equals.
inline void keepLargestEntries(Codes& codes, int64_t k, Allocator& allocator) {
  if (uint64_t(codes.entries) > std::numeric_limits<uint32_t>::max())
    throw EngineError(ErrorCode::unsupported, "Among " + std::to_string(codes.entries) +
                                                  " positive pre-activations the largest of a batch cannot be found; "
                                                  "at most 4294967295 are possible. Use a smaller batch.");
  const Block scores = allocator.allocateArray<float>(codes.entries + width);
  const Block kept = allocator.allocateArray<uint32_t>(codes.entries + width);
  uint32_t* entries = kept.as<uint32_t>();
  std::memcpy(scores.as<float>(), codes.preActivation(), size_t(codes.entries) * sizeof(float));
  std::iota(entries, entries + codes.entries, 0u);
  keepLargest(scores.as<float>(), entries, codes.entries, k);

  const Block features = allocator.allocateArray<uint32_t>(k), preActivations = allocator.allocateArray<float>(k);
  for (int64_t i = 0; i < k; ++i) features.as<uint32_t>()[i] = codes.feature()[entries[i]];
  std::memcpy(preActivations.as<float>(), scores.as<const float>(), size_t(k) * sizeof(float));
  uint64_t* rowOffsets = codes.rowOffsets.as<uint64_t>();
  int64_t passed = 0;
  for (int64_t row = 1; row <= codes.rows; ++row) {
    while (passed < k && entries[passed] < rowOffsets[row]) ++passed;
    rowOffsets[row] = uint64_t(passed);
  }
  codes.entries = k;
  codes.features = features;
  codes.preActivations = preActivations;
}

inline void encodeBatchTopK(Matrix<const float> x, const Eligible& eligible, int64_t k, bool screening, Codes& codes,
                            Allocator& allocator, ThreadPool& pool) {
  SampledBounds sampled(x, eligible, k, screening, allocator, pool);
  float bound = k > 0 ? sampled.next(allocator) : infinity;
  while (true) {
    const Block bounds = boundsFor(
        eligible, [&](uint32_t) { return bound; }, allocator);
    encodeAbove(x, eligible, bounds.as<const float>(), screening, codes, allocator, pool);
    if (codes.entries >= k || bound == 0) break;
    bound = sampled.next(allocator);
  }
  if (codes.entries > k) keepLargestEntries(codes, k, allocator);
}

}  // namespace monosem::MONOSEM_ISA
