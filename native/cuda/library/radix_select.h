// Selecting the k largest of many floats exactly, by the digits of their bits.
//
// Floats become unsigned integers of the same order. Digit after digit, from the top, a histogram of those that share
// the digits so far tells the next digit of the k-th largest. What is selected follows from the values and the order of
// their places alone: among equals the first ones win.
#pragma once

#include "cuda/library/warp.h"

namespace monosem::cuda {

// A strictly increasing map from floats to integers; -0 equals 0. No finite float is mapped to 0.
__device__ inline uint32_t orderedKey(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);  // makes 0 of -0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float fromOrderedKey(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

// By what scores are compared.
struct ByValue {
  __device__ static float rank(float score) { return score; }
};
struct ByMagnitude {
  __device__ static float rank(float score) { return fabsf(score); }
};

// Parts the k largest from the rest: taken are those whose rank's key is larger than `key`, and the first `equals` of
// those that have it.
struct Cut {
  uint32_t key;
  uint32_t equals;
};
// Takes all that is finite.
constexpr Cut takeEverything{0, 0};

// The digit in which the number with a given rank stands: how many stand in it and in larger ones.
struct Digit {
  uint32_t value, count, larger;
};

// The digit of the number that is the rank-th largest, counted from 1, of those in the histogram. By a whole warp.
template <unsigned bins>
__device__ inline Digit digitOfRank(const uint32_t* histogram, uint32_t rank) {
  constexpr unsigned binsPerLane = bins / warpSize_;  // the first lane has the largest digits
  const uint32_t* mine = histogram + (warpSize_ - 1 - laneOf()) * binsPerLane;
  uint32_t count = 0;
  for (unsigned bin = 0; bin < binsPerLane; ++bin) count += mine[bin];
  Digit digit{0, 0, warpExclusiveSum(count)};
  const bool isMine = digit.larger < rank && rank <= digit.larger + count;
  if (isMine) {
    unsigned bin = binsPerLane - 1;
    while (digit.larger + mine[bin] < rank) digit.larger += mine[bin--];
    digit.value = unsigned(mine - histogram) + bin;
    digit.count = mine[bin];
  }
  const int holder = __ffs(int(__ballot_sync(allLanes, isMine))) - 1;
  return {__shfl_sync(allLanes, digit.value, holder), __shfl_sync(allLanes, digit.count, holder),
          __shfl_sync(allLanes, digit.larger, holder)};
}

// ---- By one warp

constexpr unsigned warpDigitBits = 8, warpHistogramBins = 1u << warpDigitBits;

// Where the k largest of count > k > 0 scores end, scoreAt(i) for i < count. By a whole warp, with a histogram in
// shared memory of its own.
//
// The digits are those of the keys' distances from the smallest one, from the highest bit that the largest distance
// has: so the first digit spreads scores of any range over the bins, and mostly the second parts exactly k, which ends
// it. Reads the scores once for their range and once for each of at most four digits.
template <class Order, class ScoreAt>
__device__ inline Cut findCut(const ScoreAt& scoreAt, uint32_t count, uint32_t k, uint32_t* histogram) {
  constexpr unsigned atOnce = 4;  // loads under way
  const auto keyAt = [&](uint32_t i) { return orderedKey(Order::rank(scoreAt(i))); };
  uint32_t smallest = UINT32_MAX, largest = 0;
#pragma unroll 4
  for (uint32_t i = laneOf(); i < count; i += warpSize_) {
    const uint32_t key = keyAt(i);
    smallest = min(smallest, key);
    largest = max(largest, key);
  }
  smallest = ~warpMax(~smallest);
  largest = warpMax(largest);

  uint32_t prefix = 0;
  unsigned end = largest > smallest ? 32 - __clz(int(largest - smallest)) : 1;  // the lowest bit of the digit before
  while (true) {
    const unsigned bits = min(end, warpDigitBits), shift = end - bits;
    for (unsigned bin = laneOf(); bin < warpHistogramBins; bin += warpSize_) histogram[bin] = 0;
    __syncwarp();
    for (uint32_t first = laneOf(); first < count; first += atOnce * warpSize_) {
      uint32_t digits[atOnce];  // too large where an earlier digit differs
#pragma unroll
      for (unsigned j = 0; j < atOnce; ++j) {
        const uint32_t i = first + j * warpSize_;
        digits[j] = i < count ? ((keyAt(i) - smallest) ^ prefix) >> shift : warpHistogramBins;
      }
#pragma unroll
      for (unsigned j = 0; j < atOnce; ++j)
        if (digits[j] >> bits == 0) atomicAdd(&histogram[digits[j]], 1u);
    }
    __syncwarp();
    const Digit digit = digitOfRank<warpHistogramBins>(histogram, k);
    __syncwarp();
    prefix |= digit.value << shift;
    k -= digit.larger;
    if (digit.count == k) return {smallest + prefix - 1, 0};  // not all are taken: prefix is not 0
    if (shift == 0) return {smallest + prefix, k};
    end = shift;
  }
}

// Hands what a cut takes of `count` entries to store(entry, place), places counted from 0 in the entries' order, and
// returns how many that are. load(i) gives an entry, which has a `score`; everything that is stored to places up to i
// is stored after entry i has been loaded. By a whole warp.
template <class Order, class Load, class Store>
__device__ inline uint32_t takeLargest(uint32_t count, Cut cut, const Load& load, const Store& store) {
  const unsigned lanesBefore = (1u << laneOf()) - 1;
  uint32_t taken = 0;
  for (uint32_t first = 0; first < count; first += warpSize_) {
    const uint32_t i = first + laneOf();
    const bool inside = i < count;
    const auto entry = load(inside ? i : count - 1);
    const uint32_t key = orderedKey(Order::rank(entry.score));
    bool takes = inside && key > cut.key;
    if (cut.equals > 0) {
      const unsigned allEquals = __ballot_sync(allLanes, inside && key == cut.key);
      takes = takes || (inside && key == cut.key && uint32_t(__popc(allEquals & lanesBefore)) < cut.equals);
      cut.equals -= min(cut.equals, uint32_t(__popc(allEquals)));
    }
    const unsigned allTaken = __ballot_sync(allLanes, takes);
    __syncwarp();
    if (takes) store(entry, taken + __popc(allTaken & lanesBefore));
    taken += __popc(allTaken);
  }
  return taken;
}

}  // namespace monosem::cuda
