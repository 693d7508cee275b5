#include "cuda/library/dense_codes.h"

#include <algorithm>

#include "cuda/library/code_columns.h"

namespace monosem::cuda {
namespace {

// From this density on. An entry costs the sparse kernels the reading of a row of float32, from the second-level cache
// or, where the decoder is large, from memory; a place costs the products two operations for each column. By
// arithmetic, on an H200 with 24576 features of 768 columns both take as long at 180 to 350 entries per row if products
// are in TF32 (0.7 to 1.4 %), and at 1050 to 2100 if they are in float32 (4.3 to 8.6 %). In bfloat16 they take half as
// long as in TF32, to which the rounding of the factors is to be added.
double denseFrom(Precision precision) {
  return precision == Precision::float32 ? 0.06 : 0.01;
}
// With fewer entries the one launch of a sparse kernel is the fastest at any density.
constexpr int64_t denseFromEntries = 4096;

// The size of a chunk's matrix: 64 MB, much of which stays in the second-level cache between scatter and product, while
// a product remains large enough to fill the device.
constexpr int64_t placesPerChunk = int64_t(1) << 24;
// Chunks begin at multiples of so many columns, as products prefer, and have at least as many.
constexpr int64_t chunkAlignment = 64;

constexpr int64_t segmentColumns = 2048;
constexpr unsigned scatterThreads = 256;

// See scatterChunk. A block per row and segment of columns, which is put together in shared memory, so that every place
// of `dense` is written once.
template <class T>
__global__ void __launch_bounds__(scatterThreads)
    scatterChunkKernel(CodesView codes, const float* coefficients, float scale, ColumnChunk chunk, Strided<T> dense) {
  __shared__ float segment[segmentColumns];
  __shared__ uint64_t ends[2];
  const int64_t row = blockIdx.x, segmentStart = int64_t(blockIdx.y) * segmentColumns;
  const int64_t first = chunk.first + segmentStart, columns = min(segmentColumns, chunk.count - segmentStart);
  findEntriesOfColumns(codes, row, first, columns, ends);
  for (int64_t column = threadIdx.x; column < columns; column += scatterThreads) segment[column] = 0;
  __syncthreads();
  for (uint64_t entry = ends[0] + threadIdx.x; entry < ends[1]; entry += scatterThreads)
    segment[columnOfFeature(codes, codes.features[entry]) - first] = scale * coefficients[entry];
  __syncthreads();
  T* out = dense.data + row * dense.stride + segmentStart;
  for (int64_t column = threadIdx.x; column < columns; column += scatterThreads) roundTo(segment[column], out[column]);
}

}  // namespace

bool worthDense(const Context& gpu, const CodesView& codes) {
  const double places = double(codes.rows) * double(codes.eligible.count);
  return codes.entries >= denseFromEntries && double(codes.entries) >= denseFrom(gpu.precision()) * places;
}

std::vector<ColumnChunk> columnChunks(const CodesView& codes) {
  const int64_t columns = codes.eligible.count;
  const int64_t aligned = placesPerChunk / std::max<int64_t>(1, codes.rows) / chunkAlignment * chunkAlignment;
  const int64_t perChunk = std::max(chunkAlignment, aligned);
  std::vector<ColumnChunk> chunks;
  for (int64_t first = 0; first < columns; first += perChunk)
    chunks.push_back({first, std::min(perChunk, columns - first)});
  return chunks;
}

template <class T>
void scatterChunk(Context& gpu, const CodesView& codes, const float* coefficients, float scale, ColumnChunk chunk,
                  Strided<T> dense) {
  const dim3 blocks(unsigned(codes.rows), piecesOf(chunk.count, segmentColumns));
  launch(gpu, scatterChunkKernel<T>, Launch{blocks, scatterThreads}, codes, coefficients, scale, chunk, dense);
}
template void scatterChunk(Context&, const CodesView&, const float*, float, ColumnChunk, Strided<float>);
template void scatterChunk(Context&, const CodesView&, const float*, float, ColumnChunk, Strided<Bfloat16>);

}  // namespace monosem::cuda
