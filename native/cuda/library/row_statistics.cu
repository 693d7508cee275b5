// Rows by their norm, their mean and their standard deviation.
//
// A block per row; where a row is read again, it comes from the cache. Sums run in double: over a thread's own columns,
// then over the threads as blockSum does.
#include "cuda/library/kernels.h"
#include "cuda/library/row_blocks.h"

namespace monosem::cuda {
namespace {

// By all threads of the block.
template <int width>
__device__ double squaredNormOf(const float* row, int64_t columns, double* scratch) {
  double sum = 0;
  forEachPack<width>(row, columns, [&](int64_t, const Pack<float, width>& pack) {
    for (int i = 0; i < width; ++i) sum += double(pack.at[i]) * double(pack.at[i]);
  });
  return blockSum(sum, scratch);
}

// out[r] = the sum over the blocks of columns of row r, widths [blocks], of their norms. Reads a once.
template <int width>
__global__ void __launch_bounds__(mostRowThreads)
    blockNormsKernel(Rows a, const int64_t* widths, int64_t blocks, float* out) {
  __shared__ double scratch[33];
  FOR_EACH_ROW(row, a.rows) {
    const float* block = a.data + row * a.columns;
    double norms = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      norms += sqrt(squaredNormOf<width>(block, widths[b], scratch));
      block += widths[b];
    }
    if (threadIdx.x == 0) out[row] = float(norms);
  }
}

// The same where all columns are one block.
template <int width>
__global__ void __launch_bounds__(mostRowThreads) rowNormsKernel(Rows a, float* out) {
  __shared__ double scratch[33];
  FOR_EACH_ROW(row, a.rows) {
    const double squaredNorm = squaredNormOf<width>(a.data + row * a.columns, a.columns, scratch);
    if (threadIdx.x == 0) out[row] = float(sqrt(squaredNorm));
  }
}

// out[r, :] = a[r, :] * (norm / |a[r, :]|), or a[r, :] where its norm is 0; `out` may be `a`.
template <int width>
__global__ void __launch_bounds__(mostRowThreads) normaliseRowsKernel(Rows a, double norm, float* out) {
  __shared__ double scratch[33];
  FOR_EACH_ROW(row, a.rows) {
    const float* from = a.data + row * a.columns;
    float* to = out + row * a.columns;
    const double squaredNorm = squaredNormOf<width>(from, a.columns, scratch);
    const float factor = squaredNorm == 0 ? 1.0f : float(norm / sqrt(squaredNorm));
    forEachPack<width>(from, a.columns, [&](int64_t column, Pack<float, width> pack) {
      for (int i = 0; i < width; ++i) pack.at[i] *= factor;
      storePack(to + column, pack);
    });
  }
}

// Per row: mean, standardDeviation = sqrt(sum of (x - mean)^2 / (columns - 1)), 0 for a single column, and
// normalized = (x - mean) / (standardDeviation + epsilon); `normalized` may be `x`.
//
// The values are centred in float by the rounded mean; what rounding it leaves, their own mean, is taken out of the
// variance and of the result. A row is read three times.
template <int width>
__global__ void __launch_bounds__(mostRowThreads)
    standardiseRowsKernel(Rows x, float epsilon, float* normalized, float* mean, float* standardDeviation) {
  __shared__ double scratch[33];
  const double columns = double(x.columns);
  FOR_EACH_ROW(row, x.rows) {
    const float* from = x.data + row * x.columns;
    float* to = normalized + row * x.columns;
    double sum = 0;
    forEachPack<width>(from, x.columns, [&](int64_t, const Pack<float, width>& pack) {
      for (int i = 0; i < width; ++i) sum += double(pack.at[i]);
    });
    const float rowMean = float(blockSum(sum, scratch) / columns);

    double centredSum = 0, squareSum = 0;
    forEachPack<width>(from, x.columns, [&](int64_t, const Pack<float, width>& pack) {
      for (int i = 0; i < width; ++i) {
        const double centred = double(pack.at[i] - rowMean);
        centredSum += centred;
        squareSum += centred * centred;
      }
    });
    centredSum = blockSum(centredSum, scratch);
    squareSum = blockSum(squareSum, scratch) - centredSum * centredSum / columns;
    if (squareSum < 0) squareSum = 0;  // by rounding; NaN stays
    const float deviation = x.columns > 1 ? float(sqrt(squareSum / (columns - 1))) : 0.0f;
    if (threadIdx.x == 0) {
      mean[row] = rowMean;
      standardDeviation[row] = deviation;
    }

    const float left = float(centredSum / columns), divisor = deviation + epsilon;
    forEachPack<width>(from, x.columns, [&](int64_t column, Pack<float, width> pack) {
      for (int i = 0; i < width; ++i) pack.at[i] = (pack.at[i] - rowMean - left) / divisor;
      storePack(to + column, pack);
    });
  }
}

}  // namespace

void rowNorms(Context& gpu, Rows a, const int64_t* blockWidths, int64_t blockCount, Vector<float> out) {
  if (blockCount == 1)
    return withPackWidth(rowsOfPacks(a), [&](auto width) {
      launch(gpu, rowNormsKernel<width>, blockPerRow(a.rows, a.columns), a, out.data);
    });
  bool packs = rowsOfPacks(a);
  for (int64_t b = 0; b < blockCount; ++b) packs = packs && blockWidths[b] % packWidth == 0;
  const int64_t* widths = gpu.uploaded(blockWidths, blockCount);
  withPackWidth(packs, [&](auto width) {
    launch(gpu, blockNormsKernel<width>, blockPerRow(a.rows, a.columns), a, widths, blockCount, out.data);
  });
}

void normaliseRows(Context& gpu, Rows a, double norm, Matrix<float> out) {
  withPackWidth(rowsOfPacks(a) && rowsOfPacks(out), [&](auto width) {
    launch(gpu, normaliseRowsKernel<width>, blockPerRow(a.rows, a.columns), a, norm, out.data);
  });
}

void standardiseRows(Context& gpu, Rows x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                     Vector<float> standardDeviation) {
  withPackWidth(rowsOfPacks(x) && rowsOfPacks(normalized), [&](auto width) {
    launch(gpu, standardiseRowsKernel<width>, blockPerRow(x.rows, x.columns), x, float(epsilon), normalized.data,
           mean.data, standardDeviation.data);
  });
}

}  // namespace monosem::cuda
