// Matrices, place by place: what depends on a row or a column, and copies of rows and columns.
//
// All kernels but the transposition go over the places (row, column) of a matrix in a grid-stride loop, a pack of
// columns at a time where rows allow it: neighbouring threads have neighbouring places, whatever the shape.
#include "cuda/library/kernels.h"
#include "cuda/library/pack.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

// Calls use(row, column) for the first columns of this thread's packs. There is at least one column.
//
// A step of the loop goes rowStep rows and packStep packs further, so that only the first place costs divisions.
template <int width, class Use>
__device__ void forEachPlace(int64_t rows, int64_t columns, const Use& use) {
  const int64_t packs = columns / width;  // of a row
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
  const int64_t rowStep = step / packs, packStep = step % packs;
  int64_t row = first / packs, pack = first % packs;
  while (row < rows) {
    use(row, pack * width);
    row += rowStep;
    pack += packStep;
    if (pack >= packs) {
      pack -= packs;
      ++row;
    }
  }
}

Launch overPlaces(const Context& gpu, int64_t rows, int64_t columns, int width) {
  return elementwise(gpu, rows * (columns / width));
}

// out[r, c] = operation(a[r, c], r, c); `out` may be `a`.
template <int width, class Operation>
__global__ void mapPlacesKernel(Operation operation, Rows a, float* out) {
  forEachPlace<width>(a.rows, a.columns, [&](int64_t row, int64_t column) {
    const int64_t place = row * a.columns + column;
    Pack<float, width> pack = loadPack<width>(a.data + place);
    for (int i = 0; i < width; ++i) pack.at[i] = operation(pack.at[i], row, column + i);
    storePack(out + place, pack);
  });
}

template <class Operation>
void mapPlaces(Context& gpu, const Operation& operation, Rows a, Matrix<float> out) {
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(out), [&](auto width) {
    launch(gpu, mapPlacesKernel<width, Operation>, overPlaces(gpu, a.rows, a.columns, width), operation, a, out.data);
  });
}

struct RowAdded {
  const float* row;
  float scale;
  __device__ float operator()(float a, int64_t, int64_t column) const { return fmaf(scale, row[column], a); }
};
struct RowScaled {
  const float* factors;
  __device__ float operator()(float a, int64_t row, int64_t) const { return a * factors[row]; }
};
struct ColumnScaled {
  const float* factors;
  __device__ float operator()(float a, int64_t, int64_t column) const { return a * factors[column]; }
};
struct RowScaledAndShifted {
  const float* factors;
  const float* shifts;
  __device__ float operator()(float a, int64_t row, int64_t) const { return fmaf(factors[row], a, shifts[row]); }
};

// to[r, c] = from[r, c] for c in [0, columns), of rows that begin fromStride and toStride elements after each other.
template <int width>
__global__ void copyColumnsKernel(const float* from, int64_t fromStride, float* to, int64_t toStride, int64_t rows,
                                  int64_t columns) {
  forEachPlace<width>(rows, columns, [&](int64_t row, int64_t column) {
    storePack(to + row * toStride + column, loadPack<width>(from + row * fromStride + column));
  });
}

// out[r, :] = a[rows[r], :]; a row that a does not have is noted as a failure, and nothing is written for it.
template <int width>
__global__ void gatherRowsKernel(Rows a, Vector<const int32_t> rows, float* out, LateFailureNote* note) {
  forEachPlace<width>(rows.size, a.columns, [&](int64_t row, int64_t column) {
    const int64_t source = rows.data[row];
    if (source >= 0 && source < a.rows)
      storePack(out + row * a.columns + column, loadPack<width>(a.data + source * a.columns + column));
    else if (column == 0)
      noteFailure(note, LateFailure::rowBeyondMatrix, row, double(source), a.rows);
  });
}

// The same of bf16 numbers, which are the first halves of the float32 numbers that they stand for.
template <int width>
__global__ void gatherBrainRowsKernel(Matrix<const uint16_t> a, Vector<const int32_t> rows, float* out,
                                      LateFailureNote* note) {
  forEachPlace<width>(rows.size, a.columns, [&](int64_t row, int64_t column) {
    const int64_t source = rows.data[row];
    if (source < 0 || source >= a.rows) {
      if (column == 0) noteFailure(note, LateFailure::rowBeyondMatrix, row, double(source), a.rows);
      return;
    }
    const Pack<uint16_t, width> numbers = loadPack<width>(a.data + source * a.columns + column);
    Pack<float, width> widened;
    for (int i = 0; i < width; ++i) widened.at[i] = __uint_as_float(uint32_t(numbers.at[i]) << 16);
    storePack(out + row * a.columns + column, widened);
  });
}

// What scatterRows finds out about its rows before it moves any; all of it zero at first.
struct Places {
  unsigned long long* last;    // [places]: 1 + the last row that goes there; 0: none does
  unsigned long long* beyond;  // rows.size - the first row without a place; 0: all have one
};

__global__ void findPlacesKernel(Vector<const int32_t> rows, int64_t places, Places found) {
  FOR_EACH_ELEMENT(row, rows.size) {
    const int64_t place = rows.data[row];
    if (place >= 0 && place < places)
      atomicMax(found.last + place, static_cast<unsigned long long>(row + 1));
    else
      atomicMax(found.beyond, static_cast<unsigned long long>(rows.size - row));
  }
}

// out[rows[r], :] = a[r, :] for the rows that are the last at their place; nothing where one has none.
template <int width>
__global__ void scatterRowsKernel(Rows a, Vector<const int32_t> rows, int64_t places, Places found, float* out,
                                  LateFailureNote* note) {
  if (*found.beyond != 0) {
    const int64_t first = rows.size - int64_t(*found.beyond);
    if (blockIdx.x == 0 && threadIdx.x == 0)
      noteFailure(note, LateFailure::rowBeyondMatrix, first, rows.data[first], places);
    return;
  }
  forEachPlace<width>(rows.size, a.columns, [&](int64_t row, int64_t column) {
    const int64_t place = rows.data[row];
    if (int64_t(found.last[place]) == row + 1)
      storePack(out + place * a.columns + column, loadPack<width>(a.data + row * a.columns + column));
  });
}

constexpr int64_t tileSide = 32;
constexpr unsigned transposeThreads = 256;

// out[c, r] = a[r, c]. A block per tile of 32 rows and 32 columns, which goes through shared memory: a warp reads 32
// neighbouring columns of a row and writes 32 neighbouring rows of a column. Tiles' rows are 33 floats apart, so that a
// column of one lies in 32 banks.
__global__ void __launch_bounds__(transposeThreads) transposeKernel(Rows a, float* out, int64_t tilesAcross) {
  __shared__ float tile[tileSide][tileSide + 1];
  constexpr int64_t warps = transposeThreads / warpSize_;
  const int64_t firstRow = blockIdx.x / tilesAcross * tileSide, firstColumn = blockIdx.x % tilesAcross * tileSide;
  const int64_t lane = laneOf(), warp = warpOf();
  for (int64_t i = warp; i < tileSide; i += warps)
    if (firstRow + i < a.rows && firstColumn + lane < a.columns)
      tile[i][lane] = a.data[(firstRow + i) * a.columns + firstColumn + lane];
  __syncthreads();
  for (int64_t i = warp; i < tileSide; i += warps)
    if (firstColumn + i < a.columns && firstRow + lane < a.rows)
      out[(firstColumn + i) * a.rows + firstRow + lane] = tile[lane][i];
}

}  // namespace

void addRow(Context& gpu, Rows a, Floats row, double scale, Matrix<float> out) {
  mapPlaces(gpu, RowAdded{row.data, float(scale)}, a, out);
}

void scaleRows(Context& gpu, Rows a, Floats factors, Matrix<float> out) {
  mapPlaces(gpu, RowScaled{factors.data}, a, out);
}

void scaleColumns(Context& gpu, Rows a, Floats factors, Matrix<float> out) {
  mapPlaces(gpu, ColumnScaled{factors.data}, a, out);
}

void affineRows(Context& gpu, Rows a, Floats factors, Floats shifts, Matrix<float> out) {
  mapPlaces(gpu, RowScaledAndShifted{factors.data, shifts.data}, a, out);
}

void copyColumns(Context& gpu, Rows a, int64_t aColumn, Matrix<float> out, int64_t outColumn, int64_t columns) {
  const float* from = a.data + aColumn;
  float* to = out.data + outColumn;
  const bool packs = packsAt(from) && packsAt(to) && a.columns % packWidth == 0 && out.columns % packWidth == 0 &&
                     columns % packWidth == 0;
  withPackWidth(packs, [&](auto width) {
    launch(gpu, copyColumnsKernel<width>, overPlaces(gpu, a.rows, columns, width), from, a.columns, to, out.columns,
           a.rows, columns);
  });
}

void copyRows(Context& gpu, Rows a, Matrix<float> out, int64_t firstRow) {
  const size_t bytes = sizeof(float) * size_t(a.rows * a.columns);
  if (bytes == 0) return;
  check(cudaMemcpyAsync(out.data + firstRow * out.columns, a.data, bytes, cudaMemcpyDeviceToDevice, gpu.stream()),
        "cudaMemcpyAsync");
}

void gatherRows(Context& gpu, Rows a, Vector<const int32_t> rows, Matrix<float> out) {
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(out), [&](auto width) {
    launch(gpu, gatherRowsKernel<width>, overPlaces(gpu, rows.size, a.columns, width), a, rows, out.data,
           gpu.failureNote());
  });
}

void gatherBrainRows(Context& gpu, Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out) {
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(out), [&](auto width) {
    launch(gpu, gatherBrainRowsKernel<width>, overPlaces(gpu, rows.size, a.columns, width), a, rows, out.data,
           gpu.failureNote());
  });
}

void scatterRows(Context& gpu, Rows a, Vector<const int32_t> rows, Matrix<float> out) {
  unsigned long long* words = gpu.allocate<unsigned long long>(out.rows + 1);
  gpu.clear(words, sizeof(unsigned long long) * size_t(out.rows + 1));
  const Places found{words, words + out.rows};
  launch(gpu, findPlacesKernel, elementwise(gpu, rows.size), rows, out.rows, found);
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(out), [&](auto width) {
    launch(gpu, scatterRowsKernel<width>, overPlaces(gpu, rows.size, a.columns, width), a, rows, out.rows, found,
           out.data, gpu.failureNote());
  });
}

void transpose(Context& gpu, Rows a, Matrix<float> out) {
  const int64_t down = piecesOf(a.rows, tileSide), across = piecesOf(a.columns, tileSide);
  launch(gpu, transposeKernel, Launch{unsigned(down * across), transposeThreads}, a, out.data, across);
}

}  // namespace monosem::cuda
