// Sums over elements and over rows, in double. How a sum is cut into parts depends on the shape alone, and the parts
// are added in order: the result depends neither on the device nor on the order in which its blocks run.
#include "cuda/library/bfloat16.h"
#include "cuda/library/column_sums.h"
#include "cuda/library/kernels.h"
#include "cuda/library/partial_sums.h"

namespace monosem::cuda {
namespace {

constexpr unsigned sumThreads = addThreads;
constexpr int64_t sumWarps = sumThreads / warpSize_;
constexpr int64_t mostParts = 1024;

int64_t atLeastOneAtMost(int64_t count, int64_t most) {
  return count < 1 ? 1 : count < most ? count : most;
}

// ---- Over all elements

struct Elements {
  const float* a;
  template <int width>
  __device__ double sumOfPack(int64_t i) const {
    const Pack<float, width> pack = loadPack<width>(a + i);
    double sum = 0;
    for (int j = 0; j < width; ++j) sum += double(pack.at[j]);
    return sum;
  }
};
struct Products {
  const float* a;
  const float* b;
  template <int width>
  __device__ double sumOfPack(int64_t i) const {
    const Pack<float, width> x = loadPack<width>(a + i), y = loadPack<width>(b + i);
    double sum = 0;
    for (int j = 0; j < width; ++j) sum += double(x.at[j]) * double(y.at[j]);
    return sum;
  }
};

// A block's elements are those of a grid-stride loop over packs. What fills no pack is the first block's.
template <int width, class Summands>
__global__ void __launch_bounds__(sumThreads) addElementsKernel(Summands summands, int64_t size, PartialSums sums) {
  __shared__ double scratch[33];
  double own = 0;
  FOR_EACH_ELEMENT(pack, size / width) own += summands.template sumOfPack<width>(pack * width);
  const int64_t rest = size / width * width + threadIdx.x;
  if (blockIdx.x == 0 && rest < size) own += summands.template sumOfPack<1>(rest);
  sums.add(own, scratch);
}

template <class Summands>
void addSum(Context& gpu, const Summands& summands, int64_t size, bool packs, double* sum) {
  const unsigned blocks = unsigned(atLeastOneAtMost(piecesOf(size, packWidth * sumThreads), mostParts));
  withPackWidth(packs, [&](auto width) {
    launch(gpu, addElementsKernel<width, Summands>, Launch{blocks, sumThreads}, summands, size,
           PartialSums(gpu, blocks, sum));
  });
}

// The sum of cos(a[r], b[r]) over the rows r, rows of norm 0 adding 0. A warp takes a row at a time, in a grid-stride
// loop over rows, and reads a and b once.
template <int width>
__global__ void __launch_bounds__(sumThreads) addRowCosinesKernel(Rows a, const float* b, PartialSums sums) {
  __shared__ double scratch[33];
  double cosines = 0;
  const int64_t step = int64_t(gridDim.x) * sumWarps;
  for (int64_t row = int64_t(blockIdx.x) * sumWarps + warpOf(); row < a.rows; row += step) {
    double aa = 0, bb = 0, ab = 0;
    for (int64_t column = laneOf() * width; column < a.columns; column += warpSize_ * width) {
      const int64_t place = row * a.columns + column;
      const Pack<float, width> x = loadPack<width>(a.data + place), y = loadPack<width>(b + place);
      for (int i = 0; i < width; ++i) {
        aa += double(x.at[i]) * double(x.at[i]);
        bb += double(y.at[i]) * double(y.at[i]);
        ab += double(x.at[i]) * double(y.at[i]);
      }
    }
    const double squaredNorms = warpSum(aa) * warpSum(bb), product = warpSum(ab);
    if (squaredNorms != 0) cosines += product / sqrt(squaredNorms);
  }
  sums.add(laneOf() == 0 ? cosines : 0, scratch);
}

// ---- Over the rows of a matrix

// parts[p, c] = the sum over the rows r of stretch p of weights[r] * a[r, c], weights of 1 where there are none. T: as
// withRowsInPrecision has it.
//
// blockIdx.x is a strip of 32 packs of columns, blockIdx.y a stretch of rows. Warp w of a block adds the rows w, w + 8,
// ... of the stretch, a lane its pack of columns; then the warps' sums are added in order.
template <int width, class T>
__global__ void __launch_bounds__(sumThreads)
    stretchSumsKernel(Matrix<const T> a, const float* weights, int64_t rowsPerStretch, double* parts) {
  __shared__ double ofWarps[sumWarps][warpSize_ * width];
  const int64_t firstColumn = int64_t(blockIdx.x) * warpSize_ * width, column = firstColumn + laneOf() * width;
  const int64_t begin = int64_t(blockIdx.y) * rowsPerStretch, end = min(begin + rowsPerStretch, a.rows);
  double sums[width] = {};
  if (column < a.columns)
    for (int64_t row = begin + warpOf(); row < end; row += sumWarps) {
      const Pack<float, width> pack = widened(loadPack<width>(a.data + row * a.columns + column));
      const double weight = weights ? double(weights[row]) : 1.0;
      for (int i = 0; i < width; ++i) sums[i] += weight * double(pack.at[i]);
    }
  for (int i = 0; i < width; ++i) ofWarps[warpOf()][laneOf() * width + i] = sums[i];
  __syncthreads();
  const int64_t own = threadIdx.x;
  if (own < warpSize_ * width && firstColumn + own < a.columns) {
    double sum = 0;
    for (int64_t warp = 0; warp < sumWarps; ++warp) sum += ofWarps[warp][own];
    parts[int64_t(blockIdx.y) * a.columns + firstColumn + own] = sum;
  }
}

// finish(c, parts[0, c] + parts[1, c] + ...). A block per 32 columns; warp w adds the parts w, w + 8, ..., then the
// warps' sums are added in order.
template <class Finish>
__global__ void __launch_bounds__(sumThreads)
    addStretchesKernel(const double* parts, int64_t stretches, int64_t columns, Finish finish) {
  __shared__ double ofWarps[sumWarps][warpSize_];
  const int64_t column = int64_t(blockIdx.x) * warpSize_ + laneOf();
  double own = 0;
  if (column < columns)
    for (int64_t stretch = warpOf(); stretch < stretches; stretch += sumWarps) own += parts[stretch * columns + column];
  ofWarps[warpOf()][laneOf()] = own;
  __syncthreads();
  if (warpOf() != 0 || column >= columns) return;
  double sum = 0;
  for (int64_t warp = 0; warp < sumWarps; ++warp) sum += ofWarps[warp][laneOf()];
  finish(column, sum);
}

struct ScaleSum {
  double scale;
  const uint32_t* places;  // of the columns in out; null: their numbers
  float* out;
  __device__ void operator()(int64_t column, double sum) const {
    out[places ? places[column] : column] = float(scale * sum);
  }
};
struct AddSum {
  double* sums;
  __device__ void operator()(int64_t column, double sum) const { sums[column] += sum; }
};

// finish(c, sum over the rows r of weights[r] * a[r, c]). There are enough stretches of rows to fill the device, and no
// more, since each costs the writing and reading of a row of doubles.
template <class T, class Finish>
void sumOverRows(Context& gpu, Matrix<const T> a, const float* weights, const Finish& finish) {
  constexpr int64_t fewestRows = 8 * sumWarps;
  withPackWidth(rowsOfPacks(a), [&](auto width) {
    const int64_t strips = piecesOf(a.columns, int64_t(warpSize_) * width);
    const int64_t wanted = atLeastOneAtMost(mostParts / (strips < 1 ? 1 : strips), mostParts);
    const int64_t stretches = atLeastOneAtMost(piecesOf(a.rows, fewestRows), wanted);
    double* parts = gpu.allocate<double>(stretches * a.columns);
    launch(gpu, stretchSumsKernel<width, T>, Launch{dim3(unsigned(strips), unsigned(stretches)), sumThreads}, a,
           weights, int64_t(piecesOf(a.rows, stretches)), parts);
    launch(gpu, addStretchesKernel<Finish>, Launch{piecesOf(a.columns, warpSize_), sumThreads}, parts, stretches,
           a.columns, finish);
    gpu.release(parts);
  });
}

}  // namespace

void dot(Context& gpu, Floats a, Floats b, double* sum) {
  addSum(gpu, Products{a.data, b.data}, a.size, packsAt(a.data) && packsAt(b.data), sum);
}

void sum(Context& gpu, Floats a, double* sum) {
  addSum(gpu, Elements{a.data}, a.size, packsAt(a.data), sum);
}

void sumOfRowCosines(Context& gpu, Rows a, Rows b, double* sum) {
  const unsigned blocks = unsigned(atLeastOneAtMost(piecesOf(a.rows, sumWarps), mostParts));
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(b), [&](auto width) {
    launch(gpu, addRowCosinesKernel<width>, Launch{blocks, sumThreads}, a, b.data, PartialSums(gpu, blocks, sum));
  });
}

void columnSumsAt(Context& gpu, Rows a, double scale, const uint32_t* places, float* out) {
  sumOverRows(gpu, a, nullptr, ScaleSum{scale, places, out});
}

void columnSums(Context& gpu, Rows a, double scale, Vector<float> out) {
  columnSumsAt(gpu, a, scale, nullptr, out.data);
}

void weightedRowSum(Context& gpu, Floats weights, Rows a, const uint16_t* rounded, double scale, Vector<float> out) {
  withRowsInPrecision(gpu, a, rounded, [&](auto rows) {
    sumOverRows(gpu, rows, weights.data, ScaleSum{scale, nullptr, out.data});
  });
}

void accumulateColumnSums(Context& gpu, Rows a, Vector<double> sums) {
  sumOverRows(gpu, a, nullptr, AddSum{sums.data});
}

}  // namespace monosem::cuda
