// The gradient of a [dSae, width] matrix, made row by row from the codes and used at once: from sparse codes, the
// gradient matrix itself is not stored.
#pragma once

#include "cpu/generic/adam.h"
#include "cpu/generic/dense_codes.h"
#include "cpu/generic/feature_order.h"
#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

// Makes gradient rows (see RowGradient in engine/kernels.h), with a scratch row and a scratch list of coefficients per
// thread.
class RowGradientMaker {
 public:
  RowGradientMaker(const RowGradient& gradient, Matrix<const float> weights, Allocator& allocator, ThreadPool& pool)
      : gradient_(gradient),
        weights_(weights),
        blockWidths_(gradient.blockWidths.empty() ? std::vector<int64_t>{weights.columns} : gradient.blockWidths),
        columns_((weights.columns + 15) / 16 * 16) {
    int64_t longest = 0;
    bool anyDense = false;
    for (const EntryTerm& term : gradient.terms) {
      longest = std::max(longest, term.codes->rows);
      if (!worthDense(*term.codes)) {
        featureOrderOf(*term.codes, allocator);
        continue;
      }
      const int64_t perBlock = DenseEntryTerm::featuresPerBlock(*term.codes);
      featuresPerItem_ = anyDense ? std::min(featuresPerItem_, perBlock) : perBlock;
      anyDense = true;
    }
    dense_.resize(gradient.terms.size());
    for (size_t i = 0; i < gradient.terms.size(); ++i)
      if (worthDense(*gradient.terms[i].codes))
        dense_[i] = std::make_unique<DenseEntryTerm>(gradient.terms[i], featuresPerItem_, allocator, pool);
    longest = (longest + 15) / 16 * 16;
    rows_ = allocator.allocateArray<float>(columns_ * pool.threads());
    coefficients_ = allocator.allocateArray<float>(longest * pool.threads());
    longest_ = longest;
  }

  // Rows are made in items of this many features: first prepare(item), then row() for the features of the item.
  int64_t featuresPerItem() const { return featuresPerItem_; }

  // Terms whose codes are dense make the rows of a whole item at once.
  void prepare(int64_t item, int thread) const {
    for (const std::unique_ptr<DenseEntryTerm>& term : dense_)
      if (term) term->compute(item, thread);
  }

  // Row `feature` of the gradient, in the thread's scratch row:
  // the terms one after the other, each over its entries with rows ascending; then the norm penalty; then the
  // projection.
  float* row(int64_t feature, int thread) const {
    const int64_t columns = weights_.columns;
    float* result = rows_.as<float>() + thread * columns_;
    float* scaled = coefficients_.as<float>() + thread * longest_;
    std::memset(result, 0, sizeof(float) * size_t(columns));
    for (size_t i = 0; i < gradient_.terms.size(); ++i) {
      if (dense_[i]) {
        if (const float* row = dense_[i]->row(feature, thread))
          forEachVector(columns, [&](int64_t c, int lanes) {
            storeLanes(result + c, loadLanes(result + c, lanes) + loadLanes(row + c, lanes), lanes);
          });
        continue;
      }
      const EntryTerm& term = gradient_.terms[i];
      const FeatureOrder& order = *term.codes->featureOrder;
      const uint64_t first = order.offsets.as<const uint64_t>()[feature];
      const int64_t count = int64_t(order.offsets.as<const uint64_t>()[feature + 1] - first);
      const uint32_t* entries = order.entries.as<const uint32_t>() + first;
      const float* coefficients = term.coefficients ? term.coefficients : term.codes->value();
      const float scale = float(term.scale);
      for (int64_t e = 0; e < count; ++e) scaled[e] = scale * coefficients[entries[e]];
      addWeightedRows(term.dense.data, columns, order.rows.as<const uint32_t>() + first, scaled, count, result);
    }
    if (gradient_.rowCoefficients) addNormPenalty(feature, result);
    if (gradient_.projectOutRow) projectOut(weights_.row(feature), columns, result);
    return result;
  }

 private:
  void addNormPenalty(int64_t feature, float* result) const {
    const double coefficient = gradient_.rowScale * double(gradient_.rowCoefficients[feature]);
    const float* block = weights_.row(feature);
    for (const int64_t columns : blockWidths_) {
      const double squaredNorm = double(dotAndSquaredNorm(result, block, columns).squaredNorm);
      if (squaredNorm > 0) addMultiple(coefficient / std::sqrt(squaredNorm), block, columns, result);
      block += columns;
      result += columns;
    }
  }

  static void projectOut(const float* weights, int64_t columns, float* result) {
    const DotAndSquaredNorm found = dotAndSquaredNorm(result, weights, columns);
    if (found.squaredNorm > 0) addMultiple(-double(found.dot) / double(found.squaredNorm), weights, columns, result);
  }

  static void addMultiple(double factor, const float* weights, int64_t columns, float* result) {
    const Floats factors = broadcast(float(factor));
    forEachVector(columns, [&](int64_t c, int lanes) {
      storeLanes(result + c, fma(factors, loadLanes(weights + c, lanes), loadLanes(result + c, lanes)), lanes);
    });
  }

  const RowGradient gradient_;
  Matrix<const float> weights_;
  std::vector<int64_t> blockWidths_;
  int64_t columns_;
  int64_t longest_ = 0;
  int64_t featuresPerItem_ = 32;
  std::vector<std::unique_ptr<DenseEntryTerm>> dense_;  // one per term; null where the codes are sparse
  Block rows_;
  Block coefficients_;
};

// Whether making the rows again for the step costs more than writing and reading them: always from dense codes, whose
// rows come from a matrix product, and from sparse ones when a row gathers many entries.
inline bool worthKeeping(const RowGradient& gradient, int64_t rows) {
  constexpr int64_t entriesPerRow = 24;
  int64_t entries = 0;
  for (const EntryTerm& term : gradient.terms) {
    if (worthDense(*term.codes)) return true;
    entries += term.codes->entries;
  }
  return entries >= entriesPerRow * rows;
}

// A matrix for the rows of a gradient that is worth keeping; none where memory is short.
inline Block roomToKeep(const RowGradient& gradient, Matrix<const float> weights, Allocator& allocator) {
  if (!worthKeeping(gradient, weights.rows)) return {};
  return allocator.allocateIfRoom(sizeof(float) * size_t(weights.rows * weights.columns));
}

// *squaredNorm += the squared Frobenius norm: per row in float, then over the rows in order in double. Returns the rows
// where they are worth keeping for the step.
inline Block rowGradientSquaredNorm(const RowGradient& gradient, Matrix<const float> weights, double* squaredNorm,
                                    Allocator& allocator, ThreadPool& pool) {
  const RowGradientMaker maker(gradient, weights, allocator, pool);
  const Block norms = allocator.allocateArray<double>(weights.rows);
  const Block kept = roomToKeep(gradient, weights, allocator);
  pool.forEachRange(weights.rows, maker.featuresPerItem(), [&](int64_t begin, int64_t end, int thread) {
    maker.prepare(begin / maker.featuresPerItem(), thread);
    for (int64_t feature = begin; feature < end; ++feature) {
      const float* row = maker.row(feature, thread);
      norms.as<double>()[feature] = double(dotProduct(row, row, weights.columns));
      if (kept) std::memcpy(kept.as<float>() + feature * weights.columns, row, sizeof(float) * size_t(weights.columns));
    }
  });
  for (int64_t feature = 0; feature < weights.rows; ++feature) *squaredNorm += norms.as<double>()[feature];
  return kept;
}

inline void rowGradient(const RowGradient& gradient, Matrix<const float> weights, Matrix<float> out,
                        Allocator& allocator, ThreadPool& pool) {
  const RowGradientMaker maker(gradient, weights, allocator, pool);
  pool.forEachRange(weights.rows, maker.featuresPerItem(), [&](int64_t begin, int64_t end, int thread) {
    maker.prepare(begin / maker.featuresPerItem(), thread);
    for (int64_t feature = begin; feature < end; ++feature)
      std::memcpy(out.row(feature), maker.row(feature, thread), sizeof(float) * size_t(weights.columns));
  });
}

// One pass over the rows: gradient, clipping, Adam, and with unitNorm the division by the norm.
//
// Reads weights, m, v and the gathered rows of the terms, writes weights, m and v: 24 bytes per parameter, which is
// what bounds it. A row whose gradient is zero is stepped all the same: its moments decay and still move it.
inline void stepRows(const RowGradient& gradient, Matrix<float> weights, Matrix<float> m, Matrix<float> v,
                     const AdamStep& adam, const Clip& clip, bool unitNorm, const Block& kept, Allocator& allocator,
                     ThreadPool& pool) {
  const Floats clipping = broadcast(clipFactor(clip));
  const RowGradientMaker maker(kept ? RowGradient() : gradient, {weights.data, weights.rows, weights.columns},
                               allocator, pool);
  const AdamUpdate update(adam);
  pool.forEachRange(weights.rows, maker.featuresPerItem(), [&](int64_t begin, int64_t end, int thread) {
    if (!kept) maker.prepare(begin / maker.featuresPerItem(), thread);
    for (int64_t feature = begin; feature < end; ++feature) {
      const float* row = kept ? kept.as<float>() + feature * weights.columns : maker.row(feature, thread);
      float *rowWeights = weights.row(feature), *rowM = m.row(feature), *rowV = v.row(feature);
      Floats squares = zeros();
      forEachVector(weights.columns, [&](int64_t c, int lanes) {
        Floats newM = loadLanes(rowM + c, lanes), newV = loadLanes(rowV + c, lanes);
        const Floats newWeights =
            update(clipping * loadLanes(row + c, lanes), loadLanes(rowWeights + c, lanes), newM, newV);
        storeLanes(rowM + c, newM, lanes);
        storeLanes(rowV + c, newV, lanes);
        storeLanes(rowWeights + c, newWeights, lanes);
        squares = fma(newWeights, newWeights, squares);
      });
      const float squaredNorm = sum(squares);
      if (!unitNorm || !(squaredNorm > 0)) continue;
      const Floats factor = broadcast(float(1 / std::sqrt(double(squaredNorm))));
      forEachVector(weights.columns, [&](int64_t c, int lanes) {
        storeLanes(rowWeights + c, factor * loadLanes(rowWeights + c, lanes), lanes);
      });
    }
  });
}

}  // namespace monosem::MONOSEM_ISA
