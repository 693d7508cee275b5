#include "cuda/library/collect_entries.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

// ---- Collecting

// Copies the entries above their bound to the pool: a warp per piece of a row, whose scores stay in registers between
// counting and writing; a block reserves the places of all its warps at once. Where the pool has no room left, entries
// are only counted. Pieces of the chunk are those from firstPiece on of a row.
template <bool byPosition>
__global__ void __launch_bounds__(pieceThreads)
    collectKernel(ScoreChunk chunk, ScoreBounds bounds, EntryPool pool, uint32_t* rowCounts, int64_t firstPiece,
                  EncodeOutcome* outcome) {
  __shared__ uint32_t counts[pieceWarps];
  __shared__ unsigned long long placeOfBlock;
  const ScorePiece piece(chunk);
  float scores[scoresPerLane];
#pragma unroll
  for (int i = 0; i < scoresPerLane; ++i) scores[i] = piece.has(i) ? piece.score(i) : 0;

  unsigned selected = 0;  // of the lane, a bit per step
  uint32_t count = 0;
  bool allFinite = true, differ = false;
#pragma unroll
  for (int i = 0; i < scoresPerLane; ++i) {
    if (!piece.hasStep(i)) continue;
    const int64_t position = piece.position(i);
    const float threshold = byPosition && piece.has(i) ? bounds.ofPositions[position] : 0;
    const bool above = piece.has(i) && scores[i] > (byPosition ? threshold - bounds.margin : *bounds.ofAll);
    allFinite = allFinite && isFinite(scores[i]);
    differ = differ || (byPosition && above && valueAbove(scores[i], threshold) != scores[i]);
    selected |= unsigned(above) << i;
    count += __popc(__ballot_sync(allLanes, above));
  }
  noteScores(allFinite, piece.row, outcome);
  noteValues(differ, outcome);

  if (laneOf() == 0) counts[warpOf()] = count;
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t ofBlock = 0;
    for (unsigned warp = 0; warp < pieceWarps; ++warp) ofBlock += counts[warp];
    placeOfBlock = ofBlock > 0 ? atomicAdd(&outcome->entries, (unsigned long long)(ofBlock)) : 0;
  }
  __syncthreads();
  unsigned long long place = placeOfBlock;
  for (unsigned warp = 0; warp < warpOf(); ++warp) place += counts[warp];

  if (piece.columns > 0 && laneOf() == 0) {
    const int64_t index = piece.row * pool.pieces + firstPiece + piece.number;
    pool.piecePlaces[index] = place;
    pool.pieceCounts[index] = count;
    if (count > 0) atomicAdd(&rowCounts[piece.row], count);
  }
  if (count == 0 || place + count > uint64_t(pool.capacity)) return;  // the whole warp
  const unsigned lanesBefore = (1u << laneOf()) - 1;
#pragma unroll
  for (int i = 0; i < scoresPerLane; ++i) {
    if (!piece.hasStep(i)) continue;
    const bool mine = selected >> i & 1;
    const unsigned all = __ballot_sync(allLanes, mine);
    if (mine) {
      pool.scores[place + __popc(all & lanesBefore)] = scores[i];
      pool.positions[place + __popc(all & lanesBefore)] = uint32_t(piece.position(i));
    }
    place += __popc(all);
  }
}

constexpr unsigned listWarps = 8;  // of a block

// rowCounts[row] = the entries in the row's lists, and the outcome's entries += all of them. One warp per row.
__global__ void __launch_bounds__(listWarps* warpSize_)
    countListedKernel(LaneLists lists, int64_t rows, uint32_t* rowCounts, EncodeOutcome* outcome) {
  __shared__ uint32_t scratch[33];
  const int64_t row = int64_t(blockIdx.x) * listWarps + warpOf();
  uint32_t count = 0;
  if (row < rows)
    for (int64_t list = laneOf(); list < lists.listsPerRow(); list += warpSize_)
      count += lists.counts[row * lists.listsPerRow() + list];
  const uint32_t ofRow = warpSum(count), ofBlock = blockSum(count, scratch);
  if (row < rows && laneOf() == 0) rowCounts[row] = ofRow;
  if (threadIdx.x == 0 && ofBlock > 0) atomicAdd(&outcome->entries, (unsigned long long)(ofBlock));
}

// Nothing where lists have lost entries; `expected` is how many entries there are then.
std::optional<CollectedEntries> collectInLists(Context& gpu, const EncodeOperands& operands, const ScoreBounds& bounds,
                                               int64_t* expected) {
  const int64_t rows = operands.x.rows;
  CollectedEntries collected{};
  collected.inLists = true;
  collected.lists =
      makeLaneLists(gpu, operands, 0, *expected / std::max<int64_t>(1, rows), 0, std::numeric_limits<int64_t>::max());
  collected.rowCounts = gpu.allocate<uint32_t>(rows);
  gpu.clear(&operands.outcome->entries, sizeof operands.outcome->entries);
  gpu.clear(&operands.outcome->listsOverflowed, sizeof operands.outcome->listsOverflowed);
  collectInOnePass(gpu, operands, onePassFactors(gpu, operands), 0, bounds, 0, false, collected.lists);
  launch(gpu, countListedKernel, Launch{piecesOf(rows, listWarps), listWarps * warpSize_}, collected.lists, rows,
         collected.rowCounts, operands.outcome);
  const EncodeOutcome outcome = readOutcome(gpu, operands);
  collected.count = int64_t(outcome.entries);
  collected.bound = outcome.bound;
  collected.valuesDiffer = bounds.ofPositions != nullptr;
  if (!outcome.listsOverflowed) return collected;
  *expected = collected.count;
  release(gpu, collected);
  return std::nullopt;
}

// Bounds are of all scores or of positions.
CollectedEntries collect(Context& gpu, const EncodeOperands& operands, const ScoreBounds& bounds, int64_t expected) {
  const auto kernel = bounds.ofPositions ? collectKernel<true> : collectKernel<false>;
  if (worthOnePass(gpu, operands, 0))
    if (const auto collected = collectInLists(gpu, operands, bounds, &expected)) return *collected;
  const ChunkShape shape = chunkShapeFor(gpu, operands);
  const int64_t rows = operands.x.rows, positions = operands.positions();
  const int64_t piecesPerChunk = piecesOf(shape.columns, pieceColumns);
  const int64_t wholeChunks = positions / shape.columns;
  CollectedEntries collected{};
  EntryPool& pool = collected.pool;
  pool.capacity = std::min(expected, rows * positions);
  pool.pieces = wholeChunks * piecesPerChunk + piecesOf(positions - wholeChunks * shape.columns, pieceColumns);
  pool.piecePlaces = gpu.allocate<unsigned long long>(rows * pool.pieces);
  pool.pieceCounts = gpu.allocate<uint32_t>(rows * pool.pieces);
  collected.rowCounts = gpu.allocate<uint32_t>(rows);
  while (true) {
    pool.scores = gpu.allocate<float>(pool.capacity);
    pool.positions = gpu.allocate<uint32_t>(pool.capacity);
    gpu.clear(&operands.outcome->entries, sizeof operands.outcome->entries);
    gpu.clear(collected.rowCounts, sizeof(uint32_t) * size_t(rows));
    forEachScoreChunk(gpu, operands, [&](const ScoreChunk& chunk) {
      launch(gpu, kernel, warpPerPiece(chunk), chunk, bounds, pool, collected.rowCounts,
             chunk.firstPosition / shape.columns * piecesPerChunk, operands.outcome);
    });
    const EncodeOutcome outcome = readOutcome(gpu, operands);
    const int64_t count = int64_t(outcome.entries);
    if (count > pool.capacity) {
      gpu.release(pool.scores);
      gpu.release(pool.positions);
      pool.capacity = count;
      continue;
    }
    collected.count = count;
    collected.bound = outcome.bound;
    collected.valuesDiffer = outcome.valuesDiffer != 0;
    return collected;
  }
}

// ---- Compacting

// features and preActivations: the entries of a row, gathered from its pieces, one block per row. A thread's entries
// are blockDim.x apart; on the way to the next one it passes the pieces that end before it. Neighbouring threads read
// and write neighbouring entries, mostly of the same piece.
constexpr unsigned mostRowThreads = 256;
__global__ void __launch_bounds__(mostRowThreads)
    compactKernel(EntryPool pool, FeatureSetView eligible, const uint64_t* rowOffsets, uint32_t* features,
                  float* preActivations) {
  const int64_t row = blockIdx.x;
  const uint64_t to = rowOffsets[row], entries = rowOffsets[row + 1] - to;
  int64_t piece = row * pool.pieces;
  uint64_t begin = 0, end = pool.pieceCounts[piece];  // of the piece
  for (uint64_t entry = threadIdx.x; entry < entries; entry += blockDim.x) {
    while (entry >= end) {
      begin = end;
      end += pool.pieceCounts[++piece];
    }
    const uint64_t from = pool.piecePlaces[piece] + (entry - begin);
    features[to + entry] = featureAt(eligible, pool.positions[from]);
    preActivations[to + entry] = pool.scores[from];
  }
}

// The first of a list's entries whose position is not before `position`: how many there are before it.
__device__ uint32_t entriesBefore(const Candidate* list, uint32_t count, uint32_t position) {
  uint32_t first = 0;
  while (first < count) {
    const uint32_t middle = (first + count) / 2;
    if (list[middle].position < position)
      first = middle + 1;
    else
      count = middle;
  }
  return first;
}

// The same from the row's lists, one warp per row. Stripes follow one another; the lists of a stripe are merged: an
// entry's place is the number of entries before it in each of them.
__global__ void __launch_bounds__(listWarps* warpSize_)
    compactListsKernel(LaneLists lists, int64_t rows, const uint64_t* rowOffsets, uint32_t* features,
                       float* preActivations) {
  const int64_t row = int64_t(blockIdx.x) * listWarps + warpOf();
  if (row >= rows) return;  // the whole warp
  uint64_t place = rowOffsets[row];
  for (int64_t stripe = 0; stripe < lists.stripes; ++stripe) {
    const int64_t first = (row * lists.stripes + stripe) * listsPerStripe;
    const Candidate* const candidates = lists.candidates + first * lists.capacity;
    uint32_t counts[listsPerStripe], ofStripe = 0;
#pragma unroll
    for (int list = 0; list < listsPerStripe; ++list) ofStripe += counts[list] = lists.counts[first + list];
    for (uint32_t i = laneOf(); i < ofStripe; i += warpSize_) {
      uint32_t own = 0, index = i;
#pragma unroll
      for (uint32_t list = 0; list + 1 < listsPerStripe; ++list)
        if (own == list && index >= counts[list]) {
          index -= counts[list];
          own = list + 1;
        }
      const Candidate candidate = candidates[own * lists.capacity + index];
      uint32_t before = index;
#pragma unroll
      for (uint32_t list = 0; list < listsPerStripe; ++list)
        if (list != own) before += entriesBefore(candidates + list * lists.capacity, counts[list], candidate.position);
      features[place + before] = candidate.position;
      preActivations[place + before] = candidate.score;
    }
    place += ofStripe;
  }
}

// So that a row's threads have about one or two entries each.
unsigned threadsPerRow(int64_t entries, int64_t rows) {
  unsigned threads = warpSize_;
  while (threads < mostRowThreads && 2 * threads * rows < entries) threads *= 2;
  return threads;
}

}  // namespace

CollectedEntries collectAbove(Context& gpu, const EncodeOperands& operands, int64_t expected) {
  ScoreBounds bounds;
  bounds.ofAll = &operands.outcome->bound;
  return collect(gpu, operands, bounds, expected);
}

CollectedEntries collectAboveThresholds(Context& gpu, const EncodeOperands& operands, const float* thresholds,
                                        float margin, int64_t expected) {
  ScoreBounds bounds;
  bounds.ofPositions = thresholds;
  bounds.margin = margin;
  return collect(gpu, operands, bounds, expected);
}

void release(Context& gpu, const CollectedEntries& collected) {
  const EntryPool& pool = collected.pool;
  if (collected.inLists) {
    gpu.release(collected.lists.candidates);
    gpu.release(collected.lists.counts);
  } else {
    for (const void* scratch : {static_cast<const void*>(pool.scores), static_cast<const void*>(pool.positions),
                                static_cast<const void*>(pool.piecePlaces), static_cast<const void*>(pool.pieceCounts)})
      gpu.release(scratch);
  }
  gpu.release(collected.rowCounts);
}

int64_t expectedOfSparseCodes(const EncodeOperands& operands) {
  // Of very many scores fewer: half a gigabyte. Where there are more entries, the scores are computed once more.
  constexpr int64_t fewestPerRow = 64, mostGuessed = int64_t(1) << 26;
  const int64_t rows = operands.x.rows;
  return std::min(rows * std::max(fewestPerRow, operands.positions() / 25), std::max(mostGuessed, rows * fewestPerRow));
}

void compactEntries(Context& gpu, const EncodeOperands& operands, const CollectedEntries& collected, MadeCodes* made) {
  const int64_t rows = operands.x.rows;
  made->entries = collected.count;
  made->rowOffsets = gpu.allocate<uint64_t>(rows + 1);
  made->features = gpu.allocate<uint32_t>(collected.count);
  made->preActivations = gpu.allocate<float>(collected.count);
  exclusiveScan(gpu, collected.rowCounts, rows, made->rowOffsets);
  if (collected.inLists)
    return launch(gpu, compactListsKernel, Launch{piecesOf(rows, listWarps), listWarps * warpSize_}, collected.lists,
                  rows, made->rowOffsets, made->features, made->preActivations);
  launch(gpu, compactKernel, Launch{unsigned(rows), threadsPerRow(collected.count, rows)}, collected.pool,
         operands.eligible, made->rowOffsets, made->features, made->preActivations);
}

}  // namespace monosem::cuda
