// The algebra of entries, and codes made of a part of others.
#include "cuda/library/code_columns.h"
#include "cuda/library/kernels.h"
#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

// out[e] = scale * perFeature[feature(e)] * a[e] * b[e] + plus[e], multiplied from left to right; what is null is left
// out. A thread per entry.
__global__ void entryProductKernel(const uint32_t* features, int64_t entries, const float* a, const float* b,
                                   const float* perFeature, float scale, const float* plus, float* out) {
  FOR_EACH_ELEMENT(entry, entries) {
    float result = scale;
    if (perFeature) result *= perFeature[features[entry]];
    if (a) result *= a[entry];
    if (b) result *= b[entry];
    if (plus) result += plus[entry];
    out[entry] = result;
  }
}

// Where in each row the entries with from <= feature < to begin, and how many they are. A warp per row.
__global__ void findRangesKernel(CodesView codes, int64_t from, int64_t to, uint64_t* firsts, uint32_t* counts) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / warpSize_) + warpOf();
  const uint64_t begin = row < codes.rows ? codes.offsets[row] : 0, end = row < codes.rows ? codes.offsets[row + 1] : 0;
  const uint64_t first = firstEntryFrom(codes.features, begin, end, from);
  const uint64_t last = firstEntryFrom(codes.features, first, end, to);
  if (row >= codes.rows || laneOf() != 0) return;
  firsts[row] = first;
  counts[row] = uint32_t(last - first);
}

// Copies each row's stretch of entries to its new place. A block per row.
__global__ void copyRangesKernel(CodesView codes, const uint64_t* firsts, MadeCodes made) {
  const int64_t row = blockIdx.x;
  const uint64_t from = firsts[row], to = made.rowOffsets[row], count = made.rowOffsets[row + 1] - to;
  for (uint64_t i = threadIdx.x; i < count; i += blockDim.x) {
    made.features[to + i] = codes.features[from + i];
    made.preActivations[to + i] = codes.preActivations[from + i];
    if (made.values) made.values[to + i] = codes.values[from + i];
  }
}

}  // namespace

void entryProduct(Context& gpu, CodesView codes, EntryProduct product, float* out) {
  launch(gpu, entryProductKernel, elementwise(gpu, codes.entries), codes.features, codes.entries, product.a, product.b,
         product.perFeature.data, float(product.scale), product.plus, out);
}

// The entries with from <= feature < to: in every row a stretch, since its features ascend. Waits for their number.
void featureRange(Context& gpu, CodesView codes, int64_t from, int64_t to, MadeCodes* made) {
  constexpr unsigned rowsPerBlock = 8;
  uint64_t* firsts = gpu.allocate<uint64_t>(codes.rows);
  uint32_t* counts = gpu.allocate<uint32_t>(codes.rows);
  launch(gpu, findRangesKernel, Launch{dim3(piecesOf(codes.rows, rowsPerBlock)), rowsPerBlock * warpSize_}, codes, from,
         to, firsts, counts);
  made->rowOffsets = gpu.allocate<uint64_t>(codes.rows + 1);
  exclusiveScan(gpu, counts, codes.rows, made->rowOffsets);
  made->entries = int64_t(gpu.read(made->rowOffsets + codes.rows));
  made->features = gpu.allocate<uint32_t>(made->entries);
  made->preActivations = gpu.allocate<float>(made->entries);
  if (codes.values != codes.preActivations) made->values = gpu.allocate<float>(made->entries);
  launch(gpu, copyRangesKernel, Launch{dim3(unsigned(codes.rows)), threadsPerRow(codes)}, codes, firsts, *made);
}

}  // namespace monosem::cuda
