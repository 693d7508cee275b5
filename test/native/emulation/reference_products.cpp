// The emulation's matrix products: loops, with sums in float32 in ascending order, of factors rounded to the context's
// precision.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

// The bits of a float32's mantissa that a factor keeps.
int mantissaBits(Precision precision) {
  return precision == Precision::bfloat16 ? 7 : precision == Precision::tf32 ? 10 : 23;
}

// The nearest float with so many bits of mantissa, of two the one that is larger in magnitude; NaN and infinity stay.
float rounded(float value, int bits) {
  if (bits == 23 || !std::isfinite(value)) return value;
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  const uint32_t unit = uint32_t(1) << (23 - bits);
  word = (word + unit / 2) & ~(unit - 1);
  std::memcpy(&value, &word, sizeof word);
  return value;
}

class ReferenceProducts final : public MatrixProducts {
 public:
  explicit ReferenceProducts(Precision precision) : bits_(mantissaBits(precision)) {}

  void abTransposed(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(
        out, a.columns, factor, keep, [&](int64_t m, int64_t k) { return a.row(m)[k]; },
        [&](int64_t k, int64_t n) { return b.row(n)[k]; });
  }
  void ab(Matrix<const float> a, Matrix<const float> b, float factor, float keep, Matrix<float> out) override {
    multiply(
        out, a.columns, factor, keep, [&](int64_t m, int64_t k) { return a.row(m)[k]; },
        [&](int64_t k, int64_t n) { return b.row(k)[n]; });
  }
  void aTransposedB(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(
        out, a.rows, factor, keep, [&](int64_t m, int64_t k) { return a.row(k)[m]; },
        [&](int64_t k, int64_t n) { return b.row(k)[n]; });
  }

 private:
  template <class A, class B>
  void multiply(Matrix<float> out, int64_t depth, float factor, float keep, const A& a, const B& b) const {
    for (int64_t m = 0; m < out.rows; ++m)
      for (int64_t n = 0; n < out.columns; ++n) {
        float sum = 0;
        for (int64_t k = 0; k < depth; ++k) sum = std::fma(rounded(a(m, k), bits_), rounded(b(k, n), bits_), sum);
        float& place = out.row(m)[n];
        place = keep == 0 ? factor * sum : factor * sum + keep * place;
      }
  }

  int bits_;
};

}  // namespace

std::unique_ptr<MatrixProducts> makeMatrixProducts(Context& gpu, const char*) {
  return std::make_unique<ReferenceProducts>(gpu.precision());
}

}  // namespace monosem::cuda
