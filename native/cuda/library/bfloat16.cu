#include "cuda/library/bfloat16.h"

namespace monosem::cuda {
namespace {

template <int width>
__global__ void __launch_bounds__(256) roundKernel(const float* values, int64_t packs, Bfloat16* copies) {
  FOR_EACH_ELEMENT(i, packs) {
    storePack(copies + i * width, rounded(loadPack<width>(values + i * width)));
  }
}

}  // namespace

Matrix<const Bfloat16> roundedToBfloat16(Context& gpu, Rows matrix) {
  const int64_t size = matrix.rows * matrix.columns;
  Bfloat16* copies = gpu.allocate<Bfloat16>(size);
  withPackWidth(packsAt(matrix.data) && size % packWidth == 0, [&](auto width) {
    launch(gpu, roundKernel<width>, elementwise(gpu, size / width), matrix.data, size / width, copies);
  });
  return {copies, matrix.rows, matrix.columns};
}

}  // namespace monosem::cuda
