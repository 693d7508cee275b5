// The k largest of many scores per row, exact, while the scores go by strip after strip.
//
// A row keeps the candidates seen so far and a threshold: the k-th largest when it was last determined. Only scores
// above it are appended (a whole vector is dismissed with one comparison); when the row's buffer is full, the k largest
// are selected and the threshold rises. About k * (1 + ln(n / k)) of n scores in random order become candidates.
//
// Scores are compared by value or by magnitude. Ties: positions are offered in ascending order, so that a score equal
// to the threshold comes after k others that are at least as large, and loses, as (score descending, position
// ascending) demands. -0 equals 0.
#pragma once

#include "cpu/generic/matrix_product.h"

namespace monosem::MONOSEM_ISA {

// A strictly increasing map between floats and integers (but -0 lies below 0), its own inverse on the bits.
inline int32_t orderedKey(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
inline float fromOrderedKey(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// By what scores are compared. -infinity, which fills up vectors, comes last in either.
struct ByValue {
  static Floats rank(Floats score) { return score; }
  static float rank(float score) { return score; }
};
struct ByMagnitude {
  static Floats rank(Floats score) {
    const Floats magnitude = max(score, zeros() - score);
    return select(broadcast(infinity) > magnitude, magnitude, broadcast(-infinity));
  }
  static float rank(float score) { return score == -infinity ? score : std::fabs(score); }
};

// Moves the k largest of `count` > k finite scores, with their positions, to the front, in the order in which they
// stood; among equals the first ones win. Returns the smallest rank kept. Both arrays have room for one more vector.
//
// Bisects on the ordered key: a few dozen scores per comparison, and it ends as soon as a threshold parts exactly k.
template <class Order = ByValue>
inline float keepLargest(float* scores, uint32_t* positions, int64_t count, int64_t k) {
  for (int lane = 0; lane < width; ++lane) scores[count + lane] = -infinity;
  const auto rankAt = [&](int64_t i) { return Order::rank(load(scores + i)); };
  Floats largest = rankAt(0), negatedSmallest = broadcast(-Order::rank(scores[0]));
  for (int64_t i = 0; i < count; i += width) largest = max(largest, rankAt(i));
  for (int64_t i = 0; i + width <= count; i += width) negatedSmallest = max(negatedSmallest, zeros() - rankAt(i));
  float smallest = -maximum(negatedSmallest);
  for (int64_t i = count / width * width; i < count; ++i) smallest = std::min(smallest, Order::rank(scores[i]));

  const auto countFrom = [&](Floats threshold) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i += width) found += __builtin_popcount(maskBits(rankAt(i) >= threshold));
    return found;
  };
  // Invariant: at least k scores are >= low, fewer than k are > high.
  int64_t low = orderedKey(smallest), high = orderedKey(maximum(largest));
  int64_t foundFromLow = count;
  while (low < high && foundFromLow != k) {
    const int64_t middle = low + (high - low + 1) / 2;
    const int64_t found = countFrom(broadcast(fromOrderedKey(int32_t(middle))));
    if (found >= k) {
      low = middle;
      foundFromLow = found;
    } else {
      high = middle - 1;
    }
  }

  const float threshold = fromOrderedKey(int32_t(low));
  int64_t kept = 0;
  if (foundFromLow == k) {
    Floats negatedSmallestKept = broadcast(-infinity);
    for (int64_t i = 0; i < count; i += width) {
      const Floats score = load(scores + i);
      const Ints position = loadInts(reinterpret_cast<const int32_t*>(positions + i));
      const Floats rank = Order::rank(score);
      const Mask keep = rank >= broadcast(threshold);
      negatedSmallestKept = max(negatedSmallestKept, select(keep, zeros() - rank, broadcast(-infinity)));
      compressStore(scores + kept, score, keep);
      kept += compressStore(positions + kept, position, keep);
    }
    return -maximum(negatedSmallestKept);
  }
  // Equal scores straddle the cut: `threshold` is the k-th largest, and only the first of those equal to it are kept.
  int64_t above = 0;
  for (int64_t i = 0; i < count; ++i) above += Order::rank(scores[i]) > threshold;
  int64_t equalsLeft = k - above;
  for (int64_t i = 0; i < count && kept < k; ++i) {
    const float rank = Order::rank(scores[i]);
    if (!(rank > threshold) && !(rank == threshold && equalsLeft-- > 0)) continue;
    scores[kept] = scores[i];
    positions[kept++] = positions[i];
  }
  return threshold;
}

// The running selection of a number of rows. Different rows may be used by different threads at once.
template <class Order = ByValue>
class RunningTopK {
 public:
  RunningTopK(int64_t rows, int64_t k, int64_t eligible, Allocator& allocator)
      : k_(k), capacity_(candidatesPerRow(k, eligible)) {
    scores_ = allocator.allocateArray<float>(rows * (capacity_ + width));
    positions_ = allocator.allocateArray<uint32_t>(rows * (capacity_ + width));
    states_.resize(size_t(rows));
  }

  // Bytes that one row takes.
  static int64_t bytesPerRow(int64_t k, int64_t eligible) { return 8 * (candidatesPerRow(k, eligible) + width); }

  // Fetches what offer() will touch.
  void expect(int64_t firstRow, int rows) const {
    for (int64_t row = firstRow; row < firstRow + rows; ++row) {
      const int64_t end = row * (capacity_ + width) + states_[size_t(row)].count;
      prefetchForWrite(scores_.as<const float>() + end);
      prefetchForWrite(positions_.as<const uint32_t>() + end);
    }
  }

  // The scores of positions [firstPosition, firstPosition + count), which continue those offered before; whole vectors
  // are read, and what lies beyond `count` holds -infinity. Returns whether all of them are finite.
  bool offer(int64_t row, const float* scores, int64_t firstPosition, int count) {
    Candidates candidates{scoresOf(row), positionsOf(row), states_[size_t(row)].count, states_[size_t(row)].threshold};
    Floats zeroOrNan = zeros();
    int i = 0;
    for (; i + group * width <= count; i += group * width) {
      const Floats a = load(scores + i), b = load(scores + i + width);
      const Floats c = load(scores + i + 2 * width), d = load(scores + i + 3 * width);
      zeroOrNan = fma(zeros(), (a + b) + (c + d), zeroOrNan);
      const Floats largest = max(max(Order::rank(a), Order::rank(b)), max(Order::rank(c), Order::rank(d)));
      if (maskBits(largest > broadcast(candidates.threshold))) append<group>(candidates, scores + i, firstPosition + i);
    }
    const bool finite = sum(zeroOrNan) == 0 && allFinite(scores + i, count - i);
    for (; i < count; i += width) append<1>(candidates, scores + i, firstPosition + i);
    states_[size_t(row)] = {candidates.threshold, candidates.count};
    return finite;
  }

  // Cuts the row down to its k largest, positions ascending, and returns how many there are.
  int64_t finish(int64_t row) {
    State& state = states_[size_t(row)];
    if (state.count > k_) {
      keepLargest<Order>(scoresOf(row), positionsOf(row), state.count, k_);
      state.count = k_;
    }
    return state.count;
  }
  // Gives a row its selection from elsewhere: count <= k, positions ascending.
  void set(int64_t row, const float* scores, const uint32_t* positions, int64_t count) {
    std::copy(scores, scores + count, scoresOf(row));
    std::copy(positions, positions + count, positionsOf(row));
    states_[size_t(row)].count = count;
  }
  float* scoresOf(int64_t row) { return scores_.as<float>() + row * (capacity_ + width); }
  uint32_t* positionsOf(int64_t row) { return positions_.as<uint32_t>() + row * (capacity_ + width); }

 private:
  static constexpr int group = 4;  // vectors that are dismissed together: late in a row nearly all are

  struct State {
    float threshold = -infinity;
    int64_t count = 0;
  };

  struct Candidates {
    float* scores;
    uint32_t* positions;
    int64_t count;
    float threshold;
  };

  // Takes those of some vectors of scores that are above the threshold. Late in a row few groups get here, but hardly
  // any with just one vector to take from, so that no vector is worth a branch of its own.
  template <int vectors>
  inline __attribute__((always_inline)) void append(Candidates& candidates, const float* scores,
                                                    int64_t firstPosition) {
    if (candidates.count + vectors * width > capacity_) {
      candidates.threshold = keepLargest<Order>(candidates.scores, candidates.positions, candidates.count, k_);
      candidates.count = k_;
    }
    const Floats threshold = broadcast(candidates.threshold);
    for (int v = 0; v < vectors; ++v) {
      const Floats score = load(scores + v * width);
      const Mask above = Order::rank(score) > threshold;
      compressStore(candidates.scores + candidates.count, score, above);
      candidates.count += compressStore(candidates.positions + candidates.count,
                                        laneIndices() + broadcastInt(int32_t(firstPosition + v * width)), above);
    }
  }

  // Twice k, so that a selection pays for itself, and never fewer than 64; with room for one more group.
  static int64_t candidatesPerRow(int64_t k, int64_t eligible) {
    return std::min(eligible, std::max<int64_t>(2 * k, 64)) + group * width;
  }

  int64_t k_;
  int64_t capacity_;
  Block scores_;     // [rows, capacity + width]
  Block positions_;  // the same
  std::vector<State> states_;
};

}  // namespace monosem::MONOSEM_ISA
