#include "cuda/library/bfloat16.h"

#include "cuda/library/pack.h"

namespace monosem::cuda {
namespace {

template <int width>
__global__ void __launch_bounds__(256) roundKernel(const float* values, int64_t packs, Bfloat16* rounded) {
  FOR_EACH_ELEMENT(i, packs) {
    const Pack<float, width> from = loadPack<width>(values + i * width);
    Pack<Bfloat16, width> to;
    for (int j = 0; j < width; ++j) roundTo(from.at[j], to.at[j]);
    storePack(rounded + i * width, to);
  }
}

}  // namespace

Matrix<const Bfloat16> roundedToBfloat16(Context& gpu, Rows matrix) {
  const int64_t size = matrix.rows * matrix.columns;
  Bfloat16* rounded = gpu.allocate<Bfloat16>(size);
  withPackWidth(packsAt(matrix.data) && size % packWidth == 0, [&](auto width) {
    launch(gpu, roundKernel<width>, elementwise(gpu, size / width), matrix.data, size / width, rounded);
  });
  return {rounded, matrix.rows, matrix.columns};
}

}  // namespace monosem::cuda
