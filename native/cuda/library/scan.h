// Prefix sums over the whole device: from counts to places.
#pragma once

#include "cuda/library/context.h"

namespace monosem::cuda {

// offsets[i] = counts[0] + ... + counts[i - 1] for i in [0, count]: one more than there are counts, the last is the
// total. The counts stay as they are. Both begin where allocated memory begins: they are read and written in packs.
void exclusiveScan(Context& gpu, const uint32_t* counts, int64_t count, uint64_t* offsets);

}  // namespace monosem::cuda
