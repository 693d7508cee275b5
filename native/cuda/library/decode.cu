// The decoder on codes, its gradient, and codes as a dense matrix.
#include <algorithm>

#include "cuda/library/bfloat16.h"
#include "cuda/library/code_columns.h"
#include "cuda/library/dense_codes.h"
#include "cuda/library/eligible_rows.h"
#include "cuda/library/kernels.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/partial_sums.h"

namespace monosem::cuda {
namespace {

// Calls work(width) with the widest pack of the decoder's columns that fits(width) allows: of rounded ones as many as
// have the bytes of a pack of float.
template <class T, class Fits, class Work>
void withDecoderPackWidth(const Fits& fits, const Work& work) {
  constexpr std::integral_constant<int, 2 * packWidth> wide;
  if constexpr (!std::is_same_v<T, const float>)
    if (fits(wide)) return work(wide);
  withPackWidth(fits(std::integral_constant<int, packWidth>()), work);
}

// ---- Decode

constexpr unsigned mostRowThreads = 256;

// The loads of so many decoder rows are under way at once, from each of as many threads as a multiprocessor can have;
// of rounded rows twice as many, which are as many bytes.
template <class T>
constexpr int rowsAtOnce = 8 / int(sizeof(T));

// What is added to the decoded rows and taken from them, and where they go.
struct Reconstruction {
  Floats bias;          // or null
  Rows target;          // or null
  Matrix<float> out;    // bias + the decoded row - target
  double* pieceErrors;  // [rows, gridDim.y] or null: the sums of out^2 of a block's columns
};

// Where a thread's sum begins: with the bias or 0.
template <int width>
__device__ Pack<float, width> startOf(const Reconstruction& to, int64_t column) {
  if (to.bias.data) return loadPack<width>(to.bias.data + column);
  Pack<float, width> zeros;
#pragma unroll
  for (int i = 0; i < width; ++i) zeros.at[i] = 0;
  return zeros;
}

// Subtracts the target and writes; returns the sum of squares.
template <int width>
__device__ double finish(const Reconstruction& to, int64_t row, int64_t column, Pack<float, width> sum) {
  const int64_t place = row * to.out.columns + column;
  if (to.target.data) {
    const Pack<float, width> target = loadPack<width>(to.target.data + place);
#pragma unroll
    for (int i = 0; i < width; ++i) sum.at[i] -= target.at[i];
  }
  storePack(to.out.data + place, sum);
  double squares = 0;
#pragma unroll
  for (int i = 0; i < width; ++i) squares += double(sum.at[i]) * double(sum.at[i]);
  return squares;
}

// The sum of the block's squares, in double, to its place. By all threads of the block.
__device__ void notePieceError(const Reconstruction& to, double squares) {
  __shared__ double scratch[33];
  if (!to.pieceErrors) return;
  const double total = blockSum(squares, scratch);
  if (threadIdx.x == 0) to.pieceErrors[int64_t(blockIdx.x) * gridDim.y + blockIdx.y] = total;
}

// sum += factor * decoded
template <int width>
__device__ void addMultiple(float factor, const Pack<float, width>& decoded, Pack<float, width>& sum) {
#pragma unroll
  for (int i = 0; i < width; ++i) sum.at[i] += factor * decoded.at[i];
}

// Sparse decode with residual.
//
//   out[t, :] = bias + sum over entries e of row t: value[e] * decoder[feature[e], :]  -  target[t, :]
//
// Grid [rows, pieces of columns]: a thread owns `width` columns of a row, whose sum stays in registers while the row's
// entries pass by in their order (features ascending), staged in shared memory by as many as the block has threads.
// Reads a decoder row per entry, the target once; writes out once. T: as withRowsInPrecision has it; the
// decoder's rows are what takes the time, most of them from the second-level cache.
template <int width, class T>
__global__ void __launch_bounds__(mostRowThreads)
    decodeKernel(CodesView codes, Matrix<const T> decoder, Reconstruction to) {
  __shared__ uint32_t features[mostRowThreads];
  __shared__ float values[mostRowThreads];
  const int64_t row = blockIdx.x, column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  const bool owns = column < decoder.columns;
  Pack<float, width> sum;
  if (owns) sum = startOf<width>(to, column);
  const uint64_t end = codes.offsets[row + 1];
  for (uint64_t first = codes.offsets[row]; first < end; first += blockDim.x) {
    __syncthreads();
    if (first + threadIdx.x < end) {
      features[threadIdx.x] = codes.features[first + threadIdx.x];
      values[threadIdx.x] = codes.values[first + threadIdx.x];
    }
    __syncthreads();
    const int staged = int(min(uint64_t(blockDim.x), end - first));
    if (owns) {
      for (int entry = 0; entry < staged; entry += rowsAtOnce<T>) {
        Pack<T, width> loaded[rowsAtOnce<T>];
#pragma unroll
        for (int i = 0; i < rowsAtOnce<T>; ++i) {
          const int64_t feature = features[min(entry + i, staged - 1)];  // the last once more is not added
          loaded[i] = loadPack<width>(decoder.data + feature * decoder.columns + column);
        }
#pragma unroll
        for (int i = 0; i < rowsAtOnce<T>; ++i)
          if (entry + i < staged) addMultiple(values[entry + i], widened(loaded[i]), sum);
      }
    }
  }
  notePieceError(to, owns ? finish(to, row, column, sum) : 0);
}

// The rest of a decode whose sum over the entries is in `out` already. Grid as decodeKernel's.
template <int width>
__global__ void __launch_bounds__(mostRowThreads) finishProductKernel(Reconstruction to) {
  const int64_t row = blockIdx.x, column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  double squares = 0;
  if (column < to.out.columns) {
    Pack<float, width> sum = startOf<width>(to, column);
    const Pack<float, width> product = loadPack<width>(to.out.data + row * to.out.columns + column);
#pragma unroll
    for (int i = 0; i < width; ++i) sum.at[i] += product.at[i];
    squares = finish(to, row, column, sum);
  }
  notePieceError(to, squares);
}

// A chunk of the decoder's rows after another, as products take them: where they stand in `whole`, the decoder or its
// rounded copy, or else copied. T: float or Bfloat16.
template <class T>
class DecoderChunks {
 public:
  // `whole` null: there is no rounded copy.
  DecoderChunks(Context& gpu, const CodesView& codes, Rows decoder, const T* whole, int64_t most)
      : gpu_(gpu), eligible_(codes.eligible), decoder_(decoder), whole_(codes.eligible.indices ? nullptr : whole) {
    if (!whole_) copies_ = gpu.allocate<T>(most * decoder.columns);
  }
  Matrix<const T> rows(const ColumnChunk& chunk) const {
    if (!whole_) copyEligibleRows(gpu_, decoder_, eligible_, chunk.first, chunk.count, copies_);
    return {whole_ ? whole_ + chunk.first * decoder_.columns : copies_, chunk.count, decoder_.columns};
  }

 private:
  Context& gpu_;
  FeatureSetView eligible_;
  Rows decoder_;
  const T* whole_;
  T* copies_ = nullptr;
};

// out = values . decoder, a chunk of columns after another, in the order of the features. `whole`: see DecoderChunks.
template <class T>
void decodeByProducts(Context& gpu, const CodesView& codes, Rows decoder, const T* whole, Matrix<float> out) {
  const std::vector<ColumnChunk> chunks = columnChunks(codes);
  T* const scattered = gpu.allocate<T>(codes.rows * alignedStride(chunks.front().count));
  const DecoderChunks<T> decoderChunks(gpu, codes, decoder, whole, chunks.front().count);
  for (const ColumnChunk& chunk : chunks) {
    const Strided<T> values{scattered, codes.rows, chunk.count, alignedStride(chunk.count)};
    scatterChunk(gpu, codes, codes.values, 1, chunk, values);
    gpu.products().ab(Strided<const T>(values), decoderChunks.rows(chunk), 1, chunk.first == 0 ? 0 : 1, out);
  }
}

// work(whole): the decoder, or in bfloat16 its rounded copy or null.
template <class Work>
void withDecoderOfProducts(const Context& gpu, Rows decoder, const uint16_t* rounded, const Work& work) {
  if (gpu.precision() == Precision::bfloat16)
    work(reinterpret_cast<const Bfloat16*>(rounded));
  else
    work(decoder.data);
}

// `rows`: the decoder's in the context's precision.
template <int width, class T>
void decodeBy(Context& gpu, const CodesView& codes, Rows decoder, const uint16_t* rounded, Matrix<T> rows,
              Reconstruction to, double* squaredError) {
  const int64_t perRow = piecesOf(to.out.columns, width);
  const unsigned pieces = piecesOf(perRow, mostRowThreads);
  const unsigned threads = piecesOf(piecesOf(perRow, std::max(1u, pieces)), warpSize_) * warpSize_;
  const Launch grid{dim3(unsigned(codes.rows), pieces), threads};
  if (squaredError) to.pieceErrors = gpu.allocate<double>(codes.rows * pieces);
  if (worthDense(gpu, codes)) {
    withDecoderOfProducts(gpu, decoder, rounded,
                          [&](auto whole) { decodeByProducts(gpu, codes, decoder, whole, to.out); });
    launch(gpu, finishProductKernel<width>, grid, to);
  } else {
    launch(gpu, decodeKernel<width, std::remove_const_t<T>>, grid, codes, rows, to);
  }
  if (squaredError) addParts(gpu, to.pieceErrors, codes.rows * pieces, squaredError);
}

// ---- Decode gradient

constexpr int warpsPerRow = 8;     // at most
constexpr int entriesPerWarp = 4;  // at once
constexpr int64_t stagedColumns = 4096;

struct EntryGradient {
  float scale;
  Floats perFeature;  // or null
  float featureScale;
  bool every;
  float* out;
};

__device__ bool isWanted(const CodesView& codes, const EntryGradient& gradient, uint64_t entry) {
  return gradient.every || codes.values[entry] != 0;
}

// out[e] = scale * product + featureScale * perFeature[feature(e)], or 0 where the entry is not wanted.
__device__ void writeGradient(const CodesView& codes, const EntryGradient& gradient, uint64_t entry, bool wanted,
                              float product) {
  float result = gradient.scale * product;
  if (gradient.perFeature.data) result += gradient.featureScale * gradient.perFeature.data[codes.features[entry]];
  gradient.out[entry] = wanted ? result : 0;
}

// The loss's gradient with respect to the values.
//
//   out[e] = scale * dOutput[row(e)] . decoder[feature(e)] + featureScale * perFeature[feature(e)]
//
// and, unless `every` entry is wanted, 0 where the entry is not active. A block per row, whose row of dOutput lies in
// shared memory (a piece of it, where it has more than `stagedColumns`); every warp takes four entries at once. A lane
// sums every 32nd group of `width` columns in ascending order, then the lanes are added. Reads a decoder row per entry
// and dOutput once. T as decodeKernel's.
template <int width, class T>
__global__ void __launch_bounds__(warpsPerRow* warpSize_)
    decodeGradientKernel(CodesView codes, Matrix<const T> decoder, Rows dOutput, EntryGradient gradient) {
  alignas(32) __shared__ float staged[stagedColumns];
  const int64_t row = blockIdx.x, columns = decoder.columns;
  const uint64_t begin = codes.offsets[row], end = codes.offsets[row + 1];
  const uint64_t perBatch = blockDim.x / warpSize_ * entriesPerWarp;
  for (uint64_t batch = begin; batch < end; batch += perBatch) {
    const uint64_t first = batch + warpOf() * entriesPerWarp;
    const T* decoderRows[entriesPerWarp];
    float sums[entriesPerWarp];
#pragma unroll
    for (int i = 0; i < entriesPerWarp; ++i) {
      const uint64_t entry = min(first + i, end - 1);  // the last once more is not written
      decoderRows[i] = decoder.data + int64_t(codes.features[entry]) * columns;
      sums[i] = 0;
    }
    for (int64_t piece = 0; piece < columns; piece += stagedColumns) {
      const int count = int(min(stagedColumns, columns - piece));
      if (batch == begin || columns > stagedColumns) {
        __syncthreads();
        for (int column = int(threadIdx.x) * width; column < count; column += int(blockDim.x) * width)
          storePack(staged + column, loadPack<width>(dOutput.data + row * columns + piece + column));
        __syncthreads();
      }
#pragma unroll 2
      for (int column = int(laneOf()) * width; column < count; column += int(warpSize_) * width) {
        Pack<T, width> loaded[entriesPerWarp];
#pragma unroll
        for (int i = 0; i < entriesPerWarp; ++i) loaded[i] = loadPack<width>(decoderRows[i] + piece + column);
        const Pack<float, width> own = loadPack<width>(staged + column);
#pragma unroll
        for (int i = 0; i < entriesPerWarp; ++i) {
          const Pack<float, width> other = widened(loaded[i]);
#pragma unroll
          for (int j = 0; j < width; ++j) sums[i] += own.at[j] * other.at[j];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < entriesPerWarp; ++i) {
      const float product = warpSum(sums[i]);
      if (laneOf() == 0 && first + i < end)
        writeGradient(codes, gradient, first + i, isWanted(codes, gradient, first + i), product);
    }
  }
}

constexpr unsigned takeThreads = 128;

// The gradients of the entries in a chunk of columns from `products`, dOutput . decoder^T [rows, chunk.count]. A block
// per row.
__global__ void __launch_bounds__(takeThreads)
    takeEntriesKernel(CodesView codes, ColumnChunk chunk, Strided<const float> products, EntryGradient gradient) {
  __shared__ uint64_t ends[2];
  const int64_t row = blockIdx.x;
  findEntriesOfColumns(codes, row, chunk.first, chunk.count, ends);
  __syncthreads();
  const float* ofRow = products.data + row * products.stride;
  for (uint64_t entry = ends[0] + threadIdx.x; entry < ends[1]; entry += takeThreads)
    writeGradient(codes, gradient, entry, isWanted(codes, gradient, entry),
                  ofRow[columnOfFeature(codes, codes.features[entry]) - chunk.first]);
}

// dOutput: as products take it. `whole`: see DecoderChunks.
template <class T>
void decodeGradientByProducts(Context& gpu, const CodesView& codes, Rows decoder, const T* whole,
                              Matrix<const T> dOutput, const EntryGradient& gradient) {
  const std::vector<ColumnChunk> chunks = columnChunks(codes);
  float* const scratch = gpu.allocate<float>(codes.rows * alignedStride(chunks.front().count));
  const DecoderChunks<T> decoderChunks(gpu, codes, decoder, whole, chunks.front().count);
  for (const ColumnChunk& chunk : chunks) {
    const Strided<float> products{scratch, codes.rows, chunk.count, alignedStride(chunk.count)};
    gpu.products().abTransposed(Strided<const T>(dOutput), decoderChunks.rows(chunk), 1, 0, products);
    launch(gpu, takeEntriesKernel, Launch{dim3(unsigned(codes.rows)), takeThreads}, codes, chunk,
           Strided<const float>(products), gradient);
  }
}

}  // namespace

void decode(Context& gpu, CodesView codes, Rows decoder, const uint16_t* rounded, Floats bias, Rows target,
            Matrix<float> out, double* squaredError) {
  const Reconstruction to{bias, target, out, nullptr};
  const auto fits = [&](auto width) {
    return rowsOfPacks<width>(out) && packsAt<width>(decoder.data) && packsAt<width>(bias.data) &&
           packsAt<width>(target.data);
  };
  withRowsInPrecision(gpu, decoder, rounded, [&](auto rows) {
    withDecoderPackWidth<std::remove_pointer_t<decltype(rows.data)>>(
        fits, [&](auto width) { decodeBy<width>(gpu, codes, decoder, rounded, rows, to, squaredError); });
  });
}

void decodeGradient(Context& gpu, CodesView codes, Rows decoder, const uint16_t* rounded, Rows dOutput, double scale,
                    Floats perFeature, double featureScale, bool every, float* out) {
  const EntryGradient gradient{float(scale), perFeature, float(featureScale), every, out};
  if (worthDense(gpu, codes))
    return withDecoderOfProducts(gpu, decoder, rounded, [&](auto whole) {
      if constexpr (std::is_same_v<decltype(whole), const Bfloat16*>)
        decodeGradientByProducts(gpu, codes, decoder, whole, roundedToBfloat16(gpu, dOutput), gradient);
      else
        decodeGradientByProducts(gpu, codes, decoder, whole, dOutput, gradient);
    });
  const int64_t entriesPerRow = codes.entries / std::max<int64_t>(1, codes.rows);
  const unsigned warps = std::clamp(piecesOf(entriesPerRow, entriesPerWarp), 1u, unsigned(warpsPerRow));
  const Launch grid{dim3(unsigned(codes.rows)), warps * warpSize_};
  const auto fits = [&](auto width) { return rowsOfPacks<width>(decoder) && packsAt<width>(dOutput.data); };
  withRowsInPrecision(gpu, decoder, rounded, [&](auto rows) {
    using T = std::remove_pointer_t<decltype(rows.data)>;
    withDecoderPackWidth<T>(fits, [&](auto width) {
      launch(gpu, decodeGradientKernel<width, std::remove_const_t<T>>, grid, codes, rows, dOutput, gradient);
    });
  });
}

// out[t, f] = the value of entry (t, f), 0 where there is none.
void densify(Context& gpu, CodesView codes, Matrix<float> out) {
  codes.eligible = {nullptr, nullptr, codes.dSae};  // columns are features
  scatterChunk(gpu, codes, codes.values, 1, {0, codes.dSae}, Strided<float>(out));
}

}  // namespace monosem::cuda
