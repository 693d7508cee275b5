// Rotary positions: see cpu/generic/rotary.h, whose twin this is.
#include "cuda/library/gpu.h"
#include "cuda/library/kernels.h"

namespace monosem::cuda {
namespace {

// A thread per element of out [rows, heads * dHead]: the element that it is turned with is half a turn away.
__global__ void __launch_bounds__(256)
    rotateKernel(Rows x, int64_t dHead, Rows cosines, Rows sines, bool interleaved, float* out) {
  const int64_t pairs = cosines.columns;
  FOR_EACH_ELEMENT(place, x.rows * x.columns) {
    const int64_t row = place / x.columns, element = place % x.columns % dHead;
    const float value = x.data[place];
    if (element >= 2 * pairs) {
      out[place] = value;
      continue;
    }
    const bool second = interleaved ? element % 2 == 1 : element >= pairs;
    const int64_t pair = interleaved ? element / 2 : element - (second ? pairs : 0), distance = interleaved ? 1 : pairs;
    const float other = x.data[second ? place - distance : place + distance];
    const float cosine = cosines.data[row * pairs + pair], sine = sines.data[row * pairs + pair];
    out[place] = second ? fmaf(other, sine, value * cosine) : fmaf(-other, sine, value * cosine);
  }
}

}  // namespace

void rotate(Context& gpu, Rows x, int64_t heads, Rows cosines, Rows sines, bool interleaved, Matrix<float> out) {
  if (heads == 0) return;
  launch(gpu, rotateKernel, elementwise(gpu, x.rows * x.columns), x, x.columns / heads, cosines, sines, interleaved,
         out.data);
}

}  // namespace monosem::cuda
