// The emulation's matrix products: loops, with sums in float32 in ascending order.
#include <cmath>
#include <cstring>

#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

class ReferenceProducts final : public MatrixProducts {
 public:
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
  void abTransposed(Matrix<const uint16_t> a, Matrix<const uint16_t> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(
        out, a.columns, factor, keep, [&](int64_t m, int64_t k) { return widened(a.row(m)[k]); },
        [&](int64_t k, int64_t n) { return widened(b.row(n)[k]); });
  }

 private:
  static float widened(uint16_t number) {
    const uint32_t bits = uint32_t(number) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class A, class B>
  static void multiply(Matrix<float> out, int64_t depth, float factor, float keep, const A& a, const B& b) {
    for (int64_t m = 0; m < out.rows; ++m)
      for (int64_t n = 0; n < out.columns; ++n) {
        float sum = 0;
        for (int64_t k = 0; k < depth; ++k) sum = std::fma(a(m, k), b(k, n), sum);
        float& place = out.row(m)[n];
        place = keep == 0 ? factor * sum : factor * sum + keep * place;
      }
  }
};

}  // namespace

std::unique_ptr<MatrixProducts> makeMatrixProducts(Context&, const char*) {
  return std::make_unique<ReferenceProducts>();
}

}  // namespace monosem::cuda
