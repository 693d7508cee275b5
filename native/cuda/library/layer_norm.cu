// The layer norm and the RMS norm of transformers.
#include "cuda/library/kernels.h"
#include "cuda/library/row_blocks.h"

namespace monosem::cuda {
namespace {

// Per row of x [rows, columns]:
//
//   scale = sqrt(variance + epsilon), normalized = (x - mean) / scale, out = normalized * weight + bias
//
// out, normalized, scale, weight and bias may each be absent. A block per row, whose threads take every so many packs.
// The row is read three times, twice from cache; mean and variance (of the values centred by the rounded mean) are
// summed in double, over a thread's columns in ascending order, then over the threads as a tree.
template <int width>
__global__ void __launch_bounds__(mostRowThreads)
    layerNormKernel(Rows x, Floats weight, Floats bias, double epsilon, Matrix<float> out, Matrix<float> normalized,
                    Vector<float> scale) {
  __shared__ double scratch[warpSize_ + 1];
  const int64_t columns = x.columns;
  FOR_EACH_ROW(r, x.rows) {
    const float* row = x.data + r * columns;
    double total = 0;
    forEachPack<width>(row, columns, [&](int64_t, const Pack<float, width>& values) {
      for (int i = 0; i < width; ++i) total += double(values.at[i]);
    });
    const float mean = float(blockSum(total, scratch) / double(columns));
    double squares = 0;
    forEachPack<width>(row, columns, [&](int64_t, const Pack<float, width>& values) {
      for (int i = 0; i < width; ++i) squares += double(values.at[i] - mean) * double(values.at[i] - mean);
    });
    const double rowScale = sqrt(blockSum(squares, scratch) / double(columns) + epsilon);
    if (scale.data && threadIdx.x == 0) scale.data[r] = float(rowScale);
    const float factor = float(1 / rowScale);
    forEachPack<width>(row, columns, [&](int64_t column, Pack<float, width> values) {
      for (int i = 0; i < width; ++i) values.at[i] = (values.at[i] - mean) * factor;
      if (normalized.data) storePack(normalized.data + r * columns + column, values);
      if (!out.data) return;
      if (weight.data) {
        const Pack<float, width> factors = loadPack<width>(weight.data + column);
        for (int i = 0; i < width; ++i) values.at[i] *= factors.at[i];
      }
      if (bias.data) {
        const Pack<float, width> added = loadPack<width>(bias.data + column);
        for (int i = 0; i < width; ++i) values.at[i] += added.at[i];
      }
      storePack(out.data + r * columns + column, values);
    });
  }
}

// Per row of x [rows, columns]:
//
//   scale = sqrt(mean of x^2 + epsilon), normalized = x / scale, out = normalized * weight
//
// out, normalized, scale and weight may each be absent. As layerNormKernel otherwise; the row is read twice.
template <int width>
__global__ void __launch_bounds__(mostRowThreads)
    rmsNormKernel(Rows x, Floats weight, double epsilon, Matrix<float> out, Matrix<float> normalized,
                  Vector<float> scale) {
  __shared__ double scratch[warpSize_ + 1];
  const int64_t columns = x.columns;
  FOR_EACH_ROW(r, x.rows) {
    const float* row = x.data + r * columns;
    double squares = 0;
    forEachPack<width>(row, columns, [&](int64_t, const Pack<float, width>& values) {
      for (int i = 0; i < width; ++i) squares += double(values.at[i]) * double(values.at[i]);
    });
    const double rowScale = sqrt(blockSum(squares, scratch) / double(columns) + epsilon);
    if (scale.data && threadIdx.x == 0) scale.data[r] = float(rowScale);
    const float factor = float(1 / rowScale);
    forEachPack<width>(row, columns, [&](int64_t column, Pack<float, width> values) {
      for (int i = 0; i < width; ++i) values.at[i] *= factor;
      if (normalized.data) storePack(normalized.data + r * columns + column, values);
      if (!out.data) return;
      if (weight.data) {
        const Pack<float, width> factors = loadPack<width>(weight.data + column);
        for (int i = 0; i < width; ++i) values.at[i] *= factors.at[i];
      }
      storePack(out.data + r * columns + column, values);
    });
  }
}

}  // namespace

void rmsNorm(Context& gpu, Rows x, Floats weight, double epsilon, Matrix<float> out, Matrix<float> normalized,
             Vector<float> scale) {
  const bool packs = rowsOfPacks(x) && packsAt(weight.data) && packsAt(out.data) && packsAt(normalized.data);
  withPackWidth(packs, [&](auto width) {
    launch(gpu, rmsNormKernel<width>, blockPerRow(x.rows, x.columns), x, weight, epsilon, out, normalized, scale);
  });
}

void layerNorm(Context& gpu, Rows x, Floats weight, Floats bias, double epsilon, Matrix<float> out,
               Matrix<float> normalized, Vector<float> scale) {
  const bool packs =
      rowsOfPacks(x) && packsAt(weight.data) && packsAt(bias.data) && packsAt(out.data) && packsAt(normalized.data);
  withPackWidth(packs, [&](auto width) {
    launch(gpu, layerNormKernel<width>, blockPerRow(x.rows, x.columns), x, weight, bias, epsilon, out, normalized,
           scale);
  });
}

}  // namespace monosem::cuda
