// The k entries of every row with the largest pre-activations in one pass over the encoder; see one_pass_scores.h.
//
// The k-th largest score of a sample, the first positions, is a bound: what is below it is not among the k largest of
// all, and what equals it further on loses against the sample's. So the k largest of the sample and what the pass
// collects above the bound hold the k largest of all, whatever the order of the positions. Where that is random, about
// positions / sample * k candidates are collected.
#include <algorithm>

#include "cuda/library/encode.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/one_pass_scores.h"
#include "cuda/library/radix_select.h"

namespace monosem::cuda {
namespace {

// The sample is the sixteenth part of the positions: a smaller one would take less time, but more candidates.
constexpr int64_t positionsPerSampled = 16;
constexpr int64_t leastSampled = 1024;
// What the lists of a row may hold together: a block gathers it in its shared memory.
constexpr int64_t mostGathered = 8192;
// k: four lists have room for it.
constexpr int64_t mostTaken = 1024;

struct Sample {
  uint32_t k;
  Candidate* largest;  // [rows, k], positions ascending
  float* bounds;       // [rows], by rank
};

constexpr unsigned sampleWarps = 8;  // of a block

// One warp per row of a chunk, which reads its scores from the first-level cache but for the first time.
template <class Order>
__global__ void __launch_bounds__(sampleWarps* warpSize_)
    takeSampleKernel(ScoreChunk chunk, Sample sample, EncodeOutcome* outcome) {
  __shared__ uint32_t histograms[sampleWarps][warpHistogramBins];
  const int64_t rowOfChunk = int64_t(blockIdx.x) * sampleWarps + warpOf();
  if (rowOfChunk >= chunk.products.rows) return;  // the whole warp
  const int64_t row = chunk.firstRow + rowOfChunk;
  const uint32_t count = uint32_t(chunk.products.columns);
  const float* products = chunk.products.data + rowOfChunk * chunk.products.columns;
  const auto scoreAt = [&](uint32_t i) { return products[i] + chunk.biases[i]; };
  bool allFinite = true;
#pragma unroll 8
  for (uint32_t i = laneOf(); i < count; i += warpSize_) allFinite = allFinite && isFinite(scoreAt(i));
  noteScores(allFinite, row, outcome);
  const Cut cut = findCut<Order>(scoreAt, count, sample.k, histograms[warpOf()]);
  Candidate* const largest = sample.largest + row * sample.k;
  takeLargest<Order>(
      count, cut,
      [&](uint32_t i) {
        return Candidate{scoreAt(i), i};
      },
      [&](const Candidate& candidate, uint32_t place) { largest[place] = candidate; });
  if (laneOf() == 0) sample.bounds[row] = fromOrderedKey(cut.key);
}

// Row `row` of the codes: the k largest of the sample's and of what the pass has collected. One warp per row, which
// gathers them in shared memory in the order of the lists, and sorts those that it takes by position there.
template <class Order>
__global__ void __launch_bounds__(warpSize_) takeCandidatesKernel(Sample sample, LaneLists lists, MadeCodes made) {
  DYNAMIC_SHARED(Candidate, candidates);
  __shared__ uint32_t histogram[warpHistogramBins];
  const int64_t row = blockIdx.x, listsPerRow = lists.listsPerRow();
  const uint32_t k = sample.k;
  for (uint32_t i = laneOf(); i < k; i += warpSize_) candidates[i] = sample.largest[row * k + i];
  uint32_t count = k;
  for (int64_t first = 0; first < listsPerRow; first += warpSize_) {
    const int64_t own = first + laneOf();
    const uint32_t ofOwn = own < listsPerRow ? lists.counts[row * listsPerRow + own] : 0;
    const uint32_t beforeOwn = count + warpExclusiveSum(ofOwn);
    constexpr int atOnce = 8;  // lists, whose loads are under way at the same time; the last ones may be empty
    for (int begin = 0; begin < int(min(int64_t(warpSize_), listsPerRow - first)); begin += atOnce) {
      const Candidate* const from = lists.candidates + (row * listsPerRow + first + begin) * lists.capacity;
      Candidate loaded[atOnce];
#pragma unroll
      for (int list = 0; list < atOnce; ++list)
        if (laneOf() < __shfl_sync(allLanes, ofOwn, begin + list))
          loaded[list] = from[list * lists.capacity + laneOf()];
#pragma unroll
      for (int list = 0; list < atOnce; ++list) {
        const uint32_t ofList = __shfl_sync(allLanes, ofOwn, begin + list);
        const uint32_t before = __shfl_sync(allLanes, beforeOwn, begin + list);
        if (laneOf() < ofList) candidates[before + laneOf()] = loaded[list];
        for (uint32_t i = warpSize_ + laneOf(); i < ofList; i += warpSize_)
          candidates[before + i] = from[list * lists.capacity + i];
      }
    }
    count = __shfl_sync(allLanes, beforeOwn + ofOwn, int(warpSize_ - 1));
  }
  __syncwarp();

  const auto scoreAt = [&](uint32_t i) { return candidates[i].score; };
  const auto keyAt = [&](uint32_t i) { return orderedKey(Order::rank(scoreAt(i))); };
  const Cut cut = count > k ? findCut<Order>(scoreAt, count, k, histogram) : takeEverything;
  // Of those that have the cut's key, the first cut.equals positions are taken: up to lastEqual.
  int64_t lastEqual = -1;
  for (uint32_t taken = 0; taken < cut.equals; ++taken) {
    uint32_t next = UINT32_MAX;
    for (uint32_t i = laneOf(); i < count; i += warpSize_)
      if (keyAt(i) == cut.key && int64_t(candidates[i].position) > lastEqual) next = min(next, candidates[i].position);
    lastEqual = int64_t(~warpMax(~next));
  }
  const unsigned lanesBefore = (1u << laneOf()) - 1;
  uint32_t taken = 0;
  for (uint32_t first = 0; first < count; first += warpSize_) {
    const uint32_t i = min(first + laneOf(), count - 1);
    const Candidate candidate = candidates[i];
    const uint32_t key = keyAt(i);
    const bool takes =
        first + laneOf() < count && (key > cut.key || (key == cut.key && int64_t(candidate.position) <= lastEqual));
    const unsigned all = __ballot_sync(allLanes, takes);
    __syncwarp();  // its place may be one that another lane reads from
    if (takes) candidates[taken + __popc(all & lanesBefore)] = candidate;
    taken += __popc(all);
  }
  __syncwarp();
  for (uint32_t i = laneOf(); i < k; i += warpSize_) {
    const Candidate candidate = candidates[i];
    int64_t place = row * k;
    for (uint32_t other = 0; other < k; ++other) place += candidates[other].position < candidate.position;
    made.features[place] = candidate.position;
    made.preActivations[place] = candidate.score;
    if (made.values) made.values[place] = candidate.score > 0 ? candidate.score : 0;
  }
}

int64_t sampleFor(const EncodeOperands& operands, int64_t k) {
  const int64_t wanted = std::max({operands.positions() / positionsPerSampled, leastSampled, 4 * k});
  return int64_t(piecesOf(wanted, blockColumns)) * blockColumns;
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
    launch(gpu, takeSampleKernel<Order>, Launch{piecesOf(ofChunk.rows, sampleWarps), sampleWarps * warpSize_}, chunk,
           sample, operands.outcome);
  }
  return sample;
}

template <class Order>
void select(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude, const MadeCodes& made) {
  const OnePassFactors factors = onePassFactors(gpu, operands);
  const int64_t sampled = sampleFor(operands, k);
  const Sample sample = takeSample<Order>(gpu, operands, factors, k, sampled);
  const int64_t expected = k * (operands.positions() - sampled) / sampled;
  const LaneLists lists = makeLaneLists(gpu, operands, sampled, expected, k, mostGathered);
  ScoreBounds bounds;
  bounds.ofRows = sample.bounds;
  collectInOnePass(gpu, operands, factors, sampled, bounds, k, byMagnitude, lists);
  const size_t sharedBytes = sizeof(Candidate) * size_t(k + lists.listsPerRow() * lists.capacity);
  launch(gpu, takeCandidatesKernel<Order>, Launch{unsigned(operands.x.rows), warpSize_, sharedBytes}, sample, lists,
         made);
}

}  // namespace

bool selectTopKInOnePass(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude,
                         const MadeCodes& made) {
  if (k > mostTaken || 4 * sampleFor(operands, k) > operands.positions() || !worthOnePass(gpu, operands, k))
    return false;
  if (byMagnitude)
    select<ByMagnitude>(gpu, operands, k, byMagnitude, made);
  else
    select<ByValue>(gpu, operands, k, byMagnitude, made);
  return true;
}

}  // namespace monosem::cuda
