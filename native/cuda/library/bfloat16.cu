#include "cuda/library/bfloat16.h"

#include "cuda/library/kernels.h"

namespace monosem::cuda {
namespace {

template <int width>
__global__ void __launch_bounds__(256) roundKernel(const float* values, int64_t packs, Bfloat16* copies) {
  FOR_EACH_ELEMENT(i, packs) {
    storePack(copies + i * width, rounded(loadPack<width>(values + i * width)));
  }
}

}  // namespace

void roundToBfloat16(Context& gpu, Rows a, uint16_t* out) {
  const int64_t size = a.rows * a.columns;
  withPackWidth(packsAt(a.data) && size % packWidth == 0, [&](auto width) {
    launch(gpu, roundKernel<width>, elementwise(gpu, size / width), a.data, size / width,
           reinterpret_cast<Bfloat16*>(out));
  });
}

Matrix<const Bfloat16> roundedToBfloat16(Context& gpu, Rows matrix) {
  uint16_t* const copy = gpu.allocate<uint16_t>(matrix.rows * matrix.columns);
  roundToBfloat16(gpu, matrix, copy);
  return {reinterpret_cast<const Bfloat16*>(copy), matrix.rows, matrix.columns};
}

}  // namespace monosem::cuda
