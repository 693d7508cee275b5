// Rows of the gradient of a [dSae, columns] matrix (see RowGradient in engine/kernels.h), each made by one block and
// used at once: from sparse codes, the gradient matrix itself is not stored. In precision bfloat16 the rows that are
// gathered for the entries are rounded; what has been summed never is.
//
// The row lies in shared memory, or in the device's where it is very long. A thread has its own columns of it: `width`
// neighbours, then those width * threads further on, and so on; what it leaves there it reads without a barrier.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/library/bfloat16.h"
#include "cuda/library/streaming.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {

// Threads of a block, and blocks of so many that a multiprocessor has the registers for.
constexpr unsigned mostGradientThreads = 256, gradientBlocks = 4;

// Operands that a kernel takes by value as long as they are few; more stand in device memory.
template <class T>
struct OperandList {
  static constexpr int64_t few = 4;

  OperandList(Context& gpu, const T* items, int64_t count) : count(count) {
    if (count <= few)
      std::copy_n(items, count, own);
    else
      many = gpu.uploaded(items, count);
  }
  __device__ T operator[](int64_t i) const { return many ? many[i] : own[i]; }

  int64_t count;
  T own[few] = {};
  const T* many = nullptr;
};

// The entries in feature order, cut into chunks of a power of two, the last incomplete one left out; and the sums of
// those chunks that lie within one feature, [chunks, columns]. So a feature with many entries is the work of many
// blocks.
struct ChunkSums {
  const float* sums = nullptr;  // null: no chunk lies within one feature
  int log2Entries = 0;
};

// A term of the gradient: its rows have been made by a matrix product, or are gathered from the entries.
struct RowTerm {
  const float* product = nullptr;  // null: gathered
  // Of a feature among the product's rows, UINT32_MAX: it has none. Null: the index of the feature's block.
  const uint32_t* position = nullptr;

  FeatureOrderView order;
  const float* coefficients = nullptr;
  float scale = 1;
  const float* dense = nullptr;
  const Bfloat16* rounded = nullptr;  // `dense` in bfloat16, where the kernel reads that
  ChunkSums chunks;
};

// The rows that are gathered for a term's entries. T: float, or Bfloat16 where they are rounded.
template <class T>
__device__ inline const T* denseOf(const RowTerm& term) {
  if constexpr (std::is_same_v<T, float>)
    return term.dense;
  else
    return term.rounded;
}

struct RowGradientOperands {
  Rows weights;
  OperandList<RowTerm> terms;
  const float* rowCoefficients;  // [weights.rows] or null
  float rowScale;
  OperandList<int64_t> blockWidths;
  bool projectOutRow;
  const float* kept;  // [weights.rows, columns] or null: the gradient, which then has nothing else
};

// work(column) for the thread's own of `columns` columns.
template <int width, class Work>
__device__ inline void forEachOwnColumn(int64_t columns, const Work& work) {
  for (int64_t column = int64_t(threadIdx.x) * width; column < columns; column += int64_t(blockDim.x) * width)
    work(column);
}

// factor * a + b
template <int width>
__device__ inline Pack<float, width> multiplyAdd(float factor, const Pack<float, width>& a,
                                                 const Pack<float, width>& b) {
  Pack<float, width> result;
  for (int i = 0; i < width; ++i) result.at[i] = fmaf(factor, a.at[i], b.at[i]);
  return result;
}

// sum + a . b
template <int width>
__device__ inline float addProducts(const Pack<float, width>& a, const Pack<float, width>& b, float sum) {
  for (int i = 0; i < width; ++i) sum = fmaf(a.at[i], b.at[i], sum);
  return sum;
}

// row += factor * summand
template <int width>
__device__ inline void addMultiple(float factor, const float* summand, int64_t columns, float* row) {
  forEachOwnColumn<width>(columns, [&](int64_t column) {
    storePack(row + column, multiplyAdd(factor, loadPack<width>(summand + column), loadPack<width>(row + column)));
  });
}

// factor * row, of which sums of rows consist.
struct Summand {
  const void* row;  // of float or Bfloat16: all of a batch have the same
  float factor;
};

// Summands that were fetched at once.
struct Batch {
  int count;
  bool gathered;  // their rows are denseOf's; else they are sums, of float
  bool isLast;
};

// scale * coefficient * dense[row, :] of an entry in feature order.
template <class T>
__device__ inline Summand entrySummand(const RowTerm& term, int64_t entry, int64_t columns) {
  return {denseOf<T>(term) + int64_t(term.order.rows[entry]) * columns,
          __fmul_rn(term.scale, term.coefficients[term.order.entries[entry]])};
}

// Fetches the summands of a term's row from `first` on, one by each thread: the row of the product, or the feature's
// entries, ascending, where the sums of whole chunks stand in the place of their entries. A batch ends where the kind
// of the rows changes.
template <class T>
__device__ inline Batch fetchSummands(const RowTerm& term, int64_t feature, int64_t first, int64_t columns,
                                      Summand* summands) {
  const int64_t i = first + threadIdx.x;
  if (term.product) {
    const uint32_t row = term.position ? term.position[feature] : blockIdx.x;
    if (i == 0 && row != UINT32_MAX) summands[0] = {term.product + int64_t(row) * columns, 1};
    return {row == UINT32_MAX ? 0 : 1, false, true};
  }
  const int64_t begin = int64_t(term.order.offsets[feature]), end = int64_t(term.order.offsets[feature + 1]);
  int64_t beginChunks = end - begin, endChunks = beginChunks, firstChunk = 0, skipped = 0;
  if (term.chunks.sums) {
    const int log2Entries = term.chunks.log2Entries;
    firstChunk = ((begin - 1) >> log2Entries) + 1;
    const int64_t chunks = max((end >> log2Entries) - firstChunk, int64_t(0));
    if (chunks > 0) beginChunks = (firstChunk << log2Entries) - begin;
    endChunks = beginChunks + chunks;
    skipped = (chunks << log2Entries) - chunks;
  }
  const bool areSums = first >= beginChunks && first < endChunks;
  const int64_t count = end - begin - skipped, endBatch = first < beginChunks ? beginChunks
                                                          : areSums           ? endChunks
                                                                              : count;
  if (i < endBatch)
    summands[threadIdx.x] = areSums ? Summand{term.chunks.sums + (firstChunk + i - beginChunks) * columns, 1}
                                    : entrySummand<T>(term, begin + i + (first < beginChunks ? 0 : skipped), columns);
  const int64_t fetched = min(endBatch - first, int64_t(blockDim.x));
  return {int(fetched), !areSums, first + fetched == count};
}

// The loads of so many rows are under way at once, of those that are gathered and of sums: as many as registers allow.
constexpr int gatheredAtOnce = 4;
template <class T>
constexpr int sumsAtOnce = std::is_same_v<T, float> ? 4 : 2;
// How many columns make up 16 bytes, where rows are accessed in packs at all.
template <class T, int width>
constexpr int widestGathered = width == 1 ? 1 : width * int(sizeof(float) / sizeof(T));

// row += the summands, in order, of which a thread loads `gathered` columns together. They may be others' in
// forEachOwnColumn<width>: there are barriers before and after.
template <int width, class T, int gathered, int atOnce>
__device__ inline void addSummands(const Summand* summands, int count, int64_t columns, float* row) {
  constexpr int parts = gathered / width;
  forEachOwnColumn<gathered>(columns, [&](int64_t column) {
    Pack<float, width> sums[parts];
    for (int part = 0; part < parts; ++part) sums[part] = loadPack<width>(row + column + part * width);
    for (int i = 0; i < count; i += atOnce) {
      Pack<T, gathered> loaded[atOnce];
      for (int j = 0; j < atOnce; ++j)
        if (i + j < count) loaded[j] = loadPack<gathered>(static_cast<const T*>(summands[i + j].row) + column);
      for (int j = 0; j < atOnce; ++j) {
        if (i + j >= count) break;
        const Pack<float, gathered> summand = widened(loaded[j]);
        for (int k = 0; k < gathered; ++k)
          sums[k / width].at[k % width] = fmaf(summands[i + j].factor, summand.at[k], sums[k / width].at[k % width]);
      }
    }
    for (int part = 0; part < parts; ++part) storePack(row + column + part * width, sums[part]);
  });
}

// row += the sum of the terms' rows. `summands`: shared, one for each thread.
template <int width, class T, int gathered>
__device__ inline void addTerms(const RowGradientOperands& gradient, int64_t feature, Summand* summands, float* row) {
  const int64_t columns = gradient.weights.columns;
  for (int64_t i = 0; i < gradient.terms.count; ++i) {
    int64_t first = 0;
    bool isLast;
    do {
      const Batch batch = fetchSummands<T>(gradient.terms[i], feature, first, columns, summands);
      __syncthreads();
      if (std::is_same_v<T, float> || !batch.gathered)  // of float either way
        addSummands<width, float, width, sumsAtOnce<T>>(summands, batch.count, columns, row);
      else
        addSummands<width, T, gathered, gatheredAtOnce>(summands, batch.count, columns, row);
      __syncthreads();
      first += batch.count;
      isLast = batch.isLast;
    } while (!isLast);
  }
}

// A sum over a row is cut into segments, of one pack for each lane of a warp or, in long rows, of several.
constexpr int mostSegments = 64;
// Shared numbers that summing over rows needs: of each segment, for as many as two sums.
constexpr int rowScratch = 2 * mostSegments;

// sums[i] = what add(column, sums) has made of 0 for all packs of the columns, in all threads: the same bits however
// many threads a row has. A warp adds a segment; then all add the segments, in order. By all threads of the block;
// `scratch`: [rowScratch], shared, free again when it returns.
template <int width, int count, class Add>
__device__ inline void sumOverRow(int64_t columns, const Add& add, float* scratch, float (&sums)[count]) {
  static_assert(count * mostSegments <= rowScratch);
  constexpr int64_t columnsAtOnce = int64_t(warpSize_) * width;
  const int64_t perSegment = ((columns - 1) / (columnsAtOnce * mostSegments) + 1) * columnsAtOnce;
  const int segments = int((columns - 1) / perSegment) + 1;
  __syncthreads();  // what other threads have left in the row is seen
  for (int segment = int(warpOf()); segment < segments; segment += int(blockDim.x / warpSize_)) {
    float own[count] = {};
    const int64_t begin = segment * perSegment, end = min(columns, begin + perSegment);
    for (int64_t column = begin + int64_t(laneOf()) * width; column < end; column += columnsAtOnce) add(column, own);
    for (int i = 0; i < count; ++i) {
      const float sum = warpSum(own[i]);
      if (laneOf() == 0) scratch[i * mostSegments + segment] = sum;
    }
  }
  __syncthreads();
  for (int i = 0; i < count; ++i) {
    sums[i] = 0;
    for (int segment = 0; segment < segments; ++segment) sums[i] += scratch[i * mostSegments + segment];
  }
  __syncthreads();
}

// row[block] += rowScale * rowCoefficient * weights[block] / |weights[block]| for each block of columns; blocks of norm
// 0 add nothing. Here a thread has other columns than its own, where there are several blocks.
template <int width>
__device__ inline void addNormPenalty(const RowGradientOperands& gradient, int64_t feature, float* scratch,
                                      float* row) {
  const float coefficient = gradient.rowScale * gradient.rowCoefficients[feature];
  const float* block = gradient.weights.data + feature * gradient.weights.columns;
  for (int64_t i = 0; i < gradient.blockWidths.count; ++i) {
    const int64_t columns = gradient.blockWidths[i];
    float squaredNorm[1];
    sumOverRow<width>(
        columns,
        [&](int64_t column, float(&sums)[1]) {
          const Pack<float, width> weights = loadPack<width>(block + column);
          sums[0] = addProducts(weights, weights, sums[0]);
        },
        scratch, squaredNorm);
    if (squaredNorm[0] > 0) addMultiple<width>(coefficient / sqrtf(squaredNorm[0]), block, columns, row);
    block += columns;
    row += columns;
  }
  __syncthreads();
}

// row -= its component along the weights, if they have a norm.
template <int width>
__device__ inline void projectOut(const float* weights, int64_t columns, float* scratch, float* row) {
  float sums[2];  // row . weights, weights . weights
  sumOverRow<width>(
      columns,
      [&](int64_t column, float(&own)[2]) {
        const Pack<float, width> ofWeights = loadPack<width>(weights + column);
        own[0] = addProducts(loadPack<width>(row + column), ofWeights, own[0]);
        own[1] = addProducts(ofWeights, ofWeights, own[1]);
      },
      scratch, sums);
  if (sums[1] > 0) addMultiple<width>(-(sums[0] / sums[1]), weights, columns, row);
}

// row = the feature's row of the gradient: the terms one after the other, then the norm penalty, then the projection.
// Called by all threads of the block; `summands` as for addTerms, `scratch` as for sumOverRow, T as for denseOf,
// `gathered` as for addSummands.
template <int width, class T, int gathered>
__device__ inline void makeGradientRow(const RowGradientOperands& gradient, int64_t feature, Summand* summands,
                                       float* scratch, float* row) {
  const int64_t columns = gradient.weights.columns;
  const float* kept = gradient.kept ? gradient.kept + feature * columns : nullptr;
  forEachOwnColumn<width>(columns, [&](int64_t column) {
    storePack(row + column, kept ? loadOnce<width>(kept + column) : Pack<float, width>{});
  });
  addTerms<width, T, gathered>(gradient, feature, summands, row);
  if (gradient.rowCoefficients) addNormPenalty<width>(gradient, feature, scratch, row);
  if (gradient.projectOutRow) projectOut<width>(gradient.weights.data + feature * columns, columns, scratch, row);
}

}  // namespace monosem::cuda
