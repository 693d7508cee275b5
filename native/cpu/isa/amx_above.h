// The entries above their features' bounds by approximate scores (see amx_product.h): only an entry whose upper bound
// reaches its feature's bound can be one.
#pragma once

#include "cpu/generic/found_entries.h"
#include "cpu/isa/amx_product.h"

namespace monosem::avx512 {

// More candidates than this share of all places cost more than the float32 product saves.
constexpr double mostCandidates = 0.07;

class ScreenAboveConsumer {
 public:
  // `bias` and `bounds` by column.
  ScreenAboveConsumer(const BrainRows& x, int64_t columns, const float* bias, const float* bounds, FoundEntries& found)
      : x_(x),
        found_(found),
        segments_(size_t(screenStrips(columns, x.paddedDepth()) * x.rows())),
        most_(int64_t(mostCandidates * double(x.rows()) * double(columns))) {
    // What x . w has to reach, less the rounding of the bias and of this; infinite bounds stay.
    const float slack = roundingSlack(x.depth());
    gaps_.assign(size_t(panelsFor(columns, screenPanel) * screenPanel), infinity);
    for (int64_t c = 0; c < columns; ++c)
      gaps_[size_t(c)] = std::isfinite(bounds[c])
                             ? (bounds[c] - bias[c]) - slack * (std::fabs(bounds[c]) + std::fabs(bias[c]))
                             : bounds[c];
  }

  bool enough() const {
    return overflow_.load(std::memory_order_relaxed) || candidates_.load(std::memory_order_relaxed) > most_;
  }

  void take(const ScreenTile& scores) {
    int64_t candidates = 0;
    Floats zeroOrNan = zeros();
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      const Floats margin = broadcast(x_.margin(row));
      const float* gaps = gaps_.data() + scores.firstColumn;
      Segment segment = found_.begin(scores.thread, scores.columns + screenPanel);
      for (int j = 0; j < scores.columns; j += width) {
        const Floats upper = fma(margin, load(scores.norms + j), load(scores.row(i) + j));
        zeroOrNan = fma(zeros(), upper, zeroOrNan);
        segment.count +=
            compressStore(segment.positions + segment.count,
                          laneIndices() + broadcastInt(int32_t(scores.firstColumn + j)), upper >= load(gaps + j));
      }
      found_.advance(scores.thread, segment.count);
      segmentAt(scores.strip, row) = segment;
      candidates += segment.count;
    }
    candidates_.fetch_add(candidates, std::memory_order_relaxed);
    if (sum(zeroOrNan) != 0) overflow_.store(true);
  }

  // The candidates of a row in a strip of columns.
  Segment& segmentAt(int64_t strip, int64_t row) { return segments_[size_t(strip * x_.rows() + row)]; }
  int64_t strips() const { return int64_t(segments_.size()) / std::max<int64_t>(x_.rows(), 1); }

 private:
  const BrainRows& x_;
  FoundEntries& found_;
  std::vector<float> gaps_;
  std::vector<Segment> segments_;  // [strips, rows]
  int64_t most_;
  std::atomic<int64_t> candidates_{0};
  std::atomic<bool> overflow_{false};
};

// Whether screening pays if there are few candidates.
inline bool worthScreeningAbove(int64_t rows, int64_t features, int64_t depth) {
  return rows >= 64 && depth >= 64 && features >= 1024;
}

// Finds the entries of the rows [first, first + rows) of x with a score above their column's bound. Returns false where
// they cannot be found so, because there are too many candidates or scores overflow; what `found` then holds is of no
// use.
//
// The exact scores of a strip of columns are computed for all rows before those of the next: the strip stays in the
// second-level cache, while the rows go by.
inline bool screenAbove(Matrix<const float> x, int64_t first, int64_t rows, const RowSource& columns, const float* bias,
                        const float* bounds, FoundEntries& found, Allocator& allocator, ThreadPool& pool) {
  const BrainRows packed(x, first, rows, "x", allocator, pool);
  std::vector<float> norms;
  ScreenAboveConsumer candidates(packed, columns.count, bias, bounds, found);
  screenByBlocks(packed, columns, "encoder", norms, allocator, pool, candidates);
  if (candidates.enough()) return false;

  constexpr int64_t rowsPerTask = 512;
  const int64_t tasksPerStrip = panelsFor(rows, rowsPerTask);
  pool.forEach(candidates.strips() * tasksPerStrip, [&](int64_t task, int) {
    const int64_t strip = task / tasksPerStrip, firstRow = task % tasksPerStrip * rowsPerTask;
    const int64_t endRow = std::min(rows, firstRow + rowsPerTask);
    ExactScores exact(x.columns);
    for (int64_t row = firstRow; row < endRow; ++row) {
      const Segment& segment = candidates.segmentAt(strip, row);
      for (int64_t i = 0; i < segment.count; ++i) {
        const uint32_t column = segment.positions[i];
        exact.add(x.row(first + row), columns.row(column), bias[column], segment.scores + i);
      }
    }
    exact.finish();
    for (int64_t row = firstRow; row < endRow; ++row) {
      Segment& segment = candidates.segmentAt(strip, row);
      int64_t kept = 0;
      for (int64_t i = 0; i < segment.count; ++i) {
        segment.scores[kept] = segment.scores[i];
        segment.positions[kept] = segment.positions[i];
        kept += segment.scores[i] > bounds[segment.positions[i]];
      }
      segment.count = kept;
    }
  });
  pool.forEachRange(rows, 64, [&](int64_t beginRow, int64_t endRow, int) {
    for (int64_t row = beginRow; row < endRow; ++row)
      for (int64_t strip = 0; strip < candidates.strips(); ++strip) found.add(row, candidates.segmentAt(strip, row));
  });
  return true;
}

}  // namespace monosem::avx512
