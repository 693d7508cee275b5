// Sampling a class from logits.
#pragma once

#include "cpu/generic/random.h"
#include "cpu/generic/softmax.h"

namespace monosem::MONOSEM_ISA {

// out[r] ~ softmax(logits[r] / temperature), restricted to the topK largest logits and then to the fewest of these
// whose probability reaches topP (ties: the lower index first). One uniform number with 53 bits per row, from counter
// offset + r; the class is found by walking the candidates in that order, in double. Temperature 0: the largest logit.
inline void sample(Matrix<const float> logits, const Sampling& sampling, Vector<int32_t> out, ThreadPool& pool) {
  pool.forEach(logits.rows, [&](int64_t r, int) {
    const float* row = logits.row(r);
    const int64_t columns = logits.columns;
    for (int64_t c = 0; c < columns; ++c)
      if (std::isnan(row[c]) || row[c] == std::numeric_limits<float>::infinity())
        throw EngineError(ErrorCode::nonFinite, "Cannot sample from row " + std::to_string(r) +
                                                    " of the logits: class " + std::to_string(c) + " is " +
                                                    std::to_string(row[c]) + ".");
    const float top = largest(row, columns);
    if (top == -std::numeric_limits<float>::infinity())
      throw EngineError(ErrorCode::nonFinite,
                        "Cannot sample from row " + std::to_string(r) + " of the logits: every class is -infinity.");
    if (sampling.temperature == 0) {
      out[r] = int32_t(std::find(row, row + columns, top) - row);
      return;
    }
    std::vector<float> weights(static_cast<size_t>(columns));
    const Floats shifts = broadcast(top), inverse = broadcast(float(1 / sampling.temperature));
    forEachVector(columns, [&](int64_t c, int lanes) {
      storeLanes(weights.data() + c, exp((loadLanes(row + c, lanes) - shifts) * inverse), lanes);
    });
    const auto totalOf = [&](const std::vector<int32_t>& classes) {
      double total = 0;
      for (const int32_t c : classes) total += double(weights[size_t(c)]);
      return total;
    };
    std::vector<int32_t> candidates(static_cast<size_t>(columns));
    std::iota(candidates.begin(), candidates.end(), 0);
    const bool cutK = sampling.topK > 0 && sampling.topK < columns, cutP = sampling.topP < 1;
    const auto worse = [&](int32_t a, int32_t b) { return row[a] != row[b] ? row[a] < row[b] : a > b; };
    if (cutK) {
      const auto better = [&](int32_t a, int32_t b) { return worse(b, a); };
      std::partial_sort(candidates.begin(), candidates.begin() + sampling.topK, candidates.end(), better);
      candidates.resize(size_t(sampling.topK));
    }
    double total = totalOf(candidates);
    if (cutP) {
      // A heap, because few classes are usually enough.
      const double enough = sampling.topP * total;
      std::vector<int32_t> kept;
      std::make_heap(candidates.begin(), candidates.end(), worse);
      total = 0;
      do {
        std::pop_heap(candidates.begin(), candidates.end(), worse);
        kept.push_back(candidates.back());
        candidates.pop_back();
        total += double(weights[size_t(kept.back())]);
      } while (total < enough && !candidates.empty());
      candidates = std::move(kept);
    }
    const std::array<uint32_t, 4> words = randomWords(sampling.seed, sampling.offset + uint64_t(r));
    double left = double((uint64_t(words[1]) << 32 | words[0]) >> 11) * 0x1p-53 * total;
    int32_t chosen = -1;
    for (const int32_t c : candidates) {
      const double own = double(weights[size_t(c)]);
      if (own == 0) continue;
      chosen = c;  // the last with any weight, should rounding leave something over
      if (left < own) break;
      left -= own;
    }
    out[r] = chosen;
  });
}

}  // namespace monosem::MONOSEM_ISA
