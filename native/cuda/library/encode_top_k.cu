// The k entries of every row with the largest pre-activations, or with those largest in magnitude.
//
// Scores go by chunk after chunk. A warp goes through a row's and appends to the row's list of candidates those above a
// threshold: the k-th largest when it was last determined. When the list is full, it is cut down to the k largest, and
// the threshold rises. About k * ln(n / k) of n scores in random order become candidates, and a few more, because a
// threshold stays until the list is full.
//
// Lists are ascending in position, whatever is cut out of them. So a score that equals the threshold comes after k
// others that are at least as large, and loses, as (score descending, position ascending) demands; and the entries
// need no sorting. Where all positions fit into one chunk because rows are few, several warps share a row, each with a
// part of its positions and a list of its own.
#include <algorithm>

#include "cuda/library/encode.h"
#include "cuda/library/one_pass_scores.h"
#include "cuda/library/radix_select.h"

namespace monosem::cuda {
namespace {

constexpr unsigned warpsPerBlock = 8, listThreads = warpsPerBlock * warpSize_;
// Each lane judges so many scores, loaded at once, after a look at how much room the list has.
constexpr int scoresPerLook = 8;
constexpr int columnsPerLook = scoresPerLook * int(warpSize_);
// A list holds twice k, so that a cut pays for itself, and never fewer than 256; with room for one more look.
constexpr int64_t fewestCandidates = 256;

// Warps that a multiprocessor needs to be busy, as long as a row can be shared sensibly.
constexpr int64_t warpsPerMultiprocessor = 16;
constexpr int64_t mostParts = 8;
constexpr int64_t fewestColumnsPerPart = 1024;

// The candidates of the rows of a chunk: `parts` lists per row, one after the other.
struct CandidateLists {
  uint32_t k;
  int64_t parts, columnsPerPart;  // part p of a row has the columns from p * columnsPerPart on
  int64_t capacity;
  float* scores;        // [lists, capacity]
  uint32_t* positions;  // [lists, capacity]
  uint32_t* counts;     // [lists]
  float* thresholds;    // [lists], by rank: only what is above it can be among the k largest
};

// A list, for the warp that works on it.
struct CandidateList {
  float* scores;
  uint32_t* positions;
  uint32_t count;

  __device__ CandidateList(const CandidateLists& lists, int64_t list, uint32_t count)
      : scores(lists.scores + list * lists.capacity),
        positions(lists.positions + list * lists.capacity),
        count(count) {}
  __device__ Candidate at(uint32_t i) const { return {scores[i], positions[i]}; }
  __device__ void put(Candidate candidate, uint32_t place) const {
    scores[place] = candidate.score;
    positions[place] = candidate.position;
  }
  // Keeps the k < count largest; returns what later ranks have to be above.
  template <class Order>
  __device__ float cutDown(uint32_t k, uint32_t* histogram) {
    __syncwarp();  // what other lanes have appended is seen
    const Cut cut = findCut<Order>([&](uint32_t i) { return scores[i]; }, count, k, histogram);
    count = takeLargest<Order>(
        count, cut, [&](uint32_t i) { return at(i); },
        [&](const Candidate& candidate, uint32_t place) { put(candidate, place); });
    return fromOrderedKey(cut.key);
  }
};

// Offers a chunk's scores to the lists, one warp per list. Four blocks keep a multiprocessor busy, and leave their
// threads registers for the scores that are under way.
template <class Order>
__global__ void __launch_bounds__(listThreads, 4)
    offerScoresKernel(ScoreChunk chunk, CandidateLists lists, EncodeOutcome* outcome) {
  __shared__ uint32_t histograms[warpsPerBlock][warpHistogramBins];
  uint32_t* histogram = histograms[warpOf()];
  const int64_t index = int64_t(blockIdx.x) * warpsPerBlock + warpOf();
  const int64_t row = index / lists.parts, part = index - row * lists.parts;
  if (row >= chunk.products.rows) return;  // the whole warp
  const bool starts = chunk.firstPosition == 0;
  CandidateList list(lists, index, starts ? 0 : lists.counts[index]);
  float threshold = starts ? -INFINITY : lists.thresholds[index];
  const unsigned lanesBefore = (1u << laneOf()) - 1;
  bool allFinite = true;
  const float* products = chunk.products.data + row * chunk.products.stride;
  const int64_t end = min((part + 1) * lists.columnsPerPart, chunk.products.columns);
  for (int64_t first = part * lists.columnsPerPart; first < end; first += columnsPerLook) {
    if (list.count + columnsPerLook > lists.capacity) threshold = list.cutDown<Order>(lists.k, histogram);
    const int columns = int(min(int64_t(columnsPerLook), end - first));
    float scores[scoresPerLook];
#pragma unroll
    for (int i = 0; i < scoresPerLook; ++i) {
      const int column = i * int(warpSize_) + int(laneOf());
      scores[i] = column < columns ? products[first + column] + chunk.biases[first + column] : 0;
    }
#pragma unroll
    for (int i = 0; i < scoresPerLook; ++i) {
      if (i * int(warpSize_) >= columns) break;
      const int column = i * int(warpSize_) + int(laneOf());
      const bool above = column < columns && Order::rank(scores[i]) > threshold;
      allFinite = allFinite && isFinite(scores[i]);
      const unsigned allAbove = __ballot_sync(allLanes, above);
      if (above) {
        const int64_t position = chunk.firstPosition + first + column;
        list.put({scores[i], uint32_t(position)}, list.count + __popc(allAbove & lanesBefore));
      }
      list.count += __popc(allAbove);
    }
  }
  if (lists.parts > 1 && list.count > lists.k) threshold = list.cutDown<Order>(lists.k, histogram);
  if (laneOf() == 0) {
    lists.counts[index] = list.count;
    lists.thresholds[index] = threshold;
  }
  noteScores(allFinite, chunk.firstRow + row, outcome);
}

// Row firstRow + row of the codes = the k largest candidates of the row, one warp per row. What the lists of its
// further parts hold is first appended to the first list, which keeps it ascending. A row with too few candidates has
// scores that are NaN or -infinity: the encode has failed, and its entries become NaN, at places that exist.
template <class Order>
__global__ void __launch_bounds__(listThreads)
    takeLargestKernel(CandidateLists lists, int64_t firstRow, int64_t rows, FeatureSetView eligible, MadeCodes made) {
  __shared__ uint32_t histograms[warpsPerBlock][warpHistogramBins];
  const int64_t row = int64_t(blockIdx.x) * warpsPerBlock + warpOf();
  if (row >= rows) return;  // the whole warp
  CandidateList list(lists, row * lists.parts, lists.counts[row * lists.parts]);
  for (int64_t index = row * lists.parts + 1; index < (row + 1) * lists.parts; ++index) {
    const CandidateList further(lists, index, lists.counts[index]);
    for (uint32_t first = 0; first < further.count; first += warpSize_) {
      const uint32_t i = first + laneOf();
      Candidate candidate;
      if (i < further.count) candidate = further.at(i);
      __syncwarp();  // its place may be one that another lane reads from
      if (i < further.count) list.put(candidate, list.count + i);
    }
    list.count += further.count;
  }
  __syncwarp();
  const int64_t begin = (firstRow + row) * lists.k;
  const auto make = [&](int64_t position, float score, uint32_t place) {
    made.features[begin + place] = featureAt(eligible, position);
    made.preActivations[begin + place] = score;
    if (made.values) made.values[begin + place] = score > 0 ? score : 0;
  };
  if (list.count < lists.k) {
    for (uint32_t place = laneOf(); place < lists.k; place += warpSize_) make(place, NAN, place);
    return;
  }
  const auto scoreAt = [&](uint32_t i) { return list.scores[i]; };
  const Cut cut =
      list.count > lists.k ? findCut<Order>(scoreAt, list.count, lists.k, histograms[warpOf()]) : takeEverything;
  takeLargest<Order>(
      list.count, cut, [&](uint32_t i) { return list.at(i); },
      [&](const Candidate& candidate, uint32_t place) { make(candidate.position, candidate.score, place); });
}

CandidateLists makeLists(Context& gpu, const EncodeOperands& operands, int64_t k) {
  const ChunkShape shape = chunkShapeFor(gpu, operands);
  const int64_t positions = operands.positions();
  int64_t parts = 1;
  if (shape.columns == positions)
    parts = std::min({mostParts, warpsPerMultiprocessor * gpu.multiprocessors() / shape.rows,
                      positions / std::max(fewestColumnsPerPart, 8 * k)});
  CandidateLists lists;
  lists.k = uint32_t(k);
  lists.columnsPerPart =
      piecesOf(piecesOf(positions, std::max<int64_t>(1, parts)), columnsPerLook) * int64_t(columnsPerLook);
  lists.parts = piecesOf(positions, lists.columnsPerPart);
  lists.capacity = std::min(lists.columnsPerPart, std::max(2 * k, fewestCandidates)) + columnsPerLook;
  const int64_t count = shape.rows * lists.parts;
  lists.scores = gpu.allocate<float>(count * lists.capacity);
  lists.positions = gpu.allocate<uint32_t>(count * lists.capacity);
  lists.counts = gpu.allocate<uint32_t>(count);
  lists.thresholds = gpu.allocate<float>(count);
  return lists;
}

template <class Order>
void selectTopK(Context& gpu, const EncodeOperands& operands, int64_t k, const MadeCodes& made) {
  const CandidateLists lists = makeLists(gpu, operands, k);
  forEachScoreChunk(gpu, operands, [&](const ScoreChunk& chunk) {
    const int64_t rows = chunk.products.rows;
    launch(gpu, offerScoresKernel<Order>, Launch{piecesOf(rows * lists.parts, warpsPerBlock), listThreads}, chunk,
           lists, operands.outcome);
    if (chunk.endPosition() == operands.positions())
      launch(gpu, takeLargestKernel<Order>, Launch{piecesOf(rows, warpsPerBlock), listThreads}, lists, chunk.firstRow,
             rows, operands.eligible, made);
  });
}

}  // namespace

void encodeTopK(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude, MadeCodes* made) {
  k = std::min(k, operands.positions());
  made->entries = operands.x.rows * k;
  made->rowOffsets = evenRowOffsets(gpu, operands.x.rows, k);
  made->features = gpu.allocate<uint32_t>(made->entries);
  made->preActivations = gpu.allocate<float>(made->entries);
  if (!byMagnitude) made->values = gpu.allocate<float>(made->entries);
  if (!selectTopKInOnePass(gpu, operands, k, byMagnitude, *made)) {
    if (byMagnitude)
      selectTopK<ByMagnitude>(gpu, operands, k, *made);
    else
      selectTopK<ByValue>(gpu, operands, k, *made);
  }
  refuseLate(gpu, operands, *made);
}

}  // namespace monosem::cuda
