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

// sum of e^(row[c] - shift), in double. NaN anywhere gives NaN.
inline double sumOfExponentials(const float* row, int64_t columns, float shift) {
  DoubleSum total;
  const Floats shifts = broadcast(shift);
  int64_t c = 0;
  for (; c + width <= columns; c += width) total.add(exp(load(row + c) - shifts));
  double sum = total.total();
  for (; c < columns; ++c) sum += std::exp(double(row[c]) - double(shift));
  return sum;
}

inline double logSumExp(const float* row, int64_t columns) {
  const float shift = largest(row, columns);
  return double(shift) + std::log(sumOfExponentials(row, columns, shift));
}

// A row of only -infinity gives zeros.
inline void softmaxRow(const float* row, int64_t columns, float* out) {
  const float shift = largest(row, columns);
  if (shift == -std::numeric_limits<float>::infinity()) {
    std::fill(out, out + columns, 0.0f);
    return;
  }
  const Floats shifts = broadcast(shift);
  DoubleSum total;
  int64_t c = 0;
  for (; c + width <= columns; c += width) {
    const Floats power = exp(load(row + c) - shifts);
    total.add(power);
    store(out + c, power);
  }
  double sum = total.total();
  for (; c < columns; ++c) sum += out[c] = float(std::exp(double(row[c]) - double(shift)));
  scaleRow(out, float(1 / sum), columns, out);
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

// out[r] = sum over c of softmax(p[r])[c] * (log softmax(p[r])[c] - log softmax(q[r])[c]), in nats. Classes that p
// gives no probability add nothing.
inline void klDivergence(Matrix<const float> p, Matrix<const float> q, Vector<float> out, ThreadPool& pool) {
  pool.forEach(p.rows, [&](int64_t r, int) {
    const double logSumP = logSumExp(p.row(r), p.columns), logSumQ = logSumExp(q.row(r), p.columns);
    double divergence = 0;
    for (int64_t c = 0; c < p.columns; ++c) {
      const double logP = double(p.row(r)[c]) - logSumP;
      const double probability = std::exp(logP);
      if (probability != 0) divergence += probability * (logP - (double(q.row(r)[c]) - logSumQ));
    }
    out[r] = float(divergence);
  });
}

}  // namespace monosem::MONOSEM_ISA
