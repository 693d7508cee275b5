// The emulation's matrix products: loops, with sums in float32 in ascending order, of factors rounded as the context's
// precision demands.
#include <cmath>
#include <cstring>

#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

// To 10 bits after the leading one, ties to even.
float roundedToTf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isfinite(x)) bits = (bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

class ReferenceProducts final : public MatrixProducts {
 public:
  using MatrixProducts::MatrixProducts;

 private:
  void multiply(const Factor& a, const Factor& b, int64_t depth, float factor, float keep,
                Strided<float> out) override {
    for (int64_t m = 0; m < out.rows; ++m)
      for (int64_t n = 0; n < out.columns; ++n) {
        float sum = 0;
        for (int64_t k = 0; k < depth; ++k) sum = std::fma(element(a, m, k), element(b, k, n), sum);
        float& place = out.data[m * out.stride + n];
        place = keep == 0 ? factor * sum : factor * sum + keep * place;
      }
  }

  float element(const Factor& factor, int64_t row, int64_t column) const {
    const int64_t place = factor.transposed ? column * factor.stride + row : row * factor.stride + column;
    if (factor.element != Element::bfloat16) {
      const float value = static_cast<const float*>(factor.data)[place];
      const bool rounds = factor.element == Element::float32 && gpu_.precision() == Precision::tf32;
      return rounds ? roundedToTf32(value) : value;
    }
    return widened(loadPack<1>(static_cast<const Bfloat16*>(factor.data) + place)).at[0];
  }
};

}  // namespace

std::unique_ptr<MatrixProducts> makeMatrixProducts(Context& gpu, const char*) {
  return std::make_unique<ReferenceProducts>(gpu);
}

}  // namespace monosem::cuda
