// Dense matrix products, row-major: cuBLAS (opened at run time), and in the emulation a loop.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/library/context.h"
#include "engine/views.h"

namespace monosem::cuda {

class MatrixProducts {
 public:
  virtual ~MatrixProducts() = default;
  // out[m, n] = factor * sum over k of a[m, k] * b[n, k] + keep * out[m, n], in the context's precision.
  virtual void abTransposed(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                            Matrix<float> out) = 0;
  // out[m, n] = factor * sum over k of a[m, k] * b[k, n] + keep * out[m, n].
  virtual void ab(Matrix<const float> a, Matrix<const float> b, float factor, float keep, Matrix<float> out) = 0;
  // out[m, n] = factor * sum over k of a[k, m] * b[k, n] + keep * out[m, n].
  virtual void aTransposedB(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                            Matrix<float> out) = 0;
  // The first one, of bf16 factors; the sums are float32.
  virtual void abTransposed(Matrix<const uint16_t> a, Matrix<const uint16_t> b, float factor, float keep,
                            Matrix<float> out) = 0;
};

// `cublasPath`: see OpenOptions. Throws unsupported, naming what was looked for, where cuBLAS cannot be opened.
std::unique_ptr<MatrixProducts> makeMatrixProducts(Context& gpu, const char* cublasPath);

}  // namespace monosem::cuda
