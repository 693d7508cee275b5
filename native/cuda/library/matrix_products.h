// Dense matrix products, row-major, in the context's precision: by cuBLAS (opened at run time), and in the emulation by
// a loop.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/library/bfloat16.h"
#include "cuda/library/strided.h"

namespace monosem::cuda {

class MatrixProducts {
 public:
  explicit MatrixProducts(Context& gpu) : gpu_(gpu) {}
  virtual ~MatrixProducts() = default;
  // out[m, n] = factor * sum over k of a[m, k] * b[n, k] + keep * out[m, n]; out is not read where keep is 0.
  void abTransposed(Strided<const float> a, Strided<const float> b, float factor, float keep, Strided<float> out);
  // out[m, n] = factor * sum over k of a[m, k] * b[k, n] + keep * out[m, n].
  void ab(Strided<const float> a, Strided<const float> b, float factor, float keep, Strided<float> out);
  // out[m, n] = factor * sum over k of a[k, m] * b[k, n] + keep * out[m, n].
  void aTransposedB(Strided<const float> a, Strided<const float> b, float factor, float keep, Strided<float> out);

  // out[m, n] = sum over k of a[m, k] * b[n, k], in float32 whatever the precision.
  void abTransposedExactly(Rows a, Rows b, Matrix<float> out);

  // The same of factors that were rounded before.
  void abTransposed(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep, Strided<float> out);
  void ab(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep, Strided<float> out);
  void aTransposedB(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep, Strided<float> out);

 protected:
  enum class Element { float32, exactFloat32, bfloat16 };
  // A row-major matrix, of which the product takes the transpose where it says so.
  struct Factor {
    const void* data;
    int64_t rows, columns, stride;
    bool transposed;
    Element element;
  };

  // out = factor * a . b + keep * out, of `depth` > 0 summands, for an out that is not empty. Factors of float32 are
  // rounded as float32 and tf32 demand, those of exactFloat32 are not; those of bfloat16 have been.
  virtual void multiply(const Factor& a, const Factor& b, int64_t depth, float factor, float keep,
                        Strided<float> out) = 0;

  Context& gpu_;

 private:
  Factor factorOf(Strided<const float> matrix, bool transposed);
  static Factor factorOf(Strided<const Bfloat16> matrix, bool transposed);
  template <class A, class B>
  void multiplyAny(A a, bool aTransposed, B b, bool bTransposed, int64_t depth, float factor, float keep,
                   Strided<float> out);
  // Whether out is empty or there are no summands; out = keep * out then.
  bool isOfNothing(int64_t depth, float keep, Strided<float> out);
};

// `cublasPath`: see OpenOptions. Throws unsupported, naming what was looked for, where cuBLAS cannot be opened.
std::unique_ptr<MatrixProducts> makeMatrixProducts(Context& gpu, const char* cublasPath);

}  // namespace monosem::cuda
