// The entries of codes sorted by (feature, row).
#include "cuda/library/code_columns.h"
#include "cuda/library/kernels.h"
#include "cuda/library/scan.h"

namespace monosem::cuda {
namespace {

struct Placed {
  uint32_t entry, row;
};

constexpr unsigned sortWarps = 8;  // of a block
constexpr int64_t wordsPerWarp = 256;
// More entries than this are sorted by a whole block.
constexpr uint64_t mostOfWarp = 2048;

// counts[f] = the number of entries of f, whose numbers among them, in the order in which the threads come, are
// `numbers`. The counts are 0 before.
__global__ void countEntriesKernel(const uint32_t* features, int64_t entries, uint32_t* counts, uint32_t* numbers) {
  FOR_EACH_ELEMENT(entry, entries) numbers[entry] = atomicAdd(&counts[features[entry]], 1u);
}

// Puts every entry among those of its feature. A block per row.
__global__ void placeEntriesKernel(CodesView codes, const uint64_t* offsets, const uint32_t* numbers, Placed* placed) {
  const uint32_t row = blockIdx.x;
  for (uint64_t entry = codes.offsets[row] + threadIdx.x; entry < codes.offsets[row + 1]; entry += blockDim.x)
    placed[offsets[codes.features[entry]] + numbers[entry]] = {uint32_t(entry), row};
}

// The threads that sort one feature's entries, and their part of the shared memory.
struct WarpOfBlock {
  static constexpr unsigned threads = warpSize_;
  static constexpr int64_t words = wordsPerWarp;
  uint32_t* present;  // [words] rows as bits
  uint32_t* before;   // [words] the bits before a word

  __device__ unsigned thread() const { return laneOf(); }
  __device__ void synchronise() const { __syncwarp(); }
  __device__ uint32_t exclusiveSum(uint32_t value, uint32_t* total) const {
    const uint32_t sum = warpExclusiveSum(value);
    *total = __shfl_sync(allLanes, sum + value, int(warpSize_ - 1));
    return sum;
  }
};
struct WholeBlock {
  static constexpr unsigned threads = sortWarps * warpSize_;
  static constexpr int64_t words = sortWarps * wordsPerWarp;
  uint32_t* present;
  uint32_t* before;
  uint32_t* scratch;  // [33]

  __device__ unsigned thread() const { return threadIdx.x; }
  __device__ void synchronise() const { __syncthreads(); }
  __device__ uint32_t exclusiveSum(uint32_t value, uint32_t* total) const {
    return blockExclusiveSum(value, scratch, total);
  }
};

// Sorts the entries of a feature by row. Rows of a feature differ, so that a window of rows is a set of bits, and an
// entry's place the number of bits before its own.
template <class Group>
__device__ void sortByBits(const Group& group, const Placed* placed, uint64_t count, int64_t rowCount,
                           uint32_t* entries, uint32_t* rows) {
  constexpr int64_t rowsPerWindow = 32 * Group::words;
  uint64_t done = 0;  // entries of the windows before
  for (int64_t window = 0; window < rowCount; window += rowsPerWindow) {
    const int words = int(min(Group::words, (rowCount - window + 31) / 32));
    for (int word = int(group.thread()); word < words; word += int(Group::threads)) group.present[word] = 0;
    group.synchronise();
    for (uint64_t i = group.thread(); i < count; i += Group::threads) {
      const int64_t bit = int64_t(placed[i].row) - window;
      if (bit >= 0 && bit < rowsPerWindow) atomicOr(&group.present[bit / 32], 1u << (bit % 32));
    }
    group.synchronise();

    const int perThread = (words + int(Group::threads) - 1) / int(Group::threads);
    const int first = min(words, int(group.thread()) * perThread), end = min(words, first + perThread);
    uint32_t own = 0, ofWindow;
    for (int word = first; word < end; ++word) own += __popc(group.present[word]);
    uint32_t sum = group.exclusiveSum(own, &ofWindow);
    for (int word = first; word < end; ++word) {
      group.before[word] = sum;
      sum += __popc(group.present[word]);
    }
    group.synchronise();

    for (uint64_t i = group.thread(); i < count; i += Group::threads) {
      const Placed one = placed[i];
      const int64_t bit = int64_t(one.row) - window;
      if (bit < 0 || bit >= rowsPerWindow) continue;
      const uint32_t lower = group.present[bit / 32] & ((1u << (bit % 32)) - 1);
      const uint64_t place = done + group.before[bit / 32] + __popc(lower);
      entries[place] = one.entry;
      rows[place] = one.row;
    }
    done += ofWindow;
    group.synchronise();
  }
}

// Sorts up to 32 entries of a feature: an entry's place is the number of those with a smaller row. By a warp.
__device__ void sortByComparison(const Placed* placed, unsigned count, uint32_t* entries, uint32_t* rows) {
  const bool has = laneOf() < count;
  const Placed own = has ? placed[laneOf()] : Placed{0, 0};
  unsigned place = 0;
  for (unsigned other = 0; other < count; ++other)
    place += unsigned(__shfl_sync(allLanes, own.row, int(other)) < own.row);
  if (!has) return;
  entries[place] = own.entry;
  rows[place] = own.row;
}

// Sorts the entries of each feature by row, which makes the order in which they were placed forgotten. A warp per
// feature; those with many entries are then sorted by the block, one after the other.
__global__ void __launch_bounds__(sortWarps* warpSize_)
    sortEntriesKernel(const Placed* placed, const uint64_t* offsets, int64_t features, int64_t rowCount,
                      uint32_t* entries, uint32_t* rows) {
  __shared__ uint32_t present[WholeBlock::words], before[WholeBlock::words], scratch[33];
  const int64_t firstFeature = int64_t(blockIdx.x) * sortWarps, feature = firstFeature + warpOf();
  const uint64_t first = feature < features ? offsets[feature] : 0;
  const uint64_t count = feature < features ? offsets[feature + 1] - first : 0;
  if (count <= warpSize_) {
    sortByComparison(placed + first, unsigned(count), entries + first, rows + first);
  } else if (count <= mostOfWarp) {
    const int64_t mine = warpOf() * wordsPerWarp;
    sortByBits(WarpOfBlock{present + mine, before + mine}, placed + first, count, rowCount, entries + first,
               rows + first);
  }
  if (__syncthreads_or(count > mostOfWarp) == 0) return;
  for (int64_t other = firstFeature; other < min(features, firstFeature + sortWarps); ++other) {
    const uint64_t start = offsets[other], ofOther = offsets[other + 1] - start;
    if (ofOther > mostOfWarp)
      sortByBits(WholeBlock{present, before, scratch}, placed + start, ofOther, rowCount, entries + start,
                 rows + start);
  }
}

}  // namespace

// Sorts by counting: entries per feature, where each feature begins, its entries there in any order, which a last pass
// puts right. Reads and writes 8 bytes per entry in no order, and 4 bytes per entry six times in order.
void orderByFeature(Context& gpu, CodesView codes, uint64_t* offsets, uint32_t* entries, uint32_t* rows) {
  uint32_t* counts = gpu.allocate<uint32_t>(codes.dSae);
  Placed* placed = gpu.allocate<Placed>(codes.entries);
  gpu.clear(counts, sizeof(uint32_t) * size_t(codes.dSae));
  uint32_t* const numbers = rows;  // until the rows are known
  launch(gpu, countEntriesKernel, elementwise(gpu, codes.entries), codes.features, codes.entries, counts, numbers);
  exclusiveScan(gpu, counts, codes.dSae, offsets);
  launch(gpu, placeEntriesKernel, Launch{dim3(unsigned(codes.rows)), threadsPerRow(codes)}, codes, offsets, numbers,
         placed);
  launch(gpu, sortEntriesKernel, Launch{dim3(piecesOf(codes.dSae, sortWarps)), sortWarps * warpSize_}, placed, offsets,
         codes.dSae, codes.rows, entries, rows);
}

}  // namespace monosem::cuda
