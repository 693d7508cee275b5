// The largest approximate scores of some rows (see amx_product.h).
#pragma once

#include "cpu/generic/top_k.h"
#include "cpu/isa/amx_product.h"

namespace monosem::avx512 {

// Offers the scores that a thread sees to the row of `largest` with its number.
struct ScreenSampleConsumer {
  const float* bias;
  RunningTopK<ByValue>& largest;

  bool enough() const { return false; }
  void take(const ScreenTile& scores) {
    float biased[stripColumns];
    for (int i = 0; i < scores.rows; ++i) {
      for (int j = 0; j < scores.columns; ++j) biased[j] = scores.row(i)[j] + bias[scores.firstColumn + j];
      std::fill(biased + scores.columns, biased + panelsFor(scores.columns, width) * width, -infinity);
      largest.offer(scores.thread, biased, 0, scores.columns);
    }
  }
};

inline void screenSample(Matrix<const float> x, const RowSource& columns, const float* bias,
                         RunningTopK<ByValue>& largest, Allocator& allocator, ThreadPool& pool) {
  const BrainRows packed(x, 0, x.rows, nullptr, allocator, pool);
  std::vector<float> norms;
  ScreenSampleConsumer consumer{bias, largest};
  screenByBlocks(packed, columns, nullptr, norms, allocator, pool, consumer);
}

}  // namespace monosem::avx512
