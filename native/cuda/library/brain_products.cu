// Products with bf16 weights, which are never widened in memory.
//
//   out[m, n] = sum over k of x[m, k] * weights[n, k]
//
// A few rows of x, as in generation, are bound by reading the weights: a warp per row of the weights reads it once and
// multiplies it with up to four rows of x, in float32.
//
// More rows go through the matrix library. It wants both factors in bf16, so x is written as a sum of bf16 numbers: its
// rounded value, the rounded rest, and the rounded rest of that. Three of them have all 24 bits of a float32 number, so
// that the three products with float32 sums are as exact as one in float32, at a fraction of its cost on a matrix unit;
// two have the bits of TF32, one those of bf16. The smallest terms are added first.
#include "cuda/library/brain_products.h"

#include "cuda/library/kernels.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/pack.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr int fewRows = 8;
constexpr unsigned fewRowsThreads = 256, warpsPerBlock = fewRowsThreads / warpSize_;

// For `rows` rows of x from firstRow on. A warp per row of the weights, the lanes of which take every so many packs of
// k in ascending order; their sums are added as a tree.
template <int rows, int width>
__global__ void __launch_bounds__(fewRowsThreads)
    multiplyFewRowsKernel(Rows x, int64_t firstRow, Matrix<const uint16_t> weights, Matrix<float> out) {
  const int64_t stride = int64_t(gridDim.x) * warpsPerBlock, depth = x.columns;
  const float* left = x.data + firstRow * depth;
  for (int64_t n = int64_t(blockIdx.x) * warpsPerBlock + warpOf(); n < weights.rows; n += stride) {
    const uint16_t* right = weights.data + n * depth;
    float sums[rows] = {};
    for (int64_t k = int64_t(laneOf()) * width; k < depth; k += int64_t(warpSize_) * width) {
      const Pack<uint16_t, width> numbers = loadPack<width>(right + k);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const Pack<float, width> factors = loadPack<width>(left + r * depth + k);
#pragma unroll
        for (int i = 0; i < width; ++i)
          sums[r] = fmaf(factors.at[i], __uint_as_float(uint32_t(numbers.at[i]) << 16), sums[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const float sum = warpSum(sums[r]);
      if (laneOf() == 0) out.data[(firstRow + r) * weights.rows + n] = sum;
    }
  }
}

template <int rows>
void multiplyFewRows(Context& gpu, Rows x, int64_t firstRow, Matrix<const uint16_t> weights, Matrix<float> out) {
  constexpr int64_t mostBlocks = INT32_MAX;
  const int64_t blocks = (weights.rows + warpsPerBlock - 1) / warpsPerBlock;
  const Launch how{dim3(unsigned(blocks < mostBlocks ? blocks : mostBlocks)), fewRowsThreads};
  withPackWidth(rowsOfPacks(x) && rowsOfPacks(weights),
                [&](auto width) { launch(gpu, multiplyFewRowsKernel<rows, width>, how, x, firstRow, weights, out); });
}

// terms[t * size + i], t < count: bf16 numbers that add up to x[i], the largest first. Of what is not finite, or rounds
// to infinity, the others are 0.
__global__ void __launch_bounds__(256) splitKernel(Floats x, int count, Bfloat16* terms) {
  FOR_EACH_ELEMENT(i, x.size) {
    float rest = x.data[i];
    for (int t = 0; t < count; ++t) {
      Bfloat16 term;
      roundTo(rest, term);
      const float widened = __uint_as_float(uint32_t(term.bits) << 16);
      terms[t * x.size + i] = term;
      rest = isFinite(widened) ? rest - widened : 0.0f;
    }
  }
}

// out[i] = products[i] + products[size + i] + ..., the last first: of `count` terms, which are the smaller the later.
__global__ void __launch_bounds__(256) addTermsKernel(const float* products, int count, Vector<float> out) {
  FOR_EACH_ELEMENT(i, out.size) {
    float sum = products[(count - 1) * out.size + i];
    for (int t = count - 2; t >= 0; --t) sum += products[t * out.size + i];
    out.data[i] = sum;
  }
}

int termsOf(Precision precision) {
  switch (precision) {
    case Precision::float32:
      return 3;
    case Precision::tf32:
      return 2;
    case Precision::bfloat16:
      return 1;
  }
  throw EngineError(ErrorCode::internal, "Matrix products in an unknown precision.");
}

}  // namespace

void multiplyByBrain(Context& gpu, Rows x, Matrix<const uint16_t> weights, Matrix<float> out) {
  if (x.rows <= fewRows) {
    int64_t row = 0;
    for (; row + 4 <= x.rows; row += 4) multiplyFewRows<4>(gpu, x, row, weights, out);
    // Every launch reads all weights.
    switch (x.rows - row) {
      case 1:
        return multiplyFewRows<1>(gpu, x, row, weights, out);
      case 2:
        return multiplyFewRows<2>(gpu, x, row, weights, out);
      case 3:
        return multiplyFewRows<3>(gpu, x, row, weights, out);
      default:
        return;
    }
  }
  const int64_t size = x.rows * x.columns;
  const int count = termsOf(gpu.precision());
  Bfloat16* terms = gpu.allocate<Bfloat16>(size * count);
  const Matrix<const Bfloat16> right{reinterpret_cast<const Bfloat16*>(weights.data), weights.rows, weights.columns};
  launch(gpu, splitKernel, elementwise(gpu, size), Floats{x.data, size}, count, terms);
  // Of some rows, reading the weights takes the time: all terms are multiplied at once.
  constexpr int64_t someRows = 128, mostPlaces = int64_t(1) << 24;
  if (count > 1 && x.rows <= someRows && count * x.rows * out.columns <= mostPlaces) {
    float* const products = gpu.allocate<float>(count * x.rows * out.columns);
    gpu.products().abTransposed(Matrix<const Bfloat16>{terms, count * x.rows, x.columns}, right, 1, 0,
                                Matrix<float>{products, count * x.rows, out.columns});
    const Vector<float> sums{out.data, x.rows * out.columns};
    return launch(gpu, addTermsKernel, elementwise(gpu, sums.size), products, count, sums);
  }
  for (int t = count - 1; t >= 0; --t)
    gpu.products().abTransposed(Matrix<const Bfloat16>{terms + t * size, x.rows, x.columns}, right, 1,
                                t == count - 1 ? 0.0f : 1.0f, out);
}

}  // namespace monosem::cuda
