// The row gradient's three users: its norm, its rows written out, and the fused step. A block makes a row and uses it.
#include "cuda/library/row_gradient.h"

#include <optional>
#include <vector>

#include "cuda/library/adam.h"
#include "cuda/library/dense_codes.h"
#include "cuda/library/kernels.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/non_finite.h"
#include "cuda/library/partial_sums.h"

namespace monosem::cuda {
namespace {

// Rows of more columns are long: they lie in the device's memory instead of shared memory.
constexpr int64_t mostSharedColumns = 16384;

// How many accesses to a row a thread has at least, and how many threads a row has at most. To make a row means several
// reads that wait for one another, so that few threads each and many rows at once are the fastest. A step streams
// weights and moments besides, for which more threads are. On an H200, 24576 rows of 768 and 65536 of 2304 columns take
// with 6 accesses 0.058 and 0.25 ms (12: 0.23), with 2 and 3 (as many as 256 threads leave) 0.066 and 0.34; their steps
// 0.19 and 1.36 (1.43), and 0.153 and 1.15.
struct RowThreads {
  int64_t accessesEach, most;
};
constexpr RowThreads threadsToMake{6, 64}, threadsToStep{2, mostGradientThreads};

// Of so many columns of the weights and moments, a block asks for the lines before it makes the gradient, which takes
// several reads that wait for one another. Of more, the blocks at work would fill the second-level cache.
constexpr int64_t mostPrefetchedColumns = 4096;

// Scratch matrices have at most about so many places: 64 MB.
constexpr int64_t scratchPlaces = int64_t(1) << 24;

// A chunk (see ChunkSums) has 128 entries, or more where the sums would need too much scratch.
constexpr int leastLog2Entries = 7;

// ---- Kernels

// chunk[c] = sum over the chunk's entries, ascending: scale * coefficient * dense[row, c]. A block per chunk, if that
// lies within one feature: the first and last entry tell.
template <int width, class T>
__global__ void __launch_bounds__(mostGradientThreads)
    chunkSumsKernel(RowTerm term, const uint32_t* features, int64_t columns, int log2Entries, float* sums) {
  __shared__ Summand summands[mostGradientThreads];
  const int64_t perChunk = int64_t(1) << log2Entries, first = blockIdx.x * perChunk;
  if (features[term.order.entries[first]] != features[term.order.entries[first + perChunk - 1]]) return;
  float* const row = sums + int64_t(blockIdx.x) * columns;
  forEachOwnColumn<width>(columns, [&](int64_t column) { storePack(row + column, Pack<float, width>{}); });
  for (int64_t i = 0; i < perChunk; i += blockDim.x) {
    const int fetched = int(min(perChunk - i, int64_t(blockDim.x)));
    if (int(threadIdx.x) < fetched) summands[threadIdx.x] = entrySummand<T>(term, first + i + threadIdx.x, columns);
    __syncthreads();
    addSummands<width, T, widestGathered<T, width>, gatheredAtOnce>(summands, fetched, columns, row);
    __syncthreads();
  }
}

// The rows of the features from the first one on, one for each block, written to `out`, and their squared norms; either
// may be absent. The row lies in shared memory, or in longRows [blocks, columns], unless that is null.
template <int width, class T>
__global__ void __launch_bounds__(mostGradientThreads, gradientBlocks)
    gradientRowsKernel(const __grid_constant__ RowGradientOperands gradient, int64_t firstFeature, float* longRows,
                       float* out, double* squaredNorms) {
  DYNAMIC_SHARED(Summand, summands);
  __shared__ float scratch[rowScratch];
  const int64_t columns = gradient.weights.columns;
  float* const row =
      longRows ? longRows + int64_t(blockIdx.x) * columns : reinterpret_cast<float*>(summands + blockDim.x);
  const int64_t feature = firstFeature + blockIdx.x;
  makeGradientRow<width, T, widestGathered<T, width>>(gradient, feature, summands, scratch, row);
  float squares = 0;
  forEachOwnColumn<width>(columns, [&](int64_t column) {
    const Pack<float, width> pack = loadPack<width>(row + column);
    if (out) storeOnce(out + feature * columns + column, pack);
    squares = addProducts(pack, pack, squares);
  });
  if (!squaredNorms) return;
  const float squaredNorm = blockSum(squares, scratch);
  if (threadIdx.x == 0) squaredNorms[feature] = squaredNorm;
}

// The weights that a step writes, and their copy in bfloat16, or null. The copy is read next, by the following step.
struct SteppedWeights {
  float* data;
  Bfloat16* copy;

  template <int width>
  __device__ void write(int64_t place, const Pack<float, width>& pack) const {
    storeOnce(data + place, pack);
    writeCopy(place, pack);
  }
  template <int width>
  __device__ void writeCopy(int64_t place, const Pack<float, width>& pack) const {
    if (copy) storePack(copy + place, rounded(pack));
  }
};

// The step of the features from the first one on: gradient, clipping, Adam, and with unitNorm the division by the norm,
// which is summed as the new weights are made. Reads weights, m and v and the gathered rows, writes weights, m and v:
// 24 bytes per parameter, and 2 of the copy. Blocks and longRows as in gradientRowsKernel.
template <int width, class T>
__global__ void __launch_bounds__(mostGradientThreads, gradientBlocks)
    stepRowsKernel(const __grid_constant__ RowGradientOperands gradient, int64_t firstFeature, float* longRows,
                   SteppedWeights stepped, float* m, float* v, AdamUpdate update, const float* clipFactor,
                   bool unitNorm) {
  DYNAMIC_SHARED(Summand, summands);
  __shared__ float scratch[rowScratch];
  const float* const weights = stepped.data;
  const int64_t columns = gradient.weights.columns;
  const int64_t feature = firstFeature + blockIdx.x, start = feature * columns;
  const float factor = factorAt(clipFactor);
  if (factor != factor) {  // the step is refused, but the copy may be a new one
    forEachOwnColumn<width>(
        columns, [&](int64_t column) { stepped.writeCopy(start + column, loadPack<width>(weights + start + column)); });
    return;
  }
  float* const row =
      longRows ? longRows + int64_t(blockIdx.x) * columns : reinterpret_cast<float*>(summands + blockDim.x);
  forEachOwnColumn<width>(min(columns, mostPrefetchedColumns), [&](int64_t column) {
    if (column % floatsPerLine != 0) return;
    prefetch(weights + start + column);
    prefetch(m + start + column);
    prefetch(v + start + column);
  });
  // Wider loads would need registers that the streaming of weights and moments makes better use of.
  makeGradientRow<width, T, width>(gradient, feature, summands, scratch, row);
  float squares = 0;
  forEachOwnColumn<width>(columns, [&](int64_t column) {
    const Pack<float, width> gradientPack = loadPack<width>(row + column);
    Pack<float, width> newWeights = loadPack<width>(weights + start + column);
    Pack<float, width> newM = loadOnce<width>(m + start + column), newV = loadOnce<width>(v + start + column);
    for (int j = 0; j < width; ++j)
      newWeights.at[j] = update(__fmul_rn(factor, gradientPack.at[j]), newWeights.at[j], newM.at[j], newV.at[j]);
    storeOnce(m + start + column, newM);
    storeOnce(v + start + column, newV);
    if (unitNorm) {
      squares = addProducts(newWeights, newWeights, squares);
      storePack(row + column, newWeights);
    } else {
      stepped.write(start + column, newWeights);
    }
  });
  if (!unitNorm) return;
  const float squaredNorm = blockSum(squares, scratch);
  const float toUnitNorm = squaredNorm > 0 ? 1 / sqrtf(squaredNorm) : 1;
  forEachOwnColumn<width>(columns, [&](int64_t column) {
    Pack<float, width> newWeights = loadPack<width>(row + column);
    for (int j = 0; j < width; ++j) newWeights.at[j] *= toUnitNorm;
    stepped.write(start + column, newWeights);
  });
}

// *factor = NaN where a failed encode has left the codes; 1 otherwise if they are the first that are asked.
__global__ void refusePoisonedKernel(CodesView codes, bool isFirst, float* factor) {
  if (threadIdx.x != 0) return;
  if (isPoisoned(codes))
    *factor = NAN;
  else if (isFirst)
    *factor = 1;
}

// ---- Launches

// What every gradient is multiplied by, or NaN where the step is refused: for its norm, or without clipping for what
// its codes are. Null: 1.
const float* factorOf(Context& gpu, const Clip& clip, const RowGradientView& gradient) {
  if (clip.squaredNorm || gradient.termCount == 0) return clipFactor(gpu, clip);
  float* const factor = gpu.allocate<float>(1);
  for (int64_t i = 0; i < gradient.termCount; ++i)
    launch(gpu, refusePoisonedKernel, Launch{1, warpSize_}, gradient.terms[i].codes, i == 0, factor);
  return factor;
}

// A gradient whose rows kernels can make: its terms, prepared for the device, or what was `kept` of it.
class PreparedGradient {
 public:
  // `others`: the matrices of the weights' shape that the kernels work on as well; null: absent.
  PreparedGradient(Context& gpu, const RowGradientView& gradient, Rows weights, const float* kept,
                   std::initializer_list<const float*> others, RowThreads rowThreads)
      : gpu_(gpu),
        weights_(weights),
        rowThreads_(rowThreads),
        featuresPerLaunch_(INT32_MAX),
        rounds_(gpu.precision() == Precision::bfloat16),
        packs_(fitsPacks(gradient, weights, kept, others, rounds_ ? widestGathered<Bfloat16, packWidth> : packWidth)) {
    const int64_t perScratch = std::max<int64_t>(1, scratchPlaces / std::max<int64_t>(1, weights.columns));
    if (weights.columns > mostSharedColumns) {
      featuresPerLaunch_ = perScratch;
      longRows_ = gpu.allocate<float>(std::min(perScratch, weights.rows) * weights.columns);
    }
    int64_t scattered = 0;
    for (int64_t i = 0; i < gradient.termCount; ++i) {
      const CodesView& codes = gradient.terms[i].codes;
      if (!worthDense(gpu, codes)) continue;
      const int64_t perChunk = columnChunks(codes).front().count;
      scattered = std::max(scattered, codes.rows * alignedStride(perChunk));
      if (!codes.eligible.indices) featuresPerLaunch_ = std::min({featuresPerLaunch_, perChunk, perScratch});
    }
    if (scattered > 0)
      scattered_ = rounds_ ? static_cast<void*>(gpu.allocate<Bfloat16>(scattered)) : gpu.allocate<float>(scattered);
    std::vector<RowTerm> terms;
    for (int64_t i = 0; i < gradient.termCount; ++i) terms.push_back(prepare(gradient.terms[i]));
    operands_.emplace(RowGradientOperands{weights,
                                          {gpu, terms.data(), int64_t(terms.size())},
                                          gradient.rowCoefficients.data,
                                          float(gradient.rowScale),
                                          {gpu, gradient.blockWidths, gradient.blockCount},
                                          gradient.projectOutRow,
                                          kept});
  }

  // work(width, element): of packs that kernels may access at once, and a number of the type T of denseOf.
  template <class Work>
  void withKernelParameters(const Work& work) const {
    withPackWidth(packs_, [&](auto width) { rounds_ ? work(width, Bfloat16()) : work(width, float()); });
  }
  const RowGradientOperands& operands() const { return *operands_; }
  float* longRows() const { return longRows_; }

  // launchRows(how, firstFeature) for all features, a block each.
  template <class LaunchRows>
  void forAllFeatures(const LaunchRows& launchRows) {
    const size_t rowBytes = longRows_ ? 0 : sizeof(float) * size_t(weights_.columns);
    const size_t sharedBytes = sizeof(Summand) * threads() + rowBytes;
    for (int64_t first = 0; first < weights_.rows; first += featuresPerLaunch_) {
      const int64_t count = std::min(featuresPerLaunch_, weights_.rows - first);
      for (const Product& product : productsPerLaunch_) make(product, {first, count}, product.rows);
      launchRows(Launch{dim3(unsigned(count)), threads(), sharedBytes}, first);
    }
  }

 private:
  // The rows of a term whose codes are dense.
  struct Product {
    EntryTermView term;
    const Bfloat16* rounded;  // term.dense in bfloat16, where products are of that; else null
    float* rows;
  };

  static bool fitsPacks(const RowGradientView& gradient, Rows weights, const float* kept,
                        std::initializer_list<const float*> others, int64_t columnsOfPacks) {
    bool fits = rowsOfPacks(weights) && weights.columns % columnsOfPacks == 0 && packsAt(kept);
    for (const float* other : others) fits = fits && packsAt(other);
    for (int64_t i = 0; i < gradient.termCount; ++i) fits = fits && packsAt(gradient.terms[i].dense.data);
    for (int64_t i = 0; i < gradient.blockCount; ++i) fits = fits && gradient.blockWidths[i] % packWidth == 0;
    return fits;
  }

  // As few as have equally much to do.
  unsigned threads() const {
    const int64_t accesses = std::max(1u, piecesOf(weights_.columns, packs_ ? packWidth : 1));
    const int64_t perThread = std::max<int64_t>(rowThreads_.accessesEach, piecesOf(accesses, rowThreads_.most));
    return piecesOf(piecesOf(accesses, perThread), warpSize_) * warpSize_;
  }

  RowTerm prepare(const EntryTermView& term) {
    RowTerm prepared;
    const Bfloat16* const given = reinterpret_cast<const Bfloat16*>(term.rounded);
    const Bfloat16* const rounded = rounds_ ? roundedToBfloat16(gpu_, term.dense, given).data : nullptr;
    if (!worthDense(gpu_, term.codes)) {
      prepared.order = term.order;
      prepared.coefficients = term.coefficients;
      prepared.scale = float(term.scale);
      prepared.dense = term.dense.data;
      prepared.rounded = rounded;
      prepared.chunks = sumChunks(term, prepared);
    } else if (term.codes.eligible.indices) {
      // All of it at once: the host does not know which columns belong to the features of a launch.
      float* const rows = gpu_.allocate<float>(term.codes.eligible.count * weights_.columns);
      for (const ColumnChunk& chunk : columnChunks(term.codes))
        make({term, rounded, rows}, chunk, rows + chunk.first * weights_.columns);
      prepared.product = rows;
      prepared.position = term.codes.eligible.position;
    } else {
      float* const rows = gpu_.allocate<float>(std::min(featuresPerLaunch_, weights_.rows) * weights_.columns);
      productsPerLaunch_.push_back({term, rounded, rows});
      prepared.product = rows;
    }
    return prepared;
  }

  // rows[i, :] = scale * sum over the entries of column chunk.first + i: coefficient * dense[row, :].
  void make(const Product& product, ColumnChunk chunk, float* rows) {
    const Matrix<float> out{rows, chunk.count, weights_.columns};
    if (product.rounded)
      multiply<Bfloat16>(product, product.rounded, chunk, out);
    else
      multiply<float>(product, product.term.dense.data, chunk, out);
  }
  template <class T>
  void multiply(const Product& product, const T* dense, ColumnChunk chunk, Matrix<float> out) {
    const EntryTermView& term = product.term;
    const Strided<T> coefficients{static_cast<T*>(scattered_), term.codes.rows, chunk.count,
                                  alignedStride(chunk.count)};
    scatterChunk(gpu_, term.codes, term.coefficients, float(term.scale), chunk, coefficients);
    gpu_.products().aTransposedB(Strided<const T>(coefficients),
                                 Matrix<const T>{dense, term.dense.rows, term.dense.columns}, 1, 0, out);
  }

  // Sums the term's chunks, unless none can lie within one feature, which has at most one entry per row.
  ChunkSums sumChunks(const EntryTermView& term, const RowTerm& prepared) {
    int log2Entries = leastLog2Entries;
    while ((term.codes.entries >> log2Entries) * weights_.columns > scratchPlaces) ++log2Entries;
    const int64_t chunks = term.codes.entries >> log2Entries;
    if (chunks == 0 || term.codes.rows >> log2Entries == 0) return {};
    float* const sums = gpu_.allocate<float>(chunks * weights_.columns);
    withKernelParameters([&](auto width, auto element) {
      launch(gpu_, chunkSumsKernel<width, decltype(element)>, Launch{dim3(unsigned(chunks)), threads()}, prepared,
             term.codes.features, weights_.columns, log2Entries, sums);
    });
    return {sums, log2Entries};
  }

  Context& gpu_;
  Rows weights_;
  RowThreads rowThreads_;
  int64_t featuresPerLaunch_;
  const bool rounds_;  // whether rows of dense operands are rounded
  bool packs_;
  float* longRows_ = nullptr;
  void* scattered_ = nullptr;  // scratch for a chunk's coefficients, of all products: as they take them
  std::vector<Product> productsPerLaunch_;
  std::optional<RowGradientOperands> operands_;
};

// See gradientRowsKernel.
void makeRows(Context& gpu, const RowGradientView& gradient, Rows weights, float* out, double* squaredNorms) {
  PreparedGradient prepared(gpu, gradient, weights, nullptr, {out}, threadsToMake);
  prepared.withKernelParameters([&](auto width, auto element) {
    prepared.forAllFeatures([&](const Launch& how, int64_t firstFeature) {
      launch(gpu, gradientRowsKernel<width, decltype(element)>, how, prepared.operands(), firstFeature,
             prepared.longRows(), out, squaredNorms);
    });
  });
}

}  // namespace

void rowGradientSquaredNorm(Context& gpu, const RowGradientView& gradient, Rows weights, double* squaredNorm,
                            float* kept) {
  double* const squaredNorms = gpu.allocate<double>(weights.rows);
  makeRows(gpu, gradient, weights, kept, squaredNorms);
  addParts(gpu, squaredNorms, weights.rows, squaredNorm);
}

void rowGradient(Context& gpu, const RowGradientView& gradient, Rows weights, Matrix<float> out) {
  makeRows(gpu, gradient, weights, out.data, nullptr);
}

void stepRows(Context& gpu, const RowGradientView& gradient, Matrix<float> weights, uint16_t* rounded, Matrix<float> m,
              Matrix<float> v, AdamStep adam, Clip clip, bool unitNorm, const float* kept) {
  const float* const factor = factorOf(gpu, clip, gradient);
  PreparedGradient prepared(gpu, gradient, {weights.data, weights.rows, weights.columns}, kept, {m.data, v.data},
                            threadsToStep);
  const SteppedWeights stepped{weights.data, reinterpret_cast<Bfloat16*>(rounded)};
  prepared.withKernelParameters([&](auto width, auto element) {
    prepared.forAllFeatures([&](const Launch& how, int64_t firstFeature) {
      launch(gpu, stepRowsKernel<width, decltype(element)>, how, prepared.operands(), firstFeature, prepared.longRows(),
             stepped, m.data, v.data, AdamUpdate(adam), factor, unitNorm);
    });
  });
}

}  // namespace monosem::cuda
