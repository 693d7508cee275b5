#include "cuda/library/eligible_rows.h"

#include "cuda/library/pack.h"

namespace monosem::cuda {
namespace {

// A block per row.
template <class T, int width>
__global__ void __launch_bounds__(128)
    copyEligibleRowsKernel(Rows matrix, FeatureSetView eligible, int64_t first, T* rows) {
  const float* from = matrix.data + int64_t(featureAt(eligible, first + blockIdx.x)) * matrix.columns;
  T* to = rows + int64_t(blockIdx.x) * matrix.columns;
  for (int64_t column = int64_t(threadIdx.x) * width; column < matrix.columns; column += blockDim.x * width) {
    const Pack<float, width> values = loadPack<width>(from + column);
    Pack<T, width> copies;
    for (int j = 0; j < width; ++j) roundTo(values.at[j], copies.at[j]);
    storePack(to + column, copies);
  }
}

}  // namespace

template <class T>
void copyEligibleRows(Context& gpu, Rows matrix, const FeatureSetView& eligible, int64_t first, int64_t count,
                      T* rows) {
  withPackWidth(rowsOfPacks(matrix), [&](auto width) {
    launch(gpu, copyEligibleRowsKernel<T, width>, Launch{dim3(unsigned(count)), 128}, matrix, eligible, first, rows);
  });
}

template void copyEligibleRows(Context&, Rows, const FeatureSetView&, int64_t, int64_t, float*);
template void copyEligibleRows(Context&, Rows, const FeatureSetView&, int64_t, int64_t, Bfloat16*);

}  // namespace monosem::cuda
