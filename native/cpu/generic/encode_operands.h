// What every selection of the fused encoder starts from.
#pragma once

#include "cpu/generic/matrix_product.h"

namespace monosem::MONOSEM_ISA {

// The features that an encode may select from, by position: ascending, all or those of a subset; with their biases.
class Eligible {
 public:
  // Throws nonFinite when a bias is NaN or infinite.
  Eligible(Matrix<const float> encoder, Vector<const float> bias, const FeatureSet* subset, Allocator& allocator)
      : encoder_(encoder), subset_(subset), bias_(bias.data) {
    if (!allFinite(bias.data, bias.size)) {
      int64_t first = 0;
      while (std::isfinite(bias[first])) ++first;
      throwNonFinite("bias", first);
    }
    if (!subset) return;
    gatheredBias_ = gather(bias, allocator);
    bias_ = gatheredBias_.as<const float>();
  }

  int64_t count() const { return subset_ ? subset_->count : encoder_.rows; }
  RowSource rows() const { return {encoder_, subset_ ? subset_->view().data : nullptr, count()}; }
  const float* bias() const { return bias_; }
  uint32_t feature(uint32_t position) const { return subset_ ? subset_->view()[position] : position; }
  bool all() const { return subset_ == nullptr; }

  // The elements of a [dSae] vector by position.
  Block gather(Vector<const float> perFeature, Allocator& allocator) const {
    Block gathered = allocator.allocateArray<float>(count());
    for (int64_t i = 0; i < count(); ++i) gathered.as<float>()[i] = perFeature[feature(uint32_t(i))];
    return gathered;
  }

 private:
  Matrix<const float> encoder_;
  const FeatureSet* subset_;
  const float* bias_;
  Block gatheredBias_;
};

[[noreturn]] inline void throwOverflow(int64_t row) {
  throw EngineError(ErrorCode::nonFinite, "The pre-activations of row " + std::to_string(row) +
                                              " are too large for float32: x or the encoder holds huge values.");
}

}  // namespace monosem::MONOSEM_ISA
