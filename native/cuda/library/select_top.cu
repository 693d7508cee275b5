// Narrows codes to the k entries of each row with the largest pre-activations. Ties: the lower feature wins.
#include "cuda/library/kernels.h"
#include "cuda/library/non_finite.h"
#include "cuda/library/radix_select.h"
#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

constexpr unsigned warpsPerBlock = 8, blockThreads = warpsPerBlock * warpSize_;

struct SelectTopOutcome {
  static constexpr uint32_t none = UINT32_MAX;

  unsigned long long entries = 0;
  uint32_t nonFiniteRow = none;
};

// counts[row] = min(k, the row's entries); notes their sum, and the first row whose pre-activations are not all finite.
// One warp per row.
__global__ void __launch_bounds__(blockThreads)
    countTopKernel(CodesView codes, uint64_t k, uint32_t* counts, SelectTopOutcome* outcome) {
  const int64_t row = int64_t(blockIdx.x) * warpsPerBlock + warpOf();
  if (row >= codes.rows) return;  // the whole warp
  const uint64_t begin = codes.offsets[row], end = codes.offsets[row + 1];
  bool allFinite = true;
#pragma unroll 4
  for (uint64_t entry = begin + laneOf(); entry < end; entry += warpSize_)
    allFinite = allFinite && isFinite(codes.preActivations[entry]);
  allFinite = __all_sync(allLanes, allFinite);
  if (laneOf() != 0) return;
  const uint64_t count = min(k, end - begin);
  counts[row] = uint32_t(count);
  if (count > 0) atomicAdd(&outcome->entries, (unsigned long long)(count));
  if (!allFinite) atomicMin(&outcome->nonFiniteRow, uint32_t(row));
}

struct CodeEntry {
  float score;
  uint32_t feature;
  float value;
};

// One warp per row. k > 0.
__global__ void __launch_bounds__(blockThreads) selectTopKernel(CodesView codes, int64_t k, MadeCodes made) {
  __shared__ uint32_t histograms[warpsPerBlock][warpHistogramBins];
  const int64_t row = int64_t(blockIdx.x) * warpsPerBlock + warpOf();
  if (row >= codes.rows) return;  // the whole warp
  const uint64_t from = codes.offsets[row], to = made.rowOffsets[row];
  const uint32_t count = uint32_t(codes.offsets[row + 1] - from);
  const auto scoreAt = [&](uint32_t i) { return codes.preActivations[from + i]; };
  const Cut cut = count > k ? findCut<ByValue>(scoreAt, count, uint32_t(k), histograms[warpOf()]) : takeEverything;
  takeLargest<ByValue>(
      count, cut,
      [&](uint32_t i) {
        return CodeEntry{codes.preActivations[from + i], codes.features[from + i], codes.values[from + i]};
      },
      [&](const CodeEntry& entry, uint32_t place) {
        made.features[to + place] = entry.feature;
        made.preActivations[to + place] = entry.score;
        if (made.values) made.values[to + place] = entry.value;
      });
}

}  // namespace

// Reads the pre-activations up to six times, features and values once, all from the caches but for the first time;
// writes 12 bytes per entry. Waits once, for the number of entries.
void selectTop(Context& gpu, CodesView codes, int64_t k, MadeCodes* made) {
  const Launch warpPerRow{piecesOf(codes.rows, warpsPerBlock), blockThreads};
  const SelectTopOutcome nothing;
  SelectTopOutcome* noted = gpu.uploaded(&nothing, 1);
  uint32_t* counts = gpu.allocate<uint32_t>(codes.rows);
  made->rowOffsets = gpu.allocate<uint64_t>(codes.rows + 1);
  launch(gpu, countTopKernel, warpPerRow, codes, uint64_t(k), counts, noted);
  exclusiveScan(gpu, counts, codes.rows, made->rowOffsets);
  const SelectTopOutcome outcome = gpu.read(noted);
  if (outcome.nonFiniteRow != SelectTopOutcome::none)
    throwNonFinite("The pre-activations of the codes", outcome.nonFiniteRow);
  made->entries = int64_t(outcome.entries);
  made->features = gpu.allocate<uint32_t>(made->entries);
  made->preActivations = gpu.allocate<float>(made->entries);
  if (codes.values != codes.preActivations) made->values = gpu.allocate<float>(made->entries);
  if (made->entries > 0) launch(gpu, selectTopKernel, warpPerRow, codes, k, *made);
}

}  // namespace monosem::cuda
