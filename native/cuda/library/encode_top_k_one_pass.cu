// The k entries of every row with the largest pre-activations in one pass over the encoder; see one_pass_scores.h.
//
// The k-th largest score of a sample, the first positions, is a bound: what is below it is not among the k largest of
// all, and what equals it further on loses against the sample's. So the k largest of the sample and what the pass
// collects above the bound hold the k largest of all, whatever the order of the positions. Where that is random, about
// positions / sample * k candidates are collected.
#include <algorithm>
#include <type_traits>

#include "cuda/library/block_select.h"
#include "cuda/library/encode.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/one_pass_scores.h"
#include "cuda/library/radix_select.h"

namespace monosem::cuda {
namespace {

// The sample is the sixteenth part of the positions, within limits: a smaller one would take less time, but more
// candidates.
constexpr int64_t positionsPerSampled = 16, leastSampled = 1024, mostSampled = 4096;
// What the lists of a row may hold together: a block gathers it in its shared memory.
constexpr int64_t mostGathered = 8192;
// Of a row: each has room for a tile's scores.
constexpr int64_t mostLists = mostGathered / scoresPerTile;
// Threads of the blocks that select; a thread loads the count of a list.
constexpr unsigned leastSelectThreads = 128, mostSelectThreads = 1024;
static_assert(mostLists <= leastSelectThreads);
constexpr int64_t mostTaken = mostSelectThreads / fewestThreadsPerSelected;  // k
static_assert(mostTaken + mostGathered <= mostKeys);

// So many loads of a thread are under way at once.
constexpr uint32_t loadsAtOnce = 4;
// Threads that copy a list, whose entries are mostly so few that each has its share of them at once.
constexpr unsigned threadsPerList = 8;

struct Sample {
  uint32_t k;
  Candidate* largest;  // [rows, k], in the order of their ranks
  float* bounds;       // [rows]: the rank of the last of them
};

// A block per row of a chunk.
template <class Order>
__global__ void __launch_bounds__(mostSelectThreads)
    takeSampleKernel(ScoreChunk chunk, Sample sample, EncodeOutcome* outcome) {
  __shared__ uint32_t reachingCount;
  DYNAMIC_SHARED(uint32_t, keys);
  const int64_t row = chunk.firstRow + blockIdx.x;
  const uint32_t count = uint32_t(chunk.products.columns);
  const float* products = chunk.products.data + int64_t(blockIdx.x) * chunk.products.stride;
  const auto scoreAt = [&](uint32_t i) { return products[i] + chunk.biases[i]; };
  bool allFinite = true;
  for (uint32_t first = threadIdx.x; first < count; first += loadsAtOnce * blockDim.x) {
    float scores[loadsAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < loadsAtOnce; ++i) scores[i] = scoreAt(min(first + i * blockDim.x, count - 1));
#pragma unroll
    for (uint32_t i = 0; i < loadsAtOnce; ++i) {
      allFinite = allFinite && isFinite(scores[i]);
      if (first + i * blockDim.x < count) keys[first + i * blockDim.x] = orderedKey(Order::rank(scores[i]));
    }
  }
  noteScores(allFinite, row, outcome);
  // A thread finds its maximum among the keys that it has written.
  takeLargestByBlock(
      count, sample.k, [&](uint32_t i) { return keys[i]; }, [](uint32_t i) { return i; },
      reinterpret_cast<KeyNumber*>(keys + count), &reachingCount,
      [&](uint32_t i, uint32_t place) {
        sample.largest[row * sample.k + place] = {scoreAt(i), i};
        if (place + 1 == sample.k) sample.bounds[row] = Order::rank(scoreAt(i));
      });
}

// Row `row` of the codes: the k largest of the sample's and of what the pass has collected. A block per row, which
// gathers them in shared memory, in the order of the lists, and sorts those that it takes by position.
template <class Order>
__global__ void __launch_bounds__(mostSelectThreads, 1)
    takeCandidatesKernel(Sample sample, LaneLists lists, MadeCodes made) {
  __shared__ uint32_t scratch[33], reachingCount;
  __shared__ uint32_t begins[mostLists + 1];  // of the lists among the row's candidates
  DYNAMIC_SHARED(Candidate, candidates);
  const int64_t row = blockIdx.x;
  const uint32_t listsPerRow = uint32_t(lists.listsPerRow()), k = sample.k;
  const uint32_t ofOwn = threadIdx.x < listsPerRow ? lists.counts[row * listsPerRow + threadIdx.x] : 0;
  uint32_t collected;
  const uint32_t begin = blockExclusiveSum(ofOwn, scratch, &collected);
  if (threadIdx.x < listsPerRow) begins[threadIdx.x] = begin;
  if (threadIdx.x == 0) begins[listsPerRow] = collected;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < k; i += blockDim.x) candidates[i] = sample.largest[row * k + i];
#pragma unroll 1
  for (uint32_t list = threadIdx.x / threadsPerList; list < listsPerRow; list += blockDim.x / threadsPerList) {
    const uint32_t ofList = begins[list + 1] - begins[list];
    const Candidate* const from = lists.candidates + (row * listsPerRow + list) * lists.capacity;
#pragma unroll 1
    for (uint32_t first = threadIdx.x % threadsPerList; first < ofList; first += loadsAtOnce * threadsPerList) {
      Candidate loaded[loadsAtOnce];
#pragma unroll
      for (uint32_t i = 0; i < loadsAtOnce; ++i) loaded[i] = from[min(first + i * threadsPerList, ofList - 1)];
#pragma unroll
      for (uint32_t i = 0; i < loadsAtOnce; ++i)
        if (first + i * threadsPerList < ofList) candidates[k + begins[list] + first + i * threadsPerList] = loaded[i];
    }
  }
  __syncthreads();

  const uint32_t count = k + collected;
  Candidate* const taken = candidates + count;
  takeLargestByBlock(
      count, k, [&](uint32_t i) { return orderedKey(Order::rank(candidates[i].score)); },
      [&](uint32_t i) { return candidates[i].position; }, reinterpret_cast<KeyNumber*>(taken + k), &reachingCount,
      [&](uint32_t i, uint32_t place) { taken[place] = candidates[i]; });
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < k; i += blockDim.x) {
    const Candidate candidate = taken[i];
    int64_t place = row * k;
    for (uint32_t other = 0; other < k; ++other) place += taken[other].position < candidate.position;
    made.features[place] = candidate.position;
    made.preActivations[place] = candidate.score;
    if (made.values) made.values[place] = candidate.score > 0 ? candidate.score : 0;
  }
}

int64_t sampleFor(const EncodeOperands& operands, int64_t k) {
  const int64_t wanted =
      std::max(std::clamp(operands.positions() / positionsPerSampled, leastSampled, mostSampled), 4 * k);
  return int64_t(piecesOf(wanted, blockColumns)) * blockColumns;
}

// Of which each has about a dozen keys, or fewer where k needs more threads.
unsigned selectThreads(int64_t keys, int64_t k) {
  constexpr int64_t keysPerThread = 12;
  const int64_t wanted = std::max(keys / keysPerThread, int64_t(threadsPerSelected) * k);
  return std::clamp(piecesOf(wanted, warpSize_) * warpSize_, leastSelectThreads, mostSelectThreads);
}

template <class Order>
Sample takeSample(Context& gpu, const EncodeOperands& operands, const OnePassFactors& factors, int64_t k,
                  int64_t sampled) {
  const int64_t rows = operands.x.rows, perChunk = std::min(rows, chunkShapeFor(gpu, operands).rows);
  const Sample sample{uint32_t(k), gpu.allocate<Candidate>(rows * k), gpu.allocate<float>(rows)};
  float* const products = gpu.allocate<float>(perChunk * sampled);
  for (int64_t row = 0; row < rows; row += perChunk) {
    const Matrix<float> ofChunk{products, std::min(perChunk, rows - row), sampled};
    gpu.products().abTransposed({factors.x.row(row), ofChunk.rows, factors.x.columns},
                                {factors.encoder.data, sampled, factors.encoder.columns}, 1, 0, ofChunk);
    const ScoreChunk chunk{row, 0, {products, ofChunk.rows, sampled}, operands.biases};
    launch(gpu, takeSampleKernel<Order>,
           Launch{unsigned(ofChunk.rows), selectThreads(sampled, k),
                  (sizeof(uint32_t) + sizeof(KeyNumber)) * size_t(sampled)},
           chunk, sample, operands.outcome);
  }
  return sample;
}

template <class Order>
void select(Context& gpu, const EncodeOperands& operands, int64_t k, const MadeCodes& made) {
  const OnePassFactors factors = onePassFactors(gpu, operands);
  const int64_t sampled = sampleFor(operands, k);
  const Sample sample = takeSample<Order>(gpu, operands, factors, k, sampled);
  const int64_t expected = k * (operands.positions() - sampled) / sampled;
  const LaneLists lists = makeLaneLists(gpu, operands, sampled, expected, k, mostGathered);
  ScoreBounds bounds;
  bounds.ofRows = sample.bounds;
  collectInOnePass(gpu, operands, factors, sampled, bounds, k, std::is_same_v<Order, ByMagnitude>, lists);
  const int64_t gathered = k + lists.listsPerRow() * lists.capacity;
  const size_t sharedBytes = sizeof(Candidate) * size_t(gathered + k) + sizeof(KeyNumber) * size_t(gathered);
  launch(gpu, takeCandidatesKernel<Order>,
         Launch{unsigned(operands.x.rows), selectThreads(k + expected, k), sharedBytes}, sample, lists, made);
}

}  // namespace

bool selectTopKInOnePass(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude,
                         const MadeCodes& made) {
  if (k > mostTaken || 4 * sampleFor(operands, k) > operands.positions() || !worthOnePass(gpu, operands, k))
    return false;
  if (byMagnitude)
    select<ByMagnitude>(gpu, operands, k, made);
  else
    select<ByValue>(gpu, operands, k, made);
  return true;
}

}  // namespace monosem::cuda
