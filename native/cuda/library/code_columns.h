// Finding entries in the rows of codes, whose features ascend, and the columns they stand in: the features that were
// eligible, or with a subset their positions there.
#pragma once

#include "cuda/library/warp.h"

namespace monosem::cuda {

// The first feature that does not come before `column`.
__device__ inline int64_t featureOfColumn(const CodesView& codes, int64_t column) {
  if (column >= codes.eligible.count) return codes.dSae;
  return codes.eligible.indices ? int64_t(codes.eligible.indices[column]) : column;
}
__device__ inline int64_t columnOfFeature(const CodesView& codes, uint32_t feature) {
  return codes.eligible.position ? codes.eligible.position[feature] : feature;
}

// The first of the entries [first, end) of one row whose feature is at least `bound`, in all lanes; `end` if there is
// none. By a whole warp, whose lanes look at 32 places of the rest at once.
__device__ inline uint64_t firstEntryFrom(const uint32_t* features, uint64_t first, uint64_t end, int64_t bound) {
  while (first < end) {
    const uint64_t step = (end - first + warpSize_ - 1) / warpSize_;
    const uint64_t place = first + laneOf() * step;
    const unsigned below = __popc(__ballot_sync(allLanes, place < end && int64_t(features[place]) < bound));
    if (below == 0) break;
    end = min(end, first + below * step);  // the next place that was looked at is not below
    first += (below - 1) * step + 1;       // the last one is
  }
  return first;
}

// ends[0] and ends[1]: where the entries of the row in columns [column, column + count) begin and end. By the first two
// warps of a block, which has to synchronise before it reads them.
__device__ inline void findEntriesOfColumns(const CodesView& codes, int64_t row, int64_t column, int64_t count,
                                            uint64_t* ends) {
  if (warpOf() >= 2) return;
  const int64_t bound = featureOfColumn(codes, warpOf() == 0 ? column : column + count);
  const uint64_t end = firstEntryFrom(codes.features, codes.offsets[row], codes.offsets[row + 1], bound);
  if (laneOf() == 0) ends[warpOf()] = end;
}

// How many threads a block has that goes through the entries of one row: as many as a row has entries on average, in
// whole warps, at most 256.
inline unsigned threadsPerRow(const CodesView& codes) {
  constexpr int64_t mostWarps = 8;
  const int64_t warps = codes.rows > 0 ? (codes.entries / codes.rows + warpSize_ - 1) / warpSize_ : 1;
  return warpSize_ * unsigned(warps < 1 ? 1 : warps > mostWarps ? mostWarps : warps);
}

}  // namespace monosem::cuda
