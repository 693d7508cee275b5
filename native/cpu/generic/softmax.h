// Softmax and what language models measure with it. Rows are independent; the largest logit is subtracted first, so no
// exponential overflows; the exponentials are summed in double.
#pragma once

#include "cpu/generic/dense.h"
#include "cpu/generic/simd_math.h"

namespace monosem::MONOSEM_ISA {

inline float largest(const float* row, int64_t columns) {
  Floats most = broadcast(-std::numeric_limits<float>::infinity());
  int64_t c = 0;
  for (; c + width <= columns; c += width) most = max(most, load(row + c));
  float result = maximum(most);
  for (; c < columns; ++c) result = std::max(result, row[c]);
  return result;
}

// e^(row[c] - shift) for one vector; 0 in the lanes beyond the row.
inline Floats exponentials(const float* row, int64_t c, int lanes, Floats shift) {
  const Floats powers = exp(loadLanes(row + c, lanes) - shift);
  if (lanes == width) return powers;
  return select(toFloats(broadcastInt(lanes)) > toFloats(laneIndices()), powers, zeros());
}

// sum of e^(row[c] - shift), in double. NaN anywhere gives NaN.
inline double sumOfExponentials(const float* row, int64_t columns, float shift) {
  DoubleSum total;
  const Floats shifts = broadcast(shift);
  forEachVector(columns, [&](int64_t c, int lanes) { total.add(exponentials(row, c, lanes, shifts)); });
  return total.total();
}

inline double logSumExp(const float* row, int64_t columns) {
  const float shift = largest(row, columns);
  return double(shift) + std::log(sumOfExponentials(row, columns, shift));
}

// A row of only -infinity gives zeros, one with NaN only NaN.
inline void softmaxRow(const float* row, int64_t columns, float* out) {
  const float shift = largest(row, columns);
  if (shift == -std::numeric_limits<float>::infinity()) {
    const bool undefined = std::any_of(row, row + columns, [](float score) { return std::isnan(score); });
    std::fill(out, out + columns, undefined ? std::numeric_limits<float>::quiet_NaN() : 0.0f);
    return;
  }
  const Floats shifts = broadcast(shift);
  DoubleSum total;
  forEachVector(columns, [&](int64_t c, int lanes) {
    const Floats powers = exponentials(row, c, lanes, shifts);
    total.add(powers);
    storeLanes(out + c, powers, lanes);
  });
  scaleRow(out, float(1 / total.total()), columns, out);
}

inline void softmaxRows(Matrix<const float> scores, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(scores.rows, rowsPerItem(scores.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) softmaxRow(scores.row(r), scores.columns, out.row(r));
  });
}

inline void logSoftmax(Matrix<const float> logits, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(logits.rows, rowsPerItem(logits.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float shift = largest(logits.row(r), logits.columns);
      const Floats shifts = broadcast(shift);
      const Floats logSum = broadcast(float(std::log(sumOfExponentials(logits.row(r), logits.columns, shift))));
      forEachVector(logits.columns, [&](int64_t c, int lanes) {
        storeLanes(out.row(r) + c, loadLanes(logits.row(r) + c, lanes) - shifts - logSum, lanes);
      });
    }
  });
}

// out[r] = -log softmax(logits[r])[targets[r]]; a negative target gives 0.
inline void crossEntropy(Matrix<const float> logits, Vector<const int32_t> targets, Vector<float> out,
                         ThreadPool& pool) {
  pool.forEach(logits.rows, [&](int64_t r, int) {
    const int32_t target = targets[r];
    if (target >= logits.columns)
      throw EngineError(ErrorCode::invalidArgument, "Target " + std::to_string(target) + " of row " +
                                                        std::to_string(r) + " does not exist: there are " +
                                                        std::to_string(logits.columns) + " classes.");
    out[r] = target < 0 ? 0.0f : float(logSumExp(logits.row(r), logits.columns) - double(logits.row(r)[target]));
  });
}

// out[r] = sum over c of softmax(p[r])[c] * (log softmax(p[r])[c] - log softmax(q[r])[c]), in nats, as
//
//   (sum of e^(p - P) p - sum of e^(p - P) q) / sum of e^(p - P)  -  (logSumExp p - logSumExp q),   P the largest p,
//
// summed in double, where equal logits cancel exactly. Classes that p gives no probability add nothing.
inline void klDivergence(Matrix<const float> p, Matrix<const float> q, Vector<float> out, ThreadPool& pool) {
  const int64_t columns = p.columns;
  pool.forEach(p.rows, [&](int64_t r, int) {
    const float *rowP = p.row(r), *rowQ = q.row(r);
    const float shift = largest(rowP, columns);
    const Floats shifts = broadcast(shift);
    DoubleSum weights, weightedP, weightedQ;
    forEachVector(columns, [&](int64_t c, int lanes) {
      const Floats weight = exponentials(rowP, c, lanes, shifts);
      const Mask impossible = zeros() >= weight;
      weights.add(weight);
      weightedP.addProduct(weight, select(impossible, zeros(), loadLanes(rowP + c, lanes)));
      weightedQ.addProduct(weight, select(impossible, zeros(), loadLanes(rowQ + c, lanes)));
    });
    const double logSumP = double(shift) + std::log(weights.total());
    out[r] = float((weightedP.total() - weightedQ.total()) / weights.total() - (logSumP - logSumExp(rowQ, columns)));
  });
}

}  // namespace monosem::MONOSEM_ISA
