// What the threads of a warp, and of a block, do together. Every function here must be called by all threads of the
// warp (of the block, where it says so).
#pragma once

#include "cuda/library/gpu.h"

namespace monosem::cuda {

constexpr unsigned warpSize_ = 32;
constexpr unsigned allLanes = 0xffffffffu;

__device__ inline unsigned laneOf() {
  return threadIdx.x % warpSize_;
}
__device__ inline unsigned warpOf() {
  return threadIdx.x / warpSize_;
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

// Over the lanes, in all of them; the order in which values are combined is fixed.
template <class T, class Operation>
__device__ inline T warpReduce(T value, Operation operation) {
  for (unsigned offset = warpSize_ / 2; offset > 0; offset /= 2)
    value = operation(value, __shfl_xor_sync(allLanes, value, offset));
  return value;
}
template <class T>
__device__ inline T warpSum(T value) {
  return warpReduce(value, Sum());
}
template <class T>
__device__ inline T warpMax(T value) {
  return warpReduce(value, Larger());
}
// Of all lanes before this one.
template <class T>
__device__ inline T warpExclusiveSum(T value) {
  const T own = value;
  for (unsigned offset = 1; offset < warpSize_; offset *= 2) {
    const T other = __shfl_up_sync(allLanes, value, offset);
    if (laneOf() >= offset) value += other;
  }
  return value - own;
}

// Over the block's threads, in all of them, in a fixed order; `neutral` changes nothing. `scratch`: 33 elements of
// shared memory, free again when it returns. Called by all threads of the block, whose number is a multiple of 32.
template <class T, class Operation>
__device__ inline T blockReduce(T value, T neutral, T* scratch, Operation operation) {
  value = warpReduce(value, operation);
  if (blockDim.x == warpSize_) {
    __syncwarp();  // a barrier like the others'
    return value;
  }
  if (laneOf() == 0) scratch[warpOf()] = value;
  __syncthreads();
  if (warpOf() == 0) {
    const T ofWarp = laneOf() < blockDim.x / warpSize_ ? scratch[laneOf()] : neutral;
    const T all = warpReduce(ofWarp, operation);
    if (laneOf() == 0) scratch[warpSize_] = all;
  }
  __syncthreads();
  const T all = scratch[warpSize_];
  __syncthreads();
  return all;
}
template <class T>
__device__ inline T blockSum(T value, T* scratch) {
  return blockReduce(value, T(0), scratch, Sum());
}
template <class T>
__device__ inline T blockMax(T value, T* scratch) {
  return blockReduce(value, value, scratch, Larger());  // what a thread has is in the maximum anyway
}
// Of all threads of the block before this one; `total`, if given, is the sum of all.
template <class T>
__device__ inline T blockExclusiveSum(T value, T* scratch, T* total = nullptr) {
  const T before = warpExclusiveSum(value);
  if (laneOf() == warpSize_ - 1) scratch[warpOf()] = before + value;
  __syncthreads();
  if (warpOf() == 0) {
    const unsigned warps = blockDim.x / warpSize_;
    const T ofWarp = laneOf() < warps ? scratch[laneOf()] : T(0);
    const T beforeWarp = warpExclusiveSum(ofWarp);
    if (laneOf() < warps) scratch[laneOf()] = beforeWarp;
    if (laneOf() == warpSize_ - 1) scratch[warpSize_] = beforeWarp + ofWarp;
  }
  __syncthreads();
  const T result = scratch[warpOf()] + before;
  if (total) *total = scratch[warpSize_];
  __syncthreads();
  return result;
}

__device__ inline bool isFinite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

// A kernel's way to fail; the numbers are those that LateFailure says. The first one to note something is heard.
__device__ inline void noteFailure(LateFailureNote* note, LateFailure failure, int64_t position = 0, double number = 0,
                                   int64_t count = 0) {
  if (atomicCAS(&note->failure, uint32_t(LateFailure::none), uint32_t(failure)) != uint32_t(LateFailure::none)) return;
  note->position = position;
  note->number = number;
  note->count = count;
}

}  // namespace monosem::cuda
