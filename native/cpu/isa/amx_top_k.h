// The exact top k of every row by approximate scores (see amx_product.h): only features whose upper bound reaches the
// k-th largest lower bound can be selected. A row with too many of them is left to the float32 product.
#pragma once

#include "cpu/generic/top_k.h"
#include "cpu/isa/amx_product.h"

namespace monosem::avx512 {

// The features of a number of rows that may be among the k largest, by bounds on their scores.
class ScreenedRows {
 public:
  // Bounds are `slack` / 2 wider than margin * norm.
  ScreenedRows(int64_t rows, int64_t k, float slack, Allocator& allocator)
      : k_(k), capacity_(4 * k + 256), slack_(slack), states_(size_t(rows)) {
    upper_ = allocator.allocateArray<float>(rows * (capacity_ + width));
    positions_ = allocator.allocateArray<uint32_t>(rows * (capacity_ + width));
  }

  // Screened scores of consecutive positions with their biases and norms. Returns whether they are finite.
  bool offer(int64_t row, float margin, const float* scores, const float* biases, const float* norms,
             int64_t firstPosition, int count) {
    State& state = states_[size_t(row)];
    if (state.tooMany) return true;
    Floats zeroOrNan = zeros();
    for (int i = 0; i < count; i += width) {
      const Floats upper = fma(broadcast(margin), load(norms + i), load(scores + i) + load(biases + i));
      zeroOrNan = fma(zeros(), upper, zeroOrNan);
      Mask reaching = upper >= broadcast(state.threshold);
      if (i + width > count) reaching.lanes &= firstLanes(count - i);
      if (maskBits(reaching) == 0) continue;
      compressStore(upperOf(row) + state.count, upper, reaching);
      state.count += compressStore(positionsOf(row) + state.count,
                                   laneIndices() + broadcastInt(int32_t(firstPosition + i)), reaching);
      if (state.count + width <= capacity_) continue;
      tighten(row, margin, norms - firstPosition);
      if (state.count + width <= capacity_) continue;
      state.tooMany = true;
      return true;
    }
    return sum(zeroOrNan) == 0;
  }

  // Raises the row's threshold to the k-th largest lower bound and drops what does not reach it. `norms` are indexed by
  // position.
  void tighten(int64_t row, float margin, const float* norms) {
    State& state = states_[size_t(row)];
    if (state.count <= k_) return;
    float* upper = upperOf(row);
    uint32_t* positions = positionsOf(row);
    std::vector<float> lower(size_t(state.count + width));
    std::vector<uint32_t> places(size_t(state.count + width));
    for (int64_t i = 0; i < state.count; ++i) lower[size_t(i)] = upper[i] - 2 * margin * norms[positions[i]];
    state.threshold = std::max(state.threshold, keepLargest(lower.data(), places.data(), state.count, k_) - slack_);
    int64_t kept = 0;
    for (int64_t i = 0; i < state.count; ++i) {
      upper[kept] = upper[i];
      positions[kept] = positions[i];
      kept += upper[i] >= state.threshold;
    }
    state.count = kept;
  }

  int64_t count(int64_t row) const { return states_[size_t(row)].count; }
  bool tooMany(int64_t row) const { return states_[size_t(row)].tooMany; }
  float* upperOf(int64_t row) { return upper_.as<float>() + row * (capacity_ + width); }
  uint32_t* positionsOf(int64_t row) { return positions_.as<uint32_t>() + row * (capacity_ + width); }

 private:
  struct State {
    float threshold = -infinity;
    bool tooMany = false;
    int64_t count = 0;
  };
  int64_t k_, capacity_;
  float slack_;
  std::vector<State> states_;
  Block upper_, positions_;
};

struct ScreenTopKConsumer {
  const BrainRows& x;
  const float* biases;  // up to a multiple of screenPanel
  ScreenedRows& screened;
  std::atomic<bool> overflow{false};

  bool enough() const { return overflow.load(std::memory_order_relaxed); }
  void take(const ScreenTile& scores) {
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      if (!screened.offer(row, x.margin(row), scores.row(i), biases + scores.firstColumn, scores.norms,
                          scores.firstColumn, scores.columns))
        overflow.store(true);
    }
  }
};

// Whether screening pays: the bounds must part few features from many, and the candidates must not take much memory.
inline bool worthScreening(int64_t rows, int64_t features, int64_t depth, int64_t k) {
  return rows >= 64 && depth >= 64 && features >= 2048 && k <= 256 && k * 24 <= features;
}

// Fills `selected` for all rows of the chunk [first, first + rows) of x that could be screened, and returns the others,
// which are untouched. Where scores overflow, that is all rows.
inline std::vector<int64_t> screenTopK(Matrix<const float> x, int64_t first, int64_t rows, const RowSource& columns,
                                       const float* bias, int64_t k, RunningTopK<ByValue>& selected,
                                       Allocator& allocator, ThreadPool& pool) {
  const BrainRows packed(x, first, rows, "x", allocator, pool);
  std::vector<float> norms, biases(size_t(panelsFor(columns.count, screenPanel) * screenPanel), 0.0f);
  std::copy(bias, bias + columns.count, biases.begin());
  float largestBias = 0;
  for (const float b : biases) largestBias = std::max(largestBias, std::fabs(b));
  ScreenedRows screened(rows, k, 2 * roundingSlack(x.columns) * largestBias, allocator);
  ScreenTopKConsumer consumer{packed, biases.data(), screened};
  screenByBlocks(packed, columns, "encoder", norms, allocator, pool, consumer);

  std::vector<char> left(size_t(rows), 0);
  pool.forEachRange(rows, 16, [&](int64_t beginRow, int64_t endRow, int) {
    ExactScores exact(x.columns);
    for (int64_t row = beginRow; row < endRow; ++row) {
      if (screened.tooMany(row) || consumer.overflow.load()) {
        left[size_t(row)] = 1;
        continue;
      }
      screened.tighten(row, packed.margin(row), norms.data());
      const int64_t count = screened.count(row);
      float* scores = screened.upperOf(row);
      uint32_t* positions = screened.positionsOf(row);
      for (int64_t i = 0; i < count; ++i)
        exact.add(x.row(first + row), columns.row(positions[i]), bias[positions[i]], scores + i);
      exact.finish();
      if (count > k) keepLargest(scores, positions, count, k);
      selected.set(row, scores, positions, std::min(count, k));
    }
  });
  std::vector<int64_t> others;
  for (int64_t row = 0; row < rows; ++row)
    if (left[size_t(row)]) others.push_back(row);
  return others;
}

}  // namespace monosem::avx512
