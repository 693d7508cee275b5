// The linear layer, and activations by themselves or as a gate.
//
//   out[r, f] = activation(bias[f] + sum over k of x[r, k] * weights[f, k]) + residual[r, f]
//
// The products come from the matrix library, in the context's precision; what is left to do to them happens in one pass
// over out.
#include "cuda/library/activations.h"
#include "cuda/library/brain_products.h"
#include "cuda/library/kernels.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/pack.h"

namespace monosem::cuda {
namespace {

// out[r, f] = activation(out[r, f] + bias[f]) + residual[r, f], for out [rows, columns]; bias and residual may be
// absent. Elementwise: reads out and the residual once, writes out once. A thread takes every so many packs; its column
// moves on by the same distance modulo the row's length, so that only the first one costs a division.
template <int width>
__global__ void __launch_bounds__(256)
    finishLinearKernel(Floats bias, Activation activation, Rows residual, Matrix<float> out) {
  const int64_t packsPerRow = out.columns / width, count = out.rows * packsPerRow;
  const int64_t step = int64_t(gridDim.x) * blockDim.x, columnStep = step % packsPerRow;
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  int64_t column = first % packsPerRow;
  for (int64_t i = first; i < count; i += step) {
    Pack<float, width> values = loadPack<width>(out.data + i * width);
    if (bias.data) {
      const Pack<float, width> added = loadPack<width>(bias.data + column * width);
      for (int j = 0; j < width; ++j) values.at[j] += added.at[j];
    }
    for (int j = 0; j < width; ++j) values.at[j] = activate(values.at[j], activation);
    if (residual.data) {
      const Pack<float, width> added = loadPack<width>(residual.data + i * width);
      for (int j = 0; j < width; ++j) values.at[j] += added.at[j];
    }
    storePack(out.data + i * width, values);
    column += columnStep;
    if (column >= packsPerRow) column -= packsPerRow;
  }
}

// out = activation(x), element by element; they may be the same memory.
template <int width>
__global__ void __launch_bounds__(256) activationKernel(Floats x, Activation activation, Vector<float> out) {
  FOR_EACH_ELEMENT(i, out.size / width) {
    Pack<float, width> values = loadPack<width>(x.data + i * width);
    for (int j = 0; j < width; ++j) values.at[j] = activate(values.at[j], activation);
    storePack(out.data + i * width, values);
  }
}

// out = activation(gate) * x, element by element; they may be the same memory.
template <int width>
__global__ void __launch_bounds__(256)
    gatedActivationKernel(Floats gate, Floats x, Activation activation, Vector<float> out) {
  FOR_EACH_ELEMENT(i, out.size / width) {
    Pack<float, width> values = loadPack<width>(gate.data + i * width);
    const Pack<float, width> factors = loadPack<width>(x.data + i * width);
    for (int j = 0; j < width; ++j) values.at[j] = activate(values.at[j], activation) * factors.at[j];
    storePack(out.data + i * width, values);
  }
}

// The rest of a linear layer whose products stand in out.
void finishLinear(Context& gpu, Floats bias, Activation activation, Rows residual, Matrix<float> out) {
  if (!bias && activation == Activation::none && !residual) return;
  withPackWidth(rowsOfPacks(out) && packsAt(bias.data) && packsAt(residual.data), [&](auto width) {
    launch(gpu, finishLinearKernel<width>, elementwise(gpu, out.rows * out.columns / width), bias, activation, residual,
           out);
  });
}

}  // namespace

// out is new memory, never that of the residual: the products overwrite it.
void linear(Context& gpu, Rows x, Rows weights, Floats bias, Activation activation, Rows residual, bool exact,
            Matrix<float> out) {
  // Of few rows, reading the weights takes the time, which rounding them would read once more.
  constexpr int64_t fewRows = 8;
  if (exact || (gpu.precision() == Precision::bfloat16 && x.rows <= fewRows))
    gpu.products().abTransposedExactly(x, weights, out);
  else
    gpu.products().abTransposed(x, weights, 1, 0, out);
  finishLinear(gpu, bias, activation, residual, out);
}

void linearBrain(Context& gpu, Rows x, Matrix<const uint16_t> weights, Floats bias, Activation activation,
                 Rows residual, Matrix<float> out) {
  multiplyByBrain(gpu, x, weights, out);
  finishLinear(gpu, bias, activation, residual, out);
}

void gatedActivation(Context& gpu, Floats gate, Floats x, Activation activation, Vector<float> out) {
  const bool packs = packsAt(gate.data) && packsAt(x.data) && packsAt(out.data) && out.size % packWidth == 0;
  withPackWidth(packs, [&](auto width) {
    launch(gpu, gatedActivationKernel<width>, elementwise(gpu, out.size / width), gate, x, activation, out);
  });
}

void activation(Context& gpu, Floats x, Activation activation, Vector<float> out) {
  withPackWidth(packsAt(x.data) && packsAt(out.data) && out.size % packWidth == 0, [&](auto width) {
    launch(gpu, activationKernel<width>, elementwise(gpu, out.size / width), x, activation, out);
  });
}

}  // namespace monosem::cuda
