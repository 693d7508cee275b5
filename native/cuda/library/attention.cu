// Causal attention.
//
//   scores[q, k]  = cap(scale * query q . key k)     for the keys that q sees
//   pattern[q, :] = softmax(scores[q, :])
//   out[q, :]     = sum over k of pattern[q, k] * value k
//
// Everything is a product of tiles in shared memory: 64 queries of one head of one sequence against 64 keys, by a block
// of 16 x 16 threads, of which thread (i, j) has rows 4i ... 4i + 3 and columns 4j ... 4j + 3 of the product in
// registers. The factors stand with their inner dimension first, so that a step of it takes a thread one access of 16
// bytes per factor. Products and sums are float32, of the inner dimension in ascending order.
//
// The attention proper lets the tiles of keys pass by in ascending order and keeps per query the largest score so far,
// the sum of exponentials and the sum of values relative to it (the online softmax of FlashAttention, Dao et al. 2022,
// arXiv:2205.14135), so that nothing of size positions^2 exists. A few queries, as in generation, would leave most of a
// tile empty; they have a kernel of their own.
#include <algorithm>
#include <cmath>

#include "cuda/library/kernels.h"
#include "cuda/library/pack.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr int tileSize = 64;
constexpr int threadsPerSide = 16, perThread = tileSize / threadsPerSide;
constexpr unsigned tileThreads = threadsPerSide * threadsPerSide;
// From one step of the inner dimension to the next: a multiple of 16 bytes, and 4 banks further on.
constexpr int tileStride = tileSize + 4;
constexpr int tileFloats = tileSize * tileStride;

// Where the keys end that query `position` sees.
__device__ inline int64_t visibleKeys(const Attention& a, int64_t position) {
  return a.keyPositions - a.queryPositions + position + 1;
}

// One head of one sequence.
struct Head {
  __device__ Head(const Attention& a, int64_t index)
      : index(index), stride(int(a.heads * a.dHead)), keyStride(int(a.keyHeads * a.dHead)) {
    const int64_t sequence = index / a.heads, head = index % a.heads;
    queryOffset = (sequence * a.queryPositions * a.heads + head) * a.dHead;
    keyOffset = (sequence * a.keyCapacity * a.keyHeads + head / (a.heads / a.keyHeads)) * a.dHead;
    firstKey = a.firstKeys ? max(int64_t(0), min(int64_t(a.firstKeys[sequence]), a.keyPositions)) : 0;
  }

  // Where the keys begin that query `position` sees; not behind their end.
  __device__ int64_t firstVisible(const Attention& a, int64_t position) const {
    const int64_t end = visibleKeys(a, position);
    return min(end, a.window > 0 ? max(firstKey, end - a.window) : firstKey);
  }

  int64_t index;        // sequence * heads + head
  int stride;           // from one position to the next, of queries
  int keyStride;        // and of keys and values
  int64_t firstKey;     // where the sequence begins
  int64_t queryOffset;  // of its first query, in the queries and in out
  int64_t keyOffset;    // of its first key, in the keys and in the values
};

// 64 queries, or the last ones.
struct QueryTile {
  __device__ QueryTile(const Attention& a, int64_t index)
      : first(index * tileSize), count(int(min(int64_t(tileSize), a.queryPositions - first))) {}

  int64_t first;
  int count;
};
__host__ __device__ inline int64_t queryTiles(const Attention& a) {
  return (a.queryPositions + tileSize - 1) / tileSize;
}

// ---- Tiles

// Eight loads of a thread are under way before it stores the first.

// tile[k][row] = factor * rows[row * stride + k], for k < depth; 0 from `count` rows on. Eight neighbouring lanes read
// eight neighbouring elements of a row; the 32 places that a warp stores to are in different banks.
__device__ inline void loadTransposed(const float* rows, int stride, int count, int depth, float factor, float* tile) {
  constexpr int neighbours = 8, rowsAtOnce = tileThreads / neighbours, rowSteps = tileSize / rowsAtOnce, depthSteps = 4;
  const int row = threadIdx.x / neighbours;
  for (int k = threadIdx.x % neighbours; k < depth; k += depthSteps * neighbours) {
    float values[depthSteps][rowSteps];
    const float* place = rows + int64_t(row) * stride + k;
#pragma unroll
    for (int j = 0; j < rowSteps; ++j, place += int64_t(rowsAtOnce) * stride)
#pragma unroll
      for (int i = 0; i < depthSteps; ++i)
        values[i][j] = row + j * rowsAtOnce < count && k + i * neighbours < depth ? place[i * neighbours] : 0.0f;
#pragma unroll
    for (int i = 0; i < depthSteps; ++i)
#pragma unroll
      for (int j = 0; j < rowSteps; ++j)
        tile[(k + i * neighbours) * tileStride + row + j * rowsAtOnce] = factor * values[i][j];
  }
}

// tile[row][c] = rows[row * stride + c] for c < columns <= 64 * groups; 0 beyond, and from `count` rows on.
template <int groups>
__device__ inline void loadRows(const float* rows, int stride, int count, int columns, float* tile) {
  constexpr int width = tileSize * groups, rowsAtOnce = tileThreads / width, rowSteps = 8;
  const int column = threadIdx.x % width;
  for (int row = threadIdx.x / width; row < count; row += rowSteps * rowsAtOnce) {
    float values[rowSteps];
    const float* place = rows + int64_t(row) * stride + column;
#pragma unroll
    for (int i = 0; i < rowSteps; ++i, place += int64_t(rowsAtOnce) * stride)
      values[i] = row + i * rowsAtOnce < count && column < columns ? *place : 0.0f;
#pragma unroll
    for (int i = 0; i < rowSteps; ++i) tile[(row + i * rowsAtOnce) * (width + 4) + column] = values[i];
  }
}

// sums[i][4g + j] += sum over k < depth of left[k][row + i] * right[k][64g + column + j], for this thread's row and
// column; right is 64 * groups wide.
template <int groups>
__device__ inline void multiplyTiles(const float* left, const float* right, int depth,
                                     float (&sums)[perThread][perThread * groups]) {
  constexpr int rightStride = tileSize * groups + 4;
  left += threadIdx.x / threadsPerSide * perThread;
  right += threadIdx.x % threadsPerSide * perThread;
#pragma unroll 2
  for (int k = 0; k < depth; ++k) {
    const Pack<float, perThread> rows = loadPack<perThread>(left + k * tileStride);
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const Pack<float, perThread> columns = loadPack<perThread>(right + k * rightStride + g * tileSize);
#pragma unroll
      for (int i = 0; i < perThread; ++i)
#pragma unroll
        for (int j = 0; j < perThread; ++j) sums[i][g * perThread + j] += rows.at[i] * columns.at[j];
    }
  }
}

__device__ inline float capScore(const Attention& a, float score) {
  const float cap = float(a.softCap);
  return cap == 0 ? score : cap * tanhf(score / cap);
}

// scores[i][j] = cap(scale * query . key), for this thread's queries of the tile and its keys of `keyCount` from
// firstKey on. dHead passes by in stretches of 64; where it is but one, the queries stay from one tile of keys to the
// next.
__device__ inline void multiplyKeys(const Attention& a, const Head& head, const QueryTile& tile, int64_t firstKey,
                                    int keyCount, bool queriesLoaded, float* queries, float* keys,
                                    float (&scores)[perThread][perThread]) {
#pragma unroll
  for (int i = 0; i < perThread; ++i)
#pragma unroll
    for (int j = 0; j < perThread; ++j) scores[i][j] = 0;
  for (int64_t first = 0; first < a.dHead; first += tileSize) {
    const int depth = int(min(int64_t(tileSize), a.dHead - first));
    __syncthreads();  // what stands in the tiles has been read
    if (!queriesLoaded || a.dHead > tileSize)
      loadTransposed(a.queries + head.queryOffset + tile.first * head.stride + first, head.stride, tile.count, depth,
                     float(a.scale), queries);
    loadTransposed(a.keys + head.keyOffset + firstKey * head.keyStride + first, head.keyStride, keyCount, depth, 1.0f,
                   keys);
    __syncthreads();
    multiplyTiles<1>(queries, keys, depth, scores);
  }
  if (a.softCap == 0) return;
#pragma unroll
  for (int i = 0; i < perThread; ++i)
#pragma unroll
    for (int j = 0; j < perThread; ++j) scores[i][j] = capScore(a, scores[i][j]);
}

// Over the threads that share this thread's rows.
template <class Combine>
__device__ inline float combineRow(float value, const Combine& combine) {
#pragma unroll
  for (int offset = threadsPerSide / 2; offset > 0; offset /= 2)
    value = combine(value, __shfl_xor_sync(allLanes, value, offset));
  return value;
}

__device__ inline float larger(float a, float b) {
  return b > a ? b : a;
}

// out[query, column] = factors[i] * sums[i][...] for this thread's queries of a tile, of `columns` columns from
// firstColumn of dHead on.
template <int groups>
__device__ inline void storeMixed(const Head& head, const QueryTile& tile, int64_t firstColumn, int columns,
                                  const float (&factors)[perThread], const float (&sums)[perThread][perThread * groups],
                                  float* out) {
  const int row = threadIdx.x / threadsPerSide * perThread, column = threadIdx.x % threadsPerSide * perThread;
#pragma unroll
  for (int i = 0; i < perThread; ++i) {
    if (row + i >= tile.count) break;
    float* const place = out + head.queryOffset + (tile.first + row + i) * head.stride + firstColumn;
#pragma unroll
    for (int g = 0; g < groups; ++g)
#pragma unroll
      for (int j = 0; j < perThread; ++j) {
        const int c = g * tileSize + column + j;
        if (c < columns) place[c] = factors[i] * sums[i][g * perThread + j];
      }
  }
}

// What a block does in a grid of one block per head, tile of queries, and 64 * groups columns of the values.
template <int groups>
struct MixingBlock {
  __device__ explicit MixingBlock(const Attention& a)
      : MixingBlock(a, blockIdx.x % columnGroups(a), blockIdx.x / columnGroups(a)) {}
  __device__ MixingBlock(const Attention& a, int64_t columnGroup, int64_t rest)
      : head(a, rest / queryTiles(a)),
        tile(a, queryTiles(a) - 1 - rest % queryTiles(a)),  // the last tiles, which see the most keys, first
        firstColumn(columnGroup * tileSize * groups),
        columns(int(min(int64_t(tileSize * groups), a.dHead - firstColumn))) {}

  __host__ __device__ static int64_t columnGroups(const Attention& a) {
    return (a.dHead + tileSize * groups - 1) / (tileSize * groups);
  }
  static Launch grid(const Attention& a, int tilesOf64) {
    return {dim3(unsigned(a.batch * a.heads * queryTiles(a) * columnGroups(a))), tileThreads,
            sizeof(float) * size_t(tilesOf64 * tileFloats + valueFloats)};
  }

  static constexpr int valueFloats = tileSize * (tileSize * groups + 4);

  Head head;
  QueryTile tile;
  int64_t firstColumn;
  int columns;
};

// ---- Kernels

// Reads the queries, keys and values of [batch, positions, heads, dHead], writes out [batch, queryPositions, heads,
// dHead]. A block has the queries of a tile and 64 * groups columns of the values; where dHead is larger, the blocks of
// the other columns compute the same scores again.
//
// Scores and exponentials of a tile are in registers; the exponentials go through shared memory, where the keys stood,
// to become the left factor of the product with the values. The 16 threads that share a query agree on its largest
// score; each sums the exponentials of its own keys, and at the end these sums are added as a tree. A query all of
// whose scores are -infinity gives zeros, as softmaxRows does.
template <int groups>
__global__ void __launch_bounds__(tileThreads, 2) attentionKernel(Attention a, float* out) {
  DYNAMIC_SHARED(float, queries);
  float* const keys = queries + tileFloats;
  float* const values = keys + tileFloats;
  const MixingBlock<groups> block(a);
  const Head& head = block.head;
  const QueryTile& tile = block.tile;
  const int row = threadIdx.x / threadsPerSide * perThread, column = threadIdx.x % threadsPerSide * perThread;

  float mixed[perThread][perThread * groups] = {}, totals[perThread] = {}, largest[perThread];
#pragma unroll
  for (int i = 0; i < perThread; ++i) largest[i] = -INFINITY;
  const int64_t lastVisible = visibleKeys(a, tile.first + tile.count - 1);
  const int64_t firstTile = head.firstVisible(a, tile.first) / tileSize * tileSize;
  for (int64_t firstKey = firstTile; firstKey < lastVisible; firstKey += tileSize) {
    const int keyCount = int(min(int64_t(tileSize), lastVisible - firstKey));
    float scores[perThread][perThread];
    multiplyKeys(a, head, tile, firstKey, keyCount, firstKey > firstTile, queries, keys, scores);
    // How many keys of the tile the first query sees; each one after it sees one more.
    const int visible = int(min(int64_t(tileSize), visibleKeys(a, tile.first) - firstKey));
#pragma unroll
    for (int i = 0; i < perThread; ++i) {
      float most = largest[i];
      const int hidden = int(min(int64_t(tileSize), head.firstVisible(a, tile.first + row + i) - firstKey));
#pragma unroll
      for (int j = 0; j < perThread; ++j) {
        if (column + j < hidden || column + j >= visible + row + i) scores[i][j] = -INFINITY;
        most = larger(most, scores[i][j]);
      }
      most = combineRow(most, larger);
      const float rescale = most == largest[i] ? 1.0f : expf(largest[i] - most);
      const float shift = most == -INFINITY ? 0.0f : most;
      largest[i] = most;
      totals[i] *= rescale;
#pragma unroll
      for (int j = 0; j < perThread; ++j) {
        scores[i][j] = expf(scores[i][j] - shift);
        totals[i] += scores[i][j];
      }
#pragma unroll
      for (int c = 0; c < perThread * groups; ++c) mixed[i][c] *= rescale;
    }
    __syncthreads();  // the keys have been read
#pragma unroll
    for (int j = 0; j < perThread; ++j) {
      Pack<float, perThread> ofKey;
#pragma unroll
      for (int i = 0; i < perThread; ++i) ofKey.at[i] = scores[i][j];
      storePack(keys + (column + j) * tileStride + row, ofKey);
    }
    loadRows<groups>(a.values + head.keyOffset + firstKey * head.keyStride + block.firstColumn, head.keyStride,
                     keyCount, block.columns, values);
    __syncthreads();
    multiplyTiles<groups>(keys, values, keyCount, mixed);
  }
#pragma unroll
  for (int i = 0; i < perThread; ++i) {
    const float total = combineRow(totals[i], [](float x, float y) { return x + y; });
    totals[i] = total == 0 ? 0.0f : 1 / total;
  }
  storeMixed<groups>(head, tile, block.firstColumn, block.columns, totals, mixed, out);
}

// What a block has found in its stretch of keys: the largest score, and relative to it the sum of exponentials and the
// sums of `width` columns of the values.
template <int width>
struct KeyStretch {
  float largest, total;
  float mixed[width];
};

// The same for a few queries against a cache: a block has one query of one head and `width` columns of the values. In
// turn, for 256 keys at a time, eight lanes take a key and form its score; each thread makes one score an exponential;
// and each thread sums the values of one column, over every (256 / width)-th key. Where there are few queries, and many
// keys, several blocks (blockIdx.y) have a stretch of the keys each, and leave what they have found in `found`
// [gridDim.x, gridDim.y] for combineStretchesKernel.
constexpr unsigned fewThreads = 256;
template <int width>
__global__ void __launch_bounds__(fewThreads)
    attentionOfFewQueriesKernel(Attention a, KeyStretch<width>* found, float* out) {
  constexpr int lanesPerKey = 8, keysAtOnce = fewThreads / lanesPerKey, stretches = fewThreads / width;
  DYNAMIC_SHARED(float, scaledQuery);  // [dHead]
  __shared__ float scores[fewThreads];
  __shared__ float scratch[warpSize_ + 1];
  const int64_t columnGroups = (a.dHead + width - 1) / width, item = blockIdx.x / columnGroups;
  const Head head(a, item / a.queryPositions);
  const int64_t position = item % a.queryPositions;
  const int64_t firstVisible = head.firstVisible(a, position), endVisible = visibleKeys(a, position);
  const int64_t perBlock = (endVisible - firstVisible + gridDim.y - 1) / gridDim.y;
  const int64_t begin = firstVisible + blockIdx.y * perBlock, end = min(endVisible, begin + perBlock);
  const float* query = a.queries + head.queryOffset + position * head.stride;
  const int64_t column = int64_t(blockIdx.x) % columnGroups * width + threadIdx.x % width;
  const int stretch = threadIdx.x / width, lane = threadIdx.x % lanesPerKey;
  for (int64_t d = threadIdx.x; d < a.dHead; d += fewThreads) scaledQuery[d] = float(a.scale) * query[d];
  __syncthreads();

  float mixed = 0, total = 0, largest = -INFINITY;
  for (int64_t firstKey = begin; firstKey < end; firstKey += fewThreads) {
    const int keyCount = int(min(int64_t(fewThreads), end - firstKey));
    const float* keys = a.keys + head.keyOffset + firstKey * head.keyStride;
    const float* values = a.values + head.keyOffset + firstKey * head.keyStride;
    for (int first = 0; first < int(fewThreads); first += keysAtOnce) {
      const int key = first + threadIdx.x / lanesPerKey;
      float sum = 0;
      if (key < keyCount) {
#pragma unroll 8
        for (int64_t d = lane; d < a.dHead; d += lanesPerKey)
          sum += scaledQuery[d] * keys[int64_t(key) * head.keyStride + d];
      }
      for (int offset = lanesPerKey / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(allLanes, sum, offset);
      if (lane == 0) scores[key] = key < keyCount ? capScore(a, sum) : -INFINITY;
    }
    __syncthreads();
    const float most = larger(largest, blockMax(scores[threadIdx.x], scratch));
    const float rescale = most == largest ? 1.0f : expf(largest - most);
    const float power = expf(scores[threadIdx.x] - (most == -INFINITY ? 0.0f : most));
    largest = most;
    total = total * rescale + power;
    mixed *= rescale;
    scores[threadIdx.x] = power;
    __syncthreads();
    if (column < a.dHead) {
#pragma unroll 8
      for (int key = stretch; key < keyCount; key += stretches)
        mixed += scores[key] * values[int64_t(key) * head.keyStride + column];
    }
    __syncthreads();
  }
  total = blockSum(total, scratch);
  scores[threadIdx.x] = mixed;
  __syncthreads();
  if (stretch != 0) return;
  for (int other = 1; other < stretches; ++other) mixed += scores[other * width + threadIdx.x];
  if (gridDim.y == 1) {
    if (column < a.dHead) out[head.queryOffset + position * head.stride + column] = total == 0 ? 0.0f : mixed / total;
    return;
  }
  KeyStretch<width>& own = found[int64_t(blockIdx.x) * gridDim.y + blockIdx.y];
  own.mixed[threadIdx.x] = mixed;
  if (threadIdx.x != 0) return;
  own.largest = largest;
  own.total = total;
}

// out from the stretches of each query, head and `width` columns, in order: a block of `width` threads for each.
template <int width>
__global__ void __launch_bounds__(width)
    combineStretchesKernel(Attention a, const KeyStretch<width>* found, int64_t stretches, float* out) {
  const int64_t columnGroups = (a.dHead + width - 1) / width, item = blockIdx.x / columnGroups;
  const Head head(a, item / a.queryPositions);
  const int64_t column = int64_t(blockIdx.x) % columnGroups * width + threadIdx.x;
  if (column >= a.dHead) return;
  found += int64_t(blockIdx.x) * stretches;
  float largest = -INFINITY;
  for (int64_t i = 0; i < stretches; ++i) largest = larger(largest, found[i].largest);
  float mixed = 0, total = 0;
  for (int64_t i = 0; i < stretches; ++i) {
    const float factor = found[i].largest == -INFINITY ? 0.0f : expf(found[i].largest - largest);
    total += factor * found[i].total;
    mixed += factor * found[i].mixed[threadIdx.x];
  }
  out[head.queryOffset + item % a.queryPositions * head.stride + column] = total == 0 ? 0.0f : mixed / total;
}

// scores [batch, heads, queryPositions, keyPositions], masked places -infinity. A block per head, tile of queries and
// tile of keys; it writes rows of 64 scores, after they have gone through shared memory, where the keys stood.
__global__ void __launch_bounds__(tileThreads, 2) attentionScoresKernel(Attention a, float* out) {
  DYNAMIC_SHARED(float, queries);
  float* const keys = queries + tileFloats;
  const int64_t keyTiles = (a.keyPositions + tileSize - 1) / tileSize, item = blockIdx.x / keyTiles;
  const int64_t firstKey = int64_t(blockIdx.x) % keyTiles * tileSize;
  const Head head(a, item / queryTiles(a));
  const QueryTile tile(a, item % queryTiles(a));
  const int keyCount = int(min(int64_t(tileSize), a.keyPositions - firstKey));
  // The same for all threads.
  if (firstKey < visibleKeys(a, tile.first + tile.count - 1) &&
      firstKey + keyCount > head.firstVisible(a, tile.first)) {
    float scores[perThread][perThread];
    multiplyKeys(a, head, tile, firstKey, keyCount, false, queries, keys, scores);
    __syncthreads();  // the keys have been read
    const int row = threadIdx.x / threadsPerSide * perThread, column = threadIdx.x % threadsPerSide * perThread;
#pragma unroll
    for (int i = 0; i < perThread; ++i) {
      Pack<float, perThread> ofQuery;
#pragma unroll
      for (int j = 0; j < perThread; ++j) ofQuery.at[j] = scores[i][j];
      storePack(keys + (row + i) * tileStride + column, ofQuery);
    }
  }
  __syncthreads();
  const int key = threadIdx.x % tileSize;
  if (key >= keyCount) return;
  for (int row = threadIdx.x / tileSize; row < tile.count; row += tileThreads / tileSize) {
    const int64_t query = tile.first + row;
    out[(head.index * a.queryPositions + query) * a.keyPositions + firstKey + key] =
        firstKey + key >= head.firstVisible(a, query) && firstKey + key < visibleKeys(a, query)
            ? keys[row * tileStride + key]
            : -INFINITY;
  }
}

// out = pattern . values over all keys: a hook may have written a pattern that looks ahead. pattern [batch, heads,
// queryPositions, keyPositions]; blocks as those of attentionKernel.
template <int groups>
__global__ void __launch_bounds__(tileThreads, 2) attentionMixKernel(Attention a, const float* pattern, float* out) {
  DYNAMIC_SHARED(float, weights);
  float* const values = weights + tileFloats;
  const MixingBlock<groups> block(a);
  const Head& head = block.head;
  const QueryTile& tile = block.tile;
  float mixed[perThread][perThread * groups] = {};
  for (int64_t firstKey = 0; firstKey < a.keyPositions; firstKey += tileSize) {
    const int keyCount = int(min(int64_t(tileSize), a.keyPositions - firstKey));
    __syncthreads();  // what stands in the tiles has been read
    loadTransposed(pattern + (head.index * a.queryPositions + tile.first) * a.keyPositions + firstKey,
                   int(a.keyPositions), tile.count, keyCount, 1.0f, weights);
    loadRows<groups>(a.values + head.keyOffset + firstKey * head.keyStride + block.firstColumn, head.keyStride,
                     keyCount, block.columns, values);
    __syncthreads();
    multiplyTiles<groups>(weights, values, keyCount, mixed);
  }
  float factors[perThread];
#pragma unroll
  for (int i = 0; i < perThread; ++i) factors[i] = 1;
  storeMixed<groups>(head, tile, block.firstColumn, block.columns, factors, mixed, out);
}

template <int width>
void attentionOfFewQueries(Context& gpu, const Attention& operands, float* out) {
  // About as many as a large device has at work; a number of its own would show in the last bits of the result.
  constexpr int64_t wantedBlocks = 256, fewestKeys = 64;
  const int64_t blocks = operands.batch * operands.heads * operands.queryPositions * piecesOf(operands.dHead, width);
  const int64_t keys = operands.window > 0 ? std::min(operands.window, operands.keyPositions) : operands.keyPositions;
  const int64_t stretches = std::clamp<int64_t>(wantedBlocks / std::max<int64_t>(1, blocks), 1,
                                                std::max<int64_t>(1, piecesOf(keys, fewestKeys)));
  KeyStretch<width>* const found = stretches > 1 ? gpu.allocate<KeyStretch<width>>(blocks * stretches) : nullptr;
  launch(gpu, attentionOfFewQueriesKernel<width>,
         Launch{dim3(unsigned(blocks), unsigned(stretches)), fewThreads, sizeof(float) * size_t(operands.dHead)},
         operands, found, out);
  if (found)
    launch(gpu, combineStretchesKernel<width>, Launch{unsigned(blocks), width}, operands, found, stretches, out);
}

}  // namespace

void attention(Context& gpu, Attention operands, float* out) {
  constexpr int64_t fewQueries = 8;
  const bool narrow = operands.dHead <= tileSize;
  if (operands.queryPositions <= fewQueries) {
    narrow ? attentionOfFewQueries<tileSize>(gpu, operands, out)
           : attentionOfFewQueries<2 * tileSize>(gpu, operands, out);
  } else if (narrow) {
    launch(gpu, attentionKernel<1>, MixingBlock<1>::grid(operands, 2), operands, out);
  } else {
    launch(gpu, attentionKernel<2>, MixingBlock<2>::grid(operands, 2), operands, out);
  }
}

void attentionScores(Context& gpu, Attention operands, float* scores) {
  const int64_t tiles = queryTiles(operands) * piecesOf(operands.keyPositions, tileSize);
  const Launch how{dim3(unsigned(operands.batch * operands.heads * tiles)), tileThreads,
                   sizeof(float) * 2 * tileFloats};
  launch(gpu, attentionScoresKernel, how, operands, scores);
}

void attentionMix(Context& gpu, Attention operands, const float* pattern, float* out) {
  if (operands.dHead <= tileSize)
    launch(gpu, attentionMixKernel<1>, MixingBlock<1>::grid(operands, 1), operands, pattern, out);
  else
    launch(gpu, attentionMixKernel<2>, MixingBlock<2>::grid(operands, 1), operands, pattern, out);
}

}  // namespace monosem::cuda
