// The k largest positive pre-activations of a whole batch, exact; ties by (z descending, row ascending, feature
// ascending).
//
// A sample of the rows shows about where the k-th largest stands. The entries above a bound a little lower are
// collected, so that a small part of the scores is kept, and the k largest are picked from those. Where fewer than k
// were found, the bound was too high, and a lower one is tried, in the end 0: the sample decides how long it takes,
// never what is selected. The bound stays on the device, so that the host waits only for the number of entries.
#include <algorithm>
#include <string>

#include "cuda/library/collect_entries.h"
#include "cuda/library/encode.h"
#include "cuda/library/radix_select.h"
#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

// ---- The cut through many scores, by the whole device

constexpr unsigned digitBits = 11, digitBins = 1u << digitBits;
constexpr unsigned histogramThreads = 256;

// histogram[d] += the number of scores whose key has the digits of cut->key so far and then d, whose lowest bit is
// `shift`; `bins`: how many d there are. Blocks count in shared memory first.
__global__ void __launch_bounds__(histogramThreads)
    histogramKernel(const float* scores, int64_t count, const Cut* cut, unsigned shift, uint32_t bins,
                    uint32_t* histogram) {
  __shared__ uint32_t counts[digitBins];
  for (unsigned bin = threadIdx.x; bin < digitBins; bin += histogramThreads) counts[bin] = 0;
  __syncthreads();
  const uint32_t prefix = cut->key;
#pragma unroll 4
  FOR_EACH_ELEMENT(i, count) {
    const uint32_t digit = (orderedKey(scores[i]) ^ prefix) >> shift;  // too large where an earlier digit differs
    if (digit < bins) atomicAdd(&counts[digit], 1u);
  }
  __syncthreads();
  for (unsigned bin = threadIdx.x; bin < digitBins; bin += histogramThreads)
    if (counts[bin] > 0) atomicAdd(&histogram[bin], counts[bin]);
}

// Adds to the cut's key the digit of the number with rank cut->equals, which becomes its rank among those that share
// the key's digits. One warp.
__global__ void refineCutKernel(const uint32_t* histogram, unsigned shift, Cut* cut) {
  const Digit digit = digitOfRank<digitBins>(histogram, cut->equals);
  if (laneOf() == 0) *cut = {cut->key | digit.value << shift, cut->equals - digit.larger};
}

// Where the k largest of count >= k > 0 scores end, in device memory. All of its key's digits are determined, so that
// cut->equals is not 0.
const Cut* findCutOfMany(Context& gpu, const float* scores, int64_t count, int64_t k) {
  const Cut start{0, uint32_t(k)};
  Cut* cut = gpu.uploaded(&start, 1);
  uint32_t* histogram = gpu.allocate<uint32_t>(digitBins);
  for (unsigned end = 32; end > 0;) {
    const unsigned bits = std::min(digitBits, end), shift = end - bits;
    gpu.clear(histogram, digitBins * sizeof(uint32_t));
    launch(gpu, histogramKernel, elementwise(gpu, count), scores, count, cut, shift, 1u << bits, histogram);
    launch(gpu, refineCutKernel, Launch{1, warpSize_}, histogram, shift, cut);
    end = shift;
  }
  return cut;
}

// ---- The bound

// rows[i, :] = a row of x, evenly spread. A block per row.
__global__ void sampleRowsKernel(Rows x, float* rows) {
  const int64_t row = (2 * int64_t(blockIdx.x) + 1) * x.rows / (2 * int64_t(gridDim.x));
  for (int64_t column = threadIdx.x; column < x.columns; column += blockDim.x)
    rows[int64_t(blockIdx.x) * x.columns + column] = x.data[row * x.columns + column];
}

// scores [rows, positions] = those of the chunk in their places. A warp per piece of a row.
__global__ void __launch_bounds__(pieceThreads) copyScoresKernel(ScoreChunk chunk, int64_t positions, float* scores) {
  const ScorePiece piece(chunk);
#pragma unroll
  for (int i = 0; i < scoresPerLane; ++i)
    if (piece.has(i)) scores[piece.row * positions + piece.position(i)] = piece.score(i);
}

// *bound = the smallest score that the cut takes, but at least 0. One thread.
__global__ void boundOfCutKernel(const Cut* cut, float* bound) {
  const float score = fromOrderedKey(cut->key);
  *bound = score > 0 ? score : 0;
}

void setBound(Context& gpu, const EncodeOperands& operands, float bound) {
  gpu.upload(&bound, &operands.outcome->bound, sizeof bound);
}

// Bounds, each lower than the one before, that the sample lets expect to pass somewhat more than k entries.
class SampledBounds {
 public:
  SampledBounds(Context& gpu, const EncodeOperands& operands, int64_t k) : gpu_(gpu), operands_(operands), k_(k) {
    if (operands.x.rows < 4 * sampledRows) return;  // the sample would cost as much as it saves
    float* rows = gpu.allocate<float>(sampledRows * operands.x.columns);
    launch(gpu, sampleRowsKernel, Launch{unsigned(sampledRows), 128}, operands.x, rows);
    EncodeOperands sample = operands;
    sample.x = {rows, sampledRows, operands.x.columns};
    sample.roundedX = nullptr;  // that is of other rows
    count_ = sampledRows * operands.positions();
    scores_ = gpu.allocate<float>(count_);
    forEachScoreChunk(gpu, sample, [&](const ScoreChunk& chunk) {
      launch(gpu, copyScoresKernel, warpPerPiece(chunk), chunk, operands.positions(), scores_);
    });
  }

  // Sets the outcome's bound; returns for how many entries above it there should be room.
  int64_t setNext() {
    while (attempt_ < attempts) {
      const double wanted = factors[attempt_++] * double(k_);
      const int64_t ofSample = int64_t(wanted * double(sampledRows) / double(operands_.x.rows)) + 1;
      if (ofSample >= count_) continue;
      const Cut* cut = findCutOfMany(gpu_, scores_, count_, ofSample);
      launch(gpu_, boundOfCutKernel, Launch{1, 1}, cut, &operands_.outcome->bound);
      return roomFor(wanted);
    }
    setBound(gpu_, operands_, 0);
    // All that is positive, of which nobody knows how much it is: where it is more, the scores are computed once more.
    constexpr double mostGuessed = 1 << 24;
    const double half = 0.5 * double(operands_.x.rows * operands_.positions());
    return roomFor(std::min(half, std::max(mostGuessed, 2 * double(k_))));
  }

 private:
  static int64_t roomFor(double expected) { return int64_t(1.2 * expected) + 4096; }

  static constexpr int64_t sampledRows = 128;
  // How many times as many entries as wanted.
  static constexpr int attempts = 3;
  static constexpr double factors[attempts] = {1.25, 2, 8};

  Context& gpu_;
  const EncodeOperands& operands_;
  int64_t k_;
  int attempt_ = 0;
  int64_t count_ = 0;
  float* scores_ = nullptr;  // [count]: of the sample
};

// ---- The cut through the batch

constexpr unsigned rowWarps = 8, rowThreads = rowWarps * warpSize_;

struct EntryCounts {
  uint32_t* above;   // [rows]: the entries above the cut's key
  uint32_t* equals;  // [rows]: those that have it
};

// One warp per row.
__global__ void __launch_bounds__(rowThreads)
    countEntriesKernel(MadeCodes codes, int64_t rows, const Cut* cut, EntryCounts counts) {
  const int64_t row = int64_t(blockIdx.x) * rowWarps + warpOf();
  if (row >= rows) return;  // the whole warp
  uint32_t above = 0, equals = 0;
  const uint64_t end = codes.rowOffsets[row + 1];
  for (uint64_t first = codes.rowOffsets[row]; first < end; first += warpSize_) {
    const bool inside = first + laneOf() < end;
    const uint32_t key = inside ? orderedKey(codes.preActivations[first + laneOf()]) : 0;
    above += __popc(__ballot_sync(allLanes, inside && key > cut->key));
    equals += __popc(__ballot_sync(allLanes, inside && key == cut->key));
  }
  if (laneOf() != 0) return;
  counts.above[row] = above;
  counts.equals[row] = equals;
}

// counts.equals[row] = how many of the row's equals are among the first cut->equals of all; taken[row] = how many
// entries of the row are. equalsBefore [rows + 1]: the equals of the rows before.
__global__ void shareEqualsKernel(EntryCounts counts, int64_t rows, const Cut* cut, const uint64_t* equalsBefore,
                                  uint32_t* taken) {
  FOR_EACH_ELEMENT(row, rows) {
    const uint64_t before = min(equalsBefore[row], uint64_t(cut->equals));
    const uint32_t equals = uint32_t(min(uint64_t(counts.equals[row]), cut->equals - before));
    counts.equals[row] = equals;
    taken[row] = counts.above[row] + equals;
  }
}

struct BatchEntry {
  float score;
  uint32_t feature;
};

// The entries that the cut takes, to their places, one warp per row.
__global__ void __launch_bounds__(rowThreads)
    takeEntriesKernel(MadeCodes codes, int64_t rows, const Cut* cut, const uint32_t* equals, MadeCodes out) {
  const int64_t row = int64_t(blockIdx.x) * rowWarps + warpOf();
  if (row >= rows) return;  // the whole warp
  const uint64_t from = codes.rowOffsets[row], to = out.rowOffsets[row];
  takeLargest<ByValue>(
      uint32_t(codes.rowOffsets[row + 1] - from), Cut{cut->key, equals[row]},
      [&](uint32_t i) {
        return BatchEntry{codes.preActivations[from + i], codes.features[from + i]};
      },
      [&](const BatchEntry& entry, uint32_t place) {
        out.features[to + place] = entry.feature;
        out.preActivations[to + place] = entry.score;
      });
}

// The k < codes.entries largest entries; earlier ones win among equals.
void takeLargestEntries(Context& gpu, const MadeCodes& codes, int64_t rows, int64_t k, MadeCodes* made) {
  if (uint64_t(codes.entries) > UINT32_MAX)
    throw EngineError(ErrorCode::unsupported, "Among " + std::to_string(codes.entries) +
                                                  " positive pre-activations the largest of a batch cannot be found; "
                                                  "at most 4294967295 are possible. Use a smaller batch.");
  made->entries = k;
  made->rowOffsets = gpu.allocate<uint64_t>(rows + 1);
  made->features = gpu.allocate<uint32_t>(k);
  made->preActivations = gpu.allocate<float>(k);
  const Cut* cut = findCutOfMany(gpu, codes.preActivations, codes.entries, k);
  const EntryCounts counts{gpu.allocate<uint32_t>(rows), gpu.allocate<uint32_t>(rows)};
  uint64_t* equalsBefore = gpu.allocate<uint64_t>(rows + 1);
  uint32_t* taken = gpu.allocate<uint32_t>(rows);
  const Launch warpPerRow{piecesOf(rows, rowWarps), rowThreads};
  launch(gpu, countEntriesKernel, warpPerRow, codes, rows, cut, counts);
  exclusiveScan(gpu, counts.equals, rows, equalsBefore);
  launch(gpu, shareEqualsKernel, elementwise(gpu, rows), counts, rows, cut, equalsBefore, taken);
  exclusiveScan(gpu, taken, rows, made->rowOffsets);
  launch(gpu, takeEntriesKernel, warpPerRow, codes, rows, cut, counts.equals, *made);
}

// At least the k largest positive entries, all if there are fewer.
CollectedEntries collectLargest(Context& gpu, const EncodeOperands& operands, int64_t k) {
  if (k == 0) {
    setBound(gpu, operands, INFINITY);
    return collectAbove(gpu, operands, 0);
  }
  SampledBounds bounds(gpu, operands, k);
  while (true) {
    const int64_t expected = bounds.setNext();
    const CollectedEntries collected = collectAbove(gpu, operands, expected);
    if (collected.count >= k || collected.bound == 0) return collected;
    release(gpu, collected);
  }
}

}  // namespace

void encodeBatchTopK(Context& gpu, const EncodeOperands& operands, int64_t k, MadeCodes* made) {
  const CollectedEntries collected = collectLargest(gpu, operands, k);
  if (collected.count <= k) return compactEntries(gpu, operands, collected, made);
  MadeCodes codes;
  compactEntries(gpu, operands, collected, &codes);
  takeLargestEntries(gpu, codes, operands.x.rows, k, made);
}

}  // namespace monosem::cuda
