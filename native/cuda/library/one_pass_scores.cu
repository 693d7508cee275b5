// See one_pass_scores.h. The product follows the usual plan for Hopper: in every block one warpgroup's only thread
// copies tiles of both factors into a ring of stages in shared memory, and two warpgroups multiply them, 64 rows each;
// the two blocks of a cluster, which have the same columns, copy half a tile of the encoder each, for both.
#include "cuda/library/one_pass_scores.h"

#include "cuda/library/hopper.h"
#include "cuda/library/radix_select.h"
#include "cuda/library/tensor_maps.h"

namespace monosem::cuda {
namespace {

constexpr int depth = 64;  // of a tile; 64 bfloat16 are 128 bytes
constexpr int stageCount = 4;
constexpr unsigned warpgroupThreads = 128;
constexpr unsigned multiplying = 2;  // warpgroups
constexpr unsigned blockThreads = (1 + multiplying) * warpgroupThreads;

struct Stage {
  Bfloat16 x[blockRows * depth];
  Bfloat16 encoder[blockColumns * depth];
};
struct Shared {
  Stage stages[stageCount];
  uint32_t histograms[multiplying * 4][warpHistogramBins];
  uint64_t filled[stageCount], emptied[stageCount];
};
constexpr size_t sharedAlignment = 1024;  // of tiles that are swizzled

struct Pass {
  int64_t rows, positions, depths;  // depths: of the factors, in tiles
  int64_t firstPosition, tiles;     // of columns
  const float* biases;
  ScoreBounds bounds;
  uint32_t k;
  LaneLists lists;
  EncodeOutcome* outcome;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of a block's 65536: 40 * 128 + 232 * 256.
constexpr int copyingRegisters = 40, multiplyingRegisters = 232;

// The tiles of a block's stripe.
struct Tiles {
  int64_t begin, end;

  __device__ explicit Tiles(const Pass& pass)
      : begin(pass.tiles * blockIdx.y / pass.lists.stripes), end(pass.tiles * (blockIdx.y + 1) / pass.lists.stripes) {}
};

// A place in the ring, and the parity of its phase.
struct Place {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage < stageCount) return;
    stage = 0;
    parity ^= 1;
  }
};

// By one thread.
__device__ void copyTiles(const Pass& pass, const CUtensorMap& x, const CUtensorMap& encoder, Shared& shared) {
  constexpr int ownColumns = blockColumns / int(clusterBlocks);
  const int own = int(hopper::rankInCluster()) * ownColumns, firstRow = int(blockIdx.x) * blockRows;
  const Tiles tiles(pass);
  Place place;
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const int firstColumn = int(pass.firstPosition + tile * blockColumns);
    for (int at = 0; at < int(pass.depths); ++at) {
      hopper::wait(&shared.emptied[place.stage], place.parity ^ 1);
      Stage& stage = shared.stages[place.stage];
      uint64_t* const filled = &shared.filled[place.stage];
      hopper::arriveExpecting(filled, sizeof(Stage));
      hopper::copyTile(x, firstRow, at * depth, stage.x, filled);
      hopper::copyTileTo((1u << clusterBlocks) - 1, encoder, firstColumn + own, at * depth, stage.encoder + own * depth,
                         filled);
      place.advance();
    }
  }
}

// A thread's list of one row.
struct OwnList {
  int64_t index;
  uint32_t first, end;  // in bytes from the beginning of all lists
  float bound;          // infinite where there is no such row
  float check = 0;      // stays 0 while all scores are finite

  __device__ OwnList(const Pass& pass, int64_t row)
      : index((row * pass.lists.stripes + blockIdx.y) * listsPerStripe + laneOf() % listsPerStripe),
        first(uint32_t(index * pass.lists.capacity * int64_t(sizeof(Candidate)))),
        end(first),
        bound(INFINITY) {
    if (row >= pass.rows) return;
    bound = pass.bounds.ofRows ? pass.bounds.ofRows[row] : pass.bounds.ofAll ? *pass.bounds.ofAll : -INFINITY;
  }
  __device__ uint32_t count() const { return (end - first) / sizeof(Candidate); }
  __device__ void keep(uint32_t count) { end = first + count * sizeof(Candidate); }
  // Of a position that has a bound of its own.
  template <bool byPosition>
  __device__ float boundWith(float ofPosition) const {
    return byPosition ? fmaxf(bound, ofPosition) : bound;
  }
  // NaN is taken: it has to be seen. Few scores are, different ones in each lane, so that the instructions are
  // predicated and never branched around, which the compiler would do. An address is the sum of a number that all
  // threads have and one of 32 bits, which is an instruction's own way of addressing.
  template <class Order>
  __device__ void offer(const Pass& pass, float score, float above, int64_t position) {
    check = fmaf(score, 0.0f, check);
    asm volatile(
        "{\n.reg .pred taken;\n.reg .b64 place;\n"
        "setp.gtu.f32 taken, %1, %2;\n"
        "cvt.u64.u32 place, %0;\n"
        "add.u64 place, place, %3;\n"
        "@taken st.global.v2.b32 [place], {%4, %5};\n"
        "@taken add.u32 %0, %0, %6;\n}"
        : "+r"(end)
        : "f"(Order::rank(score)), "f"(above), "l"(pass.lists.candidates), "r"(__float_as_uint(score)),
          "r"(uint32_t(position)), "n"(sizeof(Candidate))
        : "memory");
  }
};

// Makes room for the scores of one more tile; by a warp.
template <class Order>
__device__ __forceinline__ void makeRoom(const Pass& pass, OwnList& list, uint32_t* histogram) {
  const bool full = int64_t(list.count()) > pass.lists.capacity - scoresPerTile;
  unsigned lanes = __ballot_sync(allLanes, full);
  if (lanes == 0) return;
  if (pass.k == 0) {
    if (full) {
      pass.outcome->listsOverflowed = 1;
      atomicAdd(&pass.outcome->entries, (unsigned long long)(list.count()));
      list.keep(0);
    }
    return;
  }
  __syncwarp();  // what a lane has written is seen by the others
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __ffs(int(lanes)) - 1;
    Candidate* const candidates = pass.lists.candidates + __shfl_sync(allLanes, list.index, lane) * pass.lists.capacity;
    const uint32_t count = __shfl_sync(allLanes, list.count(), lane);
    const Cut cut = findCut<Order>([&](uint32_t i) { return candidates[i].score; }, count, pass.k, histogram);
    const uint32_t taken = takeLargest<Order>(
        count, cut, [&](uint32_t i) { return candidates[i]; },
        [&](const Candidate& candidate, uint32_t place) { candidates[place] = candidate; });
    if (int(laneOf()) != lane) continue;
    list.keep(taken);
    list.bound = fromOrderedKey(cut.key);
  }
  __syncwarp();
}

// Two neighbours of a vector; `inside` of which there are any.
__device__ float2 pairAt(const float* vector, int64_t place, int64_t inside) {
  if (inside >= 2) return __ldg(reinterpret_cast<const float2*>(vector + place));
  return {inside > 0 ? vector[place] : 0, 0};
}

// Offers a tile's scores. `whole`: all of its columns are positions.
template <class Order, bool byPosition, bool whole>
__device__ __forceinline__ void offerTile(const Pass& pass, int64_t firstColumn, const float (&sums)[128],
                                          OwnList& upper, OwnList& lower) {
  const int64_t own = firstColumn + 2 * (laneOf() % listsPerStripe);
#pragma unroll
  for (int group = 0; group < blockColumns / 8; ++group) {
    const int64_t position = own + 8 * group, inside = whole ? 2 : pass.positions - position;
    const float2 bias = pairAt(pass.biases, position, inside);
    float2 bound{};
    if (byPosition) {
      bound = pairAt(pass.bounds.ofPositions, position, inside);
      bound = {bound.x - pass.bounds.margin, bound.y - pass.bounds.margin};
    }
    if (whole || inside > 0) {
      upper.offer<Order>(pass, sums[4 * group] + bias.x, upper.boundWith<byPosition>(bound.x), position);
      lower.offer<Order>(pass, sums[4 * group + 2] + bias.x, lower.boundWith<byPosition>(bound.x), position);
    }
    if (whole || inside > 1) {
      upper.offer<Order>(pass, sums[4 * group + 1] + bias.y, upper.boundWith<byPosition>(bound.y), position + 1);
      lower.offer<Order>(pass, sums[4 * group + 3] + bias.y, lower.boundWith<byPosition>(bound.y), position + 1);
    }
  }
}

// By the threads of one warpgroup.
template <class Order, bool byPosition>
__device__ void multiplyAndOffer(const Pass& pass, Shared& shared) {
  const unsigned warpgroup = threadIdx.x / warpgroupThreads - 1, thread = threadIdx.x % warpgroupThreads;
  uint32_t* const histogram = shared.histograms[warpgroup * 4 + thread / warpSize_];
  const int64_t row = int64_t(blockIdx.x) * blockRows + warpgroup * 64 + thread / warpSize_ * 16 + laneOf() / 4;
  OwnList upper(pass, row), lower(pass, row + 8);
  const Tiles tiles(pass);
  Place place;
  float sums[128];
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    int before = -1;  // the stage that products may still read
    for (int at = 0; at < int(pass.depths); ++at) {
      hopper::wait(&shared.filled[place.stage], place.parity);
      const Stage& stage = shared.stages[place.stage];
      const uint64_t x = hopper::tileDescriptor(stage.x + warpgroup * 64 * depth);
      const uint64_t encoder = hopper::tileDescriptor(stage.encoder);
      hopper::beginProducts();
#pragma unroll
      for (int k = 0; k < depth / 16; ++k) hopper::multiply64x256x16(sums, x + 2 * k, encoder + 2 * k, at > 0 || k > 0);
      hopper::commitProducts();
      hopper::waitForProducts<1>();
      if (before >= 0 && thread < clusterBlocks) hopper::arriveAt(&shared.emptied[before], thread);
      before = place.stage;
      place.advance();
    }
    hopper::waitForProducts<0>();
    if (thread < clusterBlocks) hopper::arriveAt(&shared.emptied[before], thread);

    const int64_t firstColumn = pass.firstPosition + tile * blockColumns;
    if (firstColumn + blockColumns <= pass.positions)
      offerTile<Order, byPosition, true>(pass, firstColumn, sums, upper, lower);
    else
      offerTile<Order, byPosition, false>(pass, firstColumn, sums, upper, lower);
    makeRoom<Order>(pass, upper, histogram);
    makeRoom<Order>(pass, lower, histogram);
  }
  pass.lists.counts[upper.index] = upper.count();
  pass.lists.counts[lower.index] = lower.count();
  if (row < pass.rows) noteScores(upper.check == 0, row, pass.outcome);
  if (row + 8 < pass.rows) noteScores(lower.check == 0, row + 8, pass.outcome);
}

#endif

// The code for other GPUs, which is empty, knows no clusters.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define IN_CLUSTERS __cluster_dims__(clusterBlocks, 1, 1)
#else
#define IN_CLUSTERS
#endif

// Grid [tiles of rows, stripes], in clusters of neighbouring rows.
template <class Order, bool byPosition>
__global__ void IN_CLUSTERS __launch_bounds__(blockThreads, 1)
    collectInOnePassKernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap encoder,
                           const __grid_constant__ Pass pass) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  DYNAMIC_SHARED(unsigned char, memory);
  Shared& shared = *reinterpret_cast<Shared*>((reinterpret_cast<uintptr_t>(memory) + sharedAlignment - 1) /
                                              sharedAlignment * sharedAlignment);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < stageCount; ++stage) {
      hopper::initialise(&shared.filled[stage], 1);
      hopper::initialise(&shared.emptied[stage], multiplying * clusterBlocks);
    }
    hopper::publishBarriers();
  }
  hopper::synchroniseCluster();
  if (threadIdx.x < warpgroupThreads) {
    hopper::releaseRegisters<copyingRegisters>();
    if (threadIdx.x == 0) copyTiles(pass, x, encoder, shared);
  } else {
    hopper::takeRegisters<multiplyingRegisters>();
    multiplyAndOffer<Order, byPosition>(pass, shared);
  }
  hopper::synchroniseCluster();  // a block that is done stays as long as the other one may write to it
#endif
}

__global__ void hasWarpgroupProductsKernel(uint32_t* has) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  *has = 1;
#else
  *has = 0;
#endif
}

}  // namespace

bool findWarpgroupProducts(Context& gpu) {
  uint32_t* const has = gpu.allocate<uint32_t>(1);
  launch(gpu, hasWarpgroupProductsKernel, Launch{1, 1}, has);
  return gpu.read(has) == 1;
}

void collectInOnePass(Context& gpu, const EncodeOperands& operands, const OnePassFactors& factors,
                      int64_t firstPosition, const ScoreBounds& bounds, int64_t k, bool byMagnitude,
                      const LaneLists& lists) {
  const auto& [x, encoder] = factors;
  const Pass pass{x.rows,
                  operands.positions(),
                  piecesOf(x.columns, depth),
                  firstPosition,
                  piecesOf(operands.positions() - firstPosition, blockColumns),
                  operands.biases,
                  bounds,
                  uint32_t(k),
                  lists,
                  operands.outcome};
  const unsigned clusters = piecesOf(x.rows, blockRows * clusterBlocks);
  const Launch how{dim3(clusters * clusterBlocks, unsigned(lists.stripes)), blockThreads,
                   sizeof(Shared) + sharedAlignment};
  const auto kernel = bounds.ofPositions ? collectInOnePassKernel<ByValue, true>
                      : byMagnitude      ? collectInOnePassKernel<ByMagnitude, false>
                                         : collectInOnePassKernel<ByValue, false>;
  launch(gpu, kernel, how, tensorMap(x, blockRows, depth), tensorMap(encoder, blockColumns / clusterBlocks, depth),
         pass);
}

}  // namespace monosem::cuda
