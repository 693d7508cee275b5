// Random numbers and permutations from the counter-based generator: those of cpu/generic/random.h.
#include <cmath>

#include "cuda/library/kernels.h"
#include "cuda/library/pack.h"
#include "cuda/library/philox.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

// Four numbers from the four words of a counter.
using Numbers = Pack<float, 4>;

// low + (high - low) * u, where u has 24 random bits: in [low, high).
struct Uniform {
  float low, high;
  __device__ Numbers operator()(const RandomWords& words) const {
    Numbers numbers;
    for (int i = 0; i < 4; ++i) numbers.at[i] = fmaf(high - low, float(words.word[i] >> 8) * 0x1p-24f, low);
    return numbers;
  }
};

// Box and Muller: words 2j and 2j + 1 give the pair r cos(phi), r sin(phi). In double, as float has too few numbers
// near 0 for the tails.
struct Normal {
  float standardDeviation;
  __device__ Numbers operator()(const RandomWords& words) const {
    Numbers numbers;
    for (int i = 0; i < 4; i += 2) {
      const double unit = (double(words.word[i]) + 1) * 0x1p-32;  // in (0, 1]
      const double radius = sqrt(-2 * log(unit));
      double sine, cosine;
      sincospi(double(words.word[i + 1]) * 0x1p-31, &sine, &cosine);
      numbers.at[i] = standardDeviation * float(radius * cosine);
      numbers.at[i + 1] = standardDeviation * float(radius * sine);
    }
    return numbers;
  }
};

// out[i] = number (offset + i) % 4 of counter (offset + i) / 4. A thread takes a counter at a time.
template <class Draw>
__global__ void __launch_bounds__(256)
    drawKernel(Draw draw, uint64_t seed, uint64_t offset, Vector<float> out, bool packs) {
  const int64_t skipped = int64_t(offset % 4);  // numbers of the first counter
  FOR_EACH_ELEMENT(counter, (skipped + out.size + 3) / 4) {
    const Numbers numbers = draw(randomWords(seed, offset / 4 + uint64_t(counter)));
    const int64_t first = 4 * counter - skipped;
    if (packs && first + 4 <= out.size) {
      storePack(out.data + first, numbers);
    } else {
      for (int i = 0; i < 4; ++i)
        if (first + i >= 0 && first + i < out.size) out.data[first + i] = numbers.at[i];
    }
  }
}

template <class Draw>
void drawNumbers(Context& gpu, const Draw& draw, uint64_t seed, uint64_t offset, Vector<float> out) {
  if (out.size == 0) return;
  launch(gpu, drawKernel<Draw>, elementwise(gpu, out.size / 4 + 2), draw, seed, offset, out,
         packsAt(out.data) && offset % 4 == 0);
}

// ---- Permutations
//
// The permutation is Fisher and Yates': for i = size - 1, ..., 1 swap out[i] and out[pick(i)], where pick(i) <= i comes
// from the words of counter offset + i. The picks are known beforehand, and swaps of different places can be done
// together (Shun et al. 2015, "Sequential random permutation, list contraction and tree contraction are highly
// parallel"): in a round, every swap that is left reserves its two places; those that got both, against all swaps that
// come before them in the sequence (that is, of larger i), are done. What comes out is what the sequence would have
// given, after a number of rounds that grows with the logarithm of the size.

struct Swaps {
  int32_t* pick;                    // [size]; `done` where the swap is done
  unsigned long long* reservation;  // [size], of a place: the largest (round << 32 | i) that asked for it
};

constexpr int32_t done = -1;

__device__ inline unsigned long long ticket(uint32_t round, int64_t i) {
  return static_cast<unsigned long long>(round) << 32 | static_cast<unsigned long long>(i);
}

// out[i] = i; pick(i) is 64 random bits, scaled to [0, i].
__global__ void drawSwapsKernel(uint64_t seed, uint64_t offset, Vector<int32_t> out, Swaps swaps) {
  FOR_EACH_ELEMENT(i, out.size) {
    const RandomWords words = randomWords(seed, offset + uint64_t(i));
    // (bits * (i + 1)) >> 64, by halves
    const uint64_t bound = uint64_t(i) + 1;
    const uint64_t pick = (uint64_t(words.word[1]) * bound + ((uint64_t(words.word[0]) * bound) >> 32)) >> 32;
    out.data[i] = int32_t(i);
    swaps.pick[i] = i > 0 ? int32_t(pick) : done;
    swaps.reservation[i] = 0;
  }
}

__device__ inline void reserve(const Swaps& swaps, uint32_t round, int64_t i) {
  const int32_t pick = swaps.pick[i];
  if (pick == done) return;
  atomicMax(swaps.reservation + i, ticket(round, i));
  atomicMax(swaps.reservation + pick, ticket(round, i));
}

// Does swap i if it has both its places.
__device__ inline void swapReserved(const Swaps& swaps, uint32_t round, int64_t i, int32_t* out) {
  const int32_t pick = swaps.pick[i];
  if (pick == done) return;
  if (swaps.reservation[i] != ticket(round, i) || swaps.reservation[pick] != ticket(round, i)) return;
  const int32_t moved = out[i];
  out[i] = out[pick];
  out[pick] = moved;
  swaps.pick[i] = done;
}

__global__ void reserveKernel(Swaps swaps, uint32_t round, int64_t size) {
  FOR_EACH_ELEMENT(i, size) reserve(swaps, round, i);
}
__global__ void swapReservedKernel(Swaps swaps, uint32_t round, Vector<int32_t> out) {
  FOR_EACH_ELEMENT(i, out.size) swapReserved(swaps, round, i, out.data);
}

// Does the swaps that are left, by one block. It lists them first, in `left` [size], in any order.
__global__ void __launch_bounds__(1024)
    finishSwapsKernel(Swaps swaps, uint32_t firstRound, Vector<int32_t> out, int32_t* left) {
  __shared__ unsigned counted;
  if (threadIdx.x == 0) counted = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < out.size; i += blockDim.x)
    if (swaps.pick[i] != done) left[atomicAdd(&counted, 1u)] = int32_t(i);
  __syncthreads();
  const unsigned count = counted;
  bool any = true;
  for (uint32_t round = firstRound; any; ++round) {
    for (unsigned swap = threadIdx.x; swap < count; swap += blockDim.x) reserve(swaps, round, left[swap]);
    __syncthreads();
    bool mine = false;
    for (unsigned swap = threadIdx.x; swap < count; swap += blockDim.x) {
      swapReserved(swaps, round, left[swap], out.data);
      mine = mine || swaps.pick[left[swap]] != done;
    }
    any = __syncthreads_or(mine);
  }
}

// Rounds by the whole device, after which a few thousand swaps are left: four rounds do two thirds of them.
uint32_t wideRounds(int64_t size) {
  constexpr double oneBlockFrom = 16384;
  if (double(size) <= oneBlockFrom) return 0;
  return 4 * (1 + uint32_t(std::ceil(std::log(double(size) / oneBlockFrom) / std::log(3.0))));
}

}  // namespace

void randomUniform(Context& gpu, uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) {
  drawNumbers(gpu, Uniform{low, high}, seed, offset, out);
}

void randomNormal(Context& gpu, uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) {
  drawNumbers(gpu, Normal{standardDeviation}, seed, offset, out);
}

void randomPermutation(Context& gpu, uint64_t seed, uint64_t offset, Vector<int32_t> out) {
  if (out.size == 0) return;
  const Swaps swaps{gpu.allocate<int32_t>(out.size), gpu.allocate<unsigned long long>(out.size)};
  int32_t* left = gpu.allocate<int32_t>(out.size);
  const Launch wide = elementwise(gpu, out.size);
  launch(gpu, drawSwapsKernel, wide, seed, offset, out, swaps);
  const uint32_t rounds = wideRounds(out.size);
  for (uint32_t round = 1; round <= rounds; ++round) {
    launch(gpu, reserveKernel, wide, swaps, round, out.size);
    launch(gpu, swapReservedKernel, wide, swaps, round, out);
  }
  const int64_t threads = (out.size + warpSize_ - 1) / warpSize_ * warpSize_;
  launch(gpu, finishSwapsKernel, Launch{1, unsigned(threads < 1024 ? threads : 1024)}, swaps, rounds + 1, out, left);
}

}  // namespace monosem::cuda
