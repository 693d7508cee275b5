// Sampling a class from logits.
//
//   out[r] ~ softmax(logits[r] / temperature), restricted to the topK largest logits and then to the fewest of these
//            whose probability reaches topP (ties: the lower index first)
//
// One uniform number with 53 bits per row, from counter offset + r; the class is the first one at which the running sum
// of the candidates' weights exceeds this share of their total: in the order of their indices where nothing is cut,
// else from the largest logit down. Temperature 0: the largest logit, the lowest index among equals.
//
// The candidates are never sorted. Weights are whole numbers, multiples of a small part of the largest: their sums are
// exact in any order, so that a block can add up the classes above any logit, and bisect for the logit at which a
// running sum exceeds a target (see logitBeyond). As many passes as that takes, about twenty for a vocabulary, find
// where topK cuts, where topP cuts and which class is drawn; a cut only lowers the total. The passes are over the row
// until the logits that are left in question fit shared memory, and over those then.
#include <cmath>

#include "cuda/library/kernels.h"
#include "cuda/library/philox.h"
#include "cuda/library/radix_select.h"
#include "cuda/library/row_blocks.h"

namespace monosem::cuda {
namespace {

using Weight = unsigned long long;  // as atomicAdd takes it

// e^((logit - largest) / temperature) as a multiple of 1 / unit; the largest logit's is 1.
struct Weights {
  float largest, inverseTemperature, unit;

  __device__ Weight operator()(float logit) const {
    const float weight = logit == largest ? 1.0f : expf((logit - largest) * inverseTemperature);
    return weight > 0 ? Weight(weight * unit) : 0;
  }
};

// So many logits are copied to shared memory at most, of rows that are much longer.
constexpr int64_t mostCopied = 2048;

// What the threads of a block share.
struct Shared {
  Weight sums[mostRowThreads / warpSize_];  // of the warps
  Weight sum;
  uint32_t largest, nearestAbove, nearestBelow, above, below;
  uint32_t copiedCount;
  float copied[mostCopied];
};

// A row of logits, without NaN and +infinity, or those of them that matter, seen by all threads of a block.
class Row {
 public:
  __device__ Row(const float* logits, int64_t columns, Shared& shared)
      : logits_(logits), columns_(columns), shared_(&shared) {}

  // The sum of measure(logit) over the row; of -infinity it is 0.
  template <class Measure>
  __device__ Weight total(const Measure& measure) const {
    Weight sum = 0;
    forEachGroup(logits_, columns_, [&](const float(&logits)[groupSize], const int64_t(&)[groupSize]) {
#pragma unroll
      for (int i = 0; i < groupSize; ++i) sum += measure(logits[i]);
    });
    shareSumOfWarp(sum);
    const Weight total = sumOfWarpsBefore(blockDim.x / warpSize_);
    __syncthreads();
    return total;
  }

  struct Place {
    float logit;
    Weight before;  // the running sum over all larger logits
  };
  // The logit at which the running sum of measure(logit), from `largest` down, exceeds `target`, which the sum over all
  // classes does.
  //
  // It lies between low and high; the interval is halved, in the order of the floats' bits, and then shrunk to logits
  // that exist, until one is left. Takes the place of what was copied.
  template <class Measure>
  __device__ Place logitBeyond(Weight target, float largest, const Measure& measure) const {
    Interval interval{orderedKey(-INFINITY), orderedKey(largest), 0};
    bool areFew = false;
    while (interval.low < interval.high && !areFew) {
      const uint32_t left = narrow(interval, target, measure);
      areFew = isLong() && left <= mostCopied;
    }
    if (interval.low < interval.high) {
      const Row few = copied(interval.low, interval.high);
      while (interval.low < interval.high) few.narrow(interval, target, measure);
    }
    return {fromOrderedKey(interval.low), interval.before};
  }

  // The logits from `least` on; all where those are too many to be copied. Takes the place of what was copied before.
  __device__ Row from(float least) const {
    if (!isLong()) return *this;
    const Row few = copied(orderedKey(least), UINT32_MAX);
    return few.columns_ <= mostCopied ? few : *this;
  }

  // Stores the first class, in the order of the indices, at which the running sum of measure(logit) exceeds `target`,
  // which the sum over all classes does. Every warp adds up one stretch of the row; the one in whose stretch the class
  // lies goes through it again, 32 classes at a time.
  template <class Measure>
  __device__ void storeClassBeyond(Weight target, const Measure& measure, int32_t* chosen) const {
    const int64_t warps = blockDim.x / warpSize_, stretch = (columns_ + warps - 1) / warps;
    const int64_t begin = warpOf() * stretch, end = min(columns_, begin + stretch);
    Weight sum = 0;
    for (int64_t c = begin + laneOf(); c < end; c += groupSize * warpSize_) {
      float logits[groupSize];
#pragma unroll
      for (int i = 0; i < groupSize; ++i) logits[i] = logits_[min(c + i * warpSize_, columns_ - 1)];
#pragma unroll
      for (int i = 0; i < groupSize; ++i) sum += c + i * warpSize_ < end ? measure(logits[i]) : 0;
    }
    sum = shareSumOfWarp(sum);
    Weight before = sumOfWarpsBefore(warpOf());
    if (before <= target && target < before + sum) {
#pragma unroll 1
      for (int64_t first = begin; before <= target; first += warpSize_) {
        const int64_t c = first + laneOf();
        const Weight own = c < end ? measure(logits_[c]) : 0;
        const Weight beforeOwn = before + warpExclusiveSum(own);
        if (beforeOwn <= target && target < beforeOwn + own) *chosen = int32_t(c);
        before = __shfl_sync(allLanes, beforeOwn + own, warpSize_ - 1);
      }
    }
    __syncthreads();
  }

 private:
  struct Interval {
    uint32_t low, high;  // keys; the one that is looked for is among them
    Weight before;       // the running sum over all above high
  };

  __device__ bool isLong() const {
    return columns_ > 2 * mostCopied;
  }

  // One halving; returns how many logits are left in the interval.
  template <class Measure>
  __device__ uint32_t narrow(Interval& interval, Weight target, const Measure& measure) const {
    const uint32_t low = interval.low, high = interval.high;
    const Weight before = interval.before;
    const uint32_t middle = high - (high - low) / 2;  // above low
    if (threadIdx.x == 0) {
      shared_->sum = 0;
      shared_->nearestAbove = high;
      shared_->nearestBelow = low;
      shared_->above = shared_->below = 0;
    }
    __syncthreads();
    Weight sum = 0;
    uint32_t nearestAbove = high, nearestBelow = low, above = 0, below = 0;
    forEachGroup(logits_, columns_, [&](const float(&logits)[groupSize], const int64_t(&places)[groupSize]) {
#pragma unroll
      for (int i = 0; i < groupSize; ++i) {
        const uint32_t key = orderedKey(logits[i]);
        if (key < middle) {
          nearestBelow = max(nearestBelow, key);
          below += key >= low && places[i] < columns_;
        } else if (key <= high) {
          nearestAbove = min(nearestAbove, key);
          ++above;
          sum += measure(logits[i]);
        }
      }
    });
    sum = warpSum(sum);
    above = warpSum(above);
    below = warpSum(below);
    if (laneOf() == 0) {
      atomicAdd(&shared_->sum, sum);
      atomicAdd(&shared_->above, above);
      atomicAdd(&shared_->below, below);
    }
    if (nearestAbove < high) atomicMin(&shared_->nearestAbove, nearestAbove);
    if (nearestBelow > low) atomicMax(&shared_->nearestBelow, nearestBelow);
    __syncthreads();
    const bool isAbove = before + shared_->sum > target;
    if (isAbove)
      interval.low = shared_->nearestAbove;
    else
      interval = {low, shared_->nearestBelow, before + shared_->sum};
    const uint32_t left = isAbove ? shared_->above : shared_->below;
    __syncthreads();
    return left;
  }

  // The logits with these keys, in any order, in shared memory; of more than fit, their number alone is right.
  __device__ Row copied(uint32_t low, uint32_t high) const {
    if (threadIdx.x == 0) shared_->copiedCount = 0;
    __syncthreads();
    forEachGroup(logits_, columns_, [&](const float(&logits)[groupSize], const int64_t(&places)[groupSize]) {
#pragma unroll
      for (int i = 0; i < groupSize; ++i) {
        const uint32_t key = orderedKey(logits[i]);
        if (key < low || key > high || places[i] >= columns_) continue;
        const uint32_t place = atomicAdd(&shared_->copiedCount, 1u);
        if (place < mostCopied) shared_->copied[place] = logits[i];
      }
    });
    __syncthreads();
    const uint32_t count = shared_->copiedCount;
    __syncthreads();
    return {shared_->copied, count, *shared_};
  }

  // The sum over the warp, which all threads of the block see after it.
  __device__ Weight shareSumOfWarp(Weight sum) const {
    sum = warpSum(sum);
    if (laneOf() == 0) shared_->sums[warpOf()] = sum;
    __syncthreads();
    return sum;
  }
  __device__ Weight sumOfWarpsBefore(unsigned end) const {
    Weight sum = 0;
    for (unsigned warp = 0; warp < end; ++warp) sum += shared_->sums[warp];
    return sum;
  }

  const float* logits_;
  int64_t columns_;
  Shared* shared_;
};

// A block per row of logits [rows, columns]. `unit`: the weight of the largest logit, a power of two so that a sum over
// all columns fits.
__global__ void __launch_bounds__(mostRowThreads)
    sampleKernel(Rows logits, Sampling sampling, float unit, int32_t* out, LateFailureNote* failureNote) {
  __shared__ Shared shared;
  FOR_EACH_ROW(r, logits.rows) {
    const int64_t columns = logits.columns;
    const float* row = logits.data + r * columns;
    if (threadIdx.x == 0) shared.largest = 0;
    __syncthreads();
    uint32_t largestKey = 0;
    forEachGroup(row, columns, [&](const float(&logits)[groupSize], const int64_t(&)[groupSize]) {
#pragma unroll
      for (int i = 0; i < groupSize; ++i)
        largestKey = max(largestKey, logits[i] == logits[i] ? orderedKey(logits[i]) : UINT32_MAX);
    });
    atomicMax(&shared.largest, largestKey);
    __syncthreads();
    largestKey = shared.largest;
    __syncthreads();
    if (largestKey >= orderedKey(INFINITY) || largestKey <= orderedKey(-INFINITY)) {
      if (threadIdx.x == 0) {
        out[r] = 0;  // a class, should somebody read on
        noteFailure(failureNote, LateFailure::logitsNotFinite, r);
      }
      continue;
    }

    const float largest = fromOrderedKey(largestKey);
    const Row classes(row, columns, shared);
    if (sampling.temperature == 0) {
      classes.storeClassBeyond(
          0, [&](float logit) { return Weight(logit == largest); }, out + r);
      continue;
    }
    const Weights weights{largest, float(1 / sampling.temperature), unit};
    const bool cutK = sampling.topK > 0 && sampling.topK < columns, cutP = sampling.topP < 1;
    Weight total;
    Row candidates = classes;  // those that matter, and perhaps others
    if (cutK) {
      const auto last = classes.logitBeyond(Weight(sampling.topK) - 1, largest, [](float) { return Weight(1); });
      candidates = classes.from(last.logit);
      total = candidates.total([&](float logit) { return logit > last.logit ? weights(logit) : 0; }) +
              (Weight(sampling.topK) - last.before) * weights(last.logit);
    } else {
      total = classes.total(weights);
    }
    if (cutP) {
      const Weight enough = max(Weight(1), min(total, Weight(ceil(sampling.topP * double(total)))));
      const auto last = candidates.logitBeyond(enough - 1, largest, weights);
      const Weight own = weights(last.logit);
      total = last.before + (enough - last.before + own - 1) / own * own;
    }
    const RandomWords words = randomWords(sampling.seed, sampling.offset + uint64_t(r));
    const double uniform = double((uint64_t(words.word[1]) << 32 | words.word[0]) >> 11) * 0x1p-53;
    const Weight target = min(total - 1, Weight(uniform * double(total)));
    if (!cutK && !cutP) {
      classes.storeClassBeyond(target, weights, out + r);
    } else {
      const auto chosen = candidates.logitBeyond(target, largest, weights);
      const Weight equalsBefore = (target - chosen.before) / weights(chosen.logit);
      classes.storeClassBeyond(
          equalsBefore, [&](float logit) { return Weight(logit == chosen.logit); }, out + r);
    }
  }
}

}  // namespace

void sample(Context& gpu, Rows logits, Sampling sampling, Vector<int32_t> out) {
  int bits = 62;
  for (int64_t columns = logits.columns; columns > 0; columns /= 2) --bits;
  launch(gpu, sampleKernel, blockPerRow(logits.rows, logits.columns), logits, sampling, std::ldexp(1.0f, bits),
         out.data, gpu.failureNote());
}

}  // namespace monosem::cuda
