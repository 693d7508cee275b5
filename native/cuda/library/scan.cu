#include "cuda/library/scan.h"

#include "cuda/library/block_sum.h"

namespace monosem::cuda {
namespace {

constexpr unsigned scanThreads = 1024;
// A thread's: two counts are 8 bytes and two offsets 16, which neighbouring threads read and write side by side.
constexpr int countsPerThread = 2;
constexpr int64_t tileSize = int64_t(scanThreads) * countsPerThread;
// Up to so many tiles, every tile reads the counts before its own, 512 KB at most, in less time than a launch that sums
// them beforehand takes.
constexpr int64_t tilesOfOneLaunch = 64;

// totals[t] = the sum of the counts of tile t. A block per tile.
__global__ void __launch_bounds__(scanThreads)
    tileTotalsKernel(const uint32_t* counts, int64_t count, uint64_t* totals) {
  __shared__ uint64_t scratch[33];
  const int64_t first = int64_t(blockIdx.x) * tileSize;
  const uint64_t total =
      blockSum(ownSumOf<uint64_t, scanThreads>(counts + first, min(tileSize, count - first)), scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

// The offsets of a tile. A block per tile, which adds up by itself what comes before: `perTile` numbers of each of the
// tiles before its own.
template <class Number>
__global__ void __launch_bounds__(scanThreads)
    scanTilesKernel(const uint32_t* counts, int64_t count, const Number* before, int64_t perTile, uint64_t* offsets) {
  __shared__ uint64_t scratch[33];
  const int64_t mine = int64_t(blockIdx.x) * tileSize + int64_t(threadIdx.x) * countsPerThread;
  Pack<uint32_t, countsPerThread> own = {};
  if (mine + countsPerThread <= count)
    own = loadPack<countsPerThread>(counts + mine);
  else if (mine < count)
    own.at[0] = counts[mine];
  const uint64_t base = blockSum(ownSumOf<uint64_t, scanThreads>(before, int64_t(blockIdx.x) * perTile), scratch);
  uint64_t total;
  const uint64_t first = base + blockExclusiveSum(uint64_t(own.at[0]) + own.at[1], scratch, &total);
  if (mine + countsPerThread <= count)
    storePack(offsets + mine, Pack<uint64_t, countsPerThread>{{first, first + own.at[0]}});
  else if (mine < count)
    offsets[mine] = first;
  if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) offsets[count] = base + total;
}

}  // namespace

void exclusiveScan(Context& gpu, const uint32_t* counts, int64_t count, uint64_t* offsets) {
  const unsigned tiles = count > 0 ? piecesOf(count, tileSize) : 1;
  const Launch blockPerTile{tiles, scanThreads};
  if (tiles <= tilesOfOneLaunch)
    return launch(gpu, scanTilesKernel<uint32_t>, blockPerTile, counts, count, counts, tileSize, offsets);
  uint64_t* totals = gpu.allocate<uint64_t>(tiles);
  launch(gpu, tileTotalsKernel, blockPerTile, counts, count, totals);
  launch(gpu, scanTilesKernel<uint64_t>, blockPerTile, counts, count, totals, 1, offsets);
}

}  // namespace monosem::cuda
