#include "cuda/library/scan.h"

#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr unsigned scanThreads = 1024;
constexpr int countsPerThread = 4;
constexpr int64_t tileSize = int64_t(scanThreads) * countsPerThread;
// Up to so many tiles, one block that goes through them takes less time than three launches.
constexpr int64_t tilesOfOneBlock = 8;

// offsets[i] = base + counts[first] + ... + counts[i - 1] for the i of the tile that begins at `first`; returns
// offsets[the end of the tile]. By all threads of a block, each of which takes consecutive counts.
template <class Count>
__device__ uint64_t scanTile(const Count* counts, int64_t count, int64_t first, uint64_t base, uint64_t* offsets,
                             uint64_t* scratch) {
  const int64_t mine = first + int64_t(threadIdx.x) * countsPerThread;
  uint64_t own[countsPerThread], sum = 0;
#pragma unroll
  for (int i = 0; i < countsPerThread; ++i) {
    own[i] = mine + i < count ? uint64_t(counts[mine + i]) : 0;
    sum += own[i];
  }
  uint64_t total;
  uint64_t before = base + blockExclusiveSum(sum, scratch, &total);
#pragma unroll
  for (int i = 0; i < countsPerThread; ++i) {
    if (mine + i < count) offsets[mine + i] = before;
    before += own[i];
  }
  return base + total;
}

// The whole scan by one block, tile after tile.
template <class Count>
__global__ void __launch_bounds__(scanThreads)
    scanByOneBlockKernel(const Count* counts, int64_t count, uint64_t* offsets) {
  __shared__ uint64_t scratch[33];
  uint64_t base = 0;
  for (int64_t first = 0; first < count; first += tileSize)
    base = scanTile(counts, count, first, base, offsets, scratch);
  if (threadIdx.x == 0) offsets[count] = base;
}

// totals[t] = the sum of the counts of tile t. A block per tile.
__global__ void __launch_bounds__(scanThreads)
    tileTotalsKernel(const uint32_t* counts, int64_t count, uint64_t* totals) {
  __shared__ uint64_t scratch[33];
  const int64_t first = int64_t(blockIdx.x) * tileSize + threadIdx.x;
  uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < countsPerThread; ++i) {
    const int64_t place = first + int64_t(i) * scanThreads;
    if (place < count) sum += counts[place];
  }
  const uint64_t total = blockSum(sum, scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

// Every tile's scan, from the sum of the tiles before it: bases [tiles + 1]. A block per tile.
__global__ void __launch_bounds__(scanThreads)
    scanTilesKernel(const uint32_t* counts, int64_t count, const uint64_t* bases, uint64_t* offsets) {
  __shared__ uint64_t scratch[33];
  scanTile(counts, count, int64_t(blockIdx.x) * tileSize, bases[blockIdx.x], offsets, scratch);
  if (blockIdx.x == 0 && threadIdx.x == 0) offsets[count] = bases[gridDim.x];
}

}  // namespace

void exclusiveScan(Context& gpu, const uint32_t* counts, int64_t count, uint64_t* offsets) {
  const unsigned tiles = piecesOf(count, tileSize);
  if (tiles <= tilesOfOneBlock)
    return launch(gpu, scanByOneBlockKernel<uint32_t>, Launch{1, scanThreads}, counts, count, offsets);
  uint64_t* totals = gpu.allocate<uint64_t>(tiles);
  uint64_t* bases = gpu.allocate<uint64_t>(int64_t(tiles) + 1);
  launch(gpu, tileTotalsKernel, Launch{tiles, scanThreads}, counts, count, totals);
  launch(gpu, scanByOneBlockKernel<uint64_t>, Launch{1, scanThreads}, totals, int64_t(tiles), bases);
  launch(gpu, scanTilesKernel, Launch{tiles, scanThreads}, counts, count, bases, offsets);
}

}  // namespace monosem::cuda
