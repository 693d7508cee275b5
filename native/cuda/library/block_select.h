// Selecting the k largest of some thousand keys by one block: of one row of scores.
//
// The k-th largest of the threads' own maxima is a bound that hardly more than k keys reach where a thread has few of
// them; those are ranked by comparing all with all. So each key is read twice, while a cut by digits or by bisection
// would count all of them again and again, and atomic operations are as many as keys reach the bound.
#pragma once

#include "cuda/library/warp.h"

namespace monosem::cuda {

// A block selects as many as a quarter of its threads, or at most half of them: the more, the lower is the bound.
constexpr unsigned threadsPerSelected = 4, fewestThreadsPerSelected = 2;
// The number of a key.
using KeyNumber = uint16_t;
constexpr int64_t mostKeys = int64_t(UINT16_MAX) + 1;

// The largest bound that at least k of the threads' keys reach, k at most their number. By all threads of a block.
__device__ inline uint32_t boundReachedBy(uint32_t k, uint32_t ownKey) {
  uint32_t low = 0, high = UINT32_MAX;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2 + 1, reaching = uint32_t(__syncthreads_count(ownKey >= middle));
    if (reaching == k) return middle;
    if (reaching > k)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// Of keys keyAt(i), i < count <= mostKeys, that are in the order (key descending, position ascending): store(i, place)
// for the first k, place from 0. By all threads of a block, whose number is a multiple of 32; `reaching` [count] and
// `reachingCount` are shared.
template <class KeyAt, class PositionAt, class Store>
__device__ inline void takeLargestByBlock(uint32_t count, uint32_t k, const KeyAt& keyAt, const PositionAt& positionAt,
                                          KeyNumber* reaching, uint32_t* reachingCount, const Store& store) {
  uint32_t own = 0;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) own = max(own, keyAt(i));
  if (threadIdx.x == 0) *reachingCount = 0;
  const uint32_t bound = boundReachedBy(k, own);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x)
    if (keyAt(i) >= bound) reaching[atomicAdd(reachingCount, 1u)] = KeyNumber(i);
  __syncthreads();
  const uint32_t candidates = *reachingCount;
  for (uint32_t candidate = threadIdx.x; candidate < candidates; candidate += blockDim.x) {
    const uint32_t i = reaching[candidate], key = keyAt(i), position = positionAt(i);
    uint32_t place = 0;
    constexpr uint32_t atOnce = 4;  // comparisons that do not wait for one another's loads
#pragma unroll 1
    for (uint32_t first = 0; first < candidates && place < k; first += atOnce) {
      uint32_t others[atOnce], otherKeys[atOnce], otherPositions[atOnce];
#pragma unroll
      for (uint32_t j = 0; j < atOnce; ++j) others[j] = reaching[min(first + j, candidates - 1)];
#pragma unroll
      for (uint32_t j = 0; j < atOnce; ++j) {
        otherKeys[j] = keyAt(others[j]);
        otherPositions[j] = positionAt(others[j]);
      }
#pragma unroll
      for (uint32_t j = 0; j < atOnce; ++j) {
        const bool isLarger = otherKeys[j] > key || (otherKeys[j] == key && otherPositions[j] < position);
        place += first + j < candidates && isLarger;
      }
    }
    if (place < k) store(i, place);
  }
}

}  // namespace monosem::cuda
