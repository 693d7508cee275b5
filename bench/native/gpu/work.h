// What the parts of a training step must do at least: multiply-adds of dense products, counted as two operations, and
// bytes of operands and results. Operands are read once, results written once, with one exception: where a part gathers
// a row for every entry, it counts as often as there are entries. Some of these reads are served by the cache, so that
// a part can be faster than the memory's bandwidth would allow.
//
// A number has 4 bytes, an index as well; an offset 8. An entry of codes is a feature and a value: 8 bytes. In
// bfloat16, products and gathers read rounded copies, of 2 bytes a number: of the weights, which a step writes, and of
// activations.
#pragma once

#include <cstdint>
#include <vector>

namespace monosem::bench {

struct Shape {
  int64_t rows, dIn, dSae;
};

struct Work {
  double operations = 0;
  double bytes = 0;
};

// Parts that run one after the other.
using Phases = std::vector<Work>;

class Counting {
 public:
  // `rounds`: whether there are rounded copies.
  Counting(const Shape& shape, int64_t entries, bool rounds)
      : rounds_(rounds),
        copied_(rounds ? 2 : 4),
        batch_(double(shape.rows) * double(shape.dIn)),
        weights_(double(shape.dSae) * double(shape.dIn)),
        rows_(double(shape.rows)),
        features_(double(shape.dSae)),
        entries_(double(entries)),
        gathered_(double(entries) * double(shape.dIn)),
        product_(2 * batch_ * double(shape.dSae)) {}

  Work product() const { return {product_, 4 * (batch_ + weights_ + rows_ * features_)}; }
  Work encode() const { return {product_, copied_ * (batch_ + weights_) + 4 * features_ + codes()}; }
  // Of activations, where there are copies.
  Work round() const { return {0, rounds_ ? 6 * batch_ : 0}; }
  // The residual: the codes' rows of the decoder, less the target.
  Work decode() const { return {0, codes() + copied_ * gathered_ + 8 * batch_}; }
  Work decodeGradient() const { return {0, codes() + copied_ * gathered_ + 4 * (batch_ + entries_)}; }
  // The codes sorted by feature, and how often each feature is active.
  Work featureOrder() const { return {0, codes() + order() + 4 * features_}; }
  Work featureSums() const { return {0, order() + 4 * (entries_ + features_)}; }
  // The gradient of a matrix's rows from its entries, for its norm. `kept`: it is written, for the step to read.
  Work rowNorm(bool kept) const { return {0, gradientRows() + (kept ? 4 * weights_ : 0)}; }
  // The gradient again, and Adam: weights and both moments are read and written, and the weights' copy.
  Work rowStep(bool kept) const {
    return {0, (kept ? 4 * weights_ : gradientRows()) + (24 + (rounds_ ? 2 : 0)) * weights_};
  }
  // A result for every entry from `operands` numbers each.
  Work entryProduct(int operands) const { return {0, 4 * entries_ * (operands + 1)}; }
  Work rowNorms() const { return {0, 4 * (weights_ + features_)}; }
  // The sum of the encoder's rows, weighted.
  Work weightedRowSum() const { return {0, copied_ * weights_ + 4 * features_}; }
  Work columnSums() const { return {0, 4 * batch_}; }
  Work addRow() const { return {0, 8 * batch_}; }
  // Of a vector with a number for every feature.
  Work stepVector() const { return {0, 28 * features_}; }

 private:
  double codes() const { return 8 * entries_ + 8 * rows_; }
  double order() const { return 8 * entries_ + 8 * features_; }  // of an entry its index and its row
  double gradientRows() const { return order() + 4 * entries_ + copied_ * gathered_; }

  bool rounds_;
  double copied_;  // bytes of a number that products and gathers read
  double batch_, weights_, rows_, features_, entries_, gathered_, product_;
};

}  // namespace monosem::bench
