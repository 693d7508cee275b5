// The emulation's pass over the encoder: what one_pass_scores.h promises, by loops. Its sums are those of
// reference_products.cpp.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/library/one_pass_scores.h"

namespace monosem::cuda {
namespace {

float valueOf(Bfloat16 value) {
  return widened(Pack<Bfloat16, 1>{{value}}).at[0];
}

float product(const Bfloat16* a, const Bfloat16* b, int64_t depth) {
  float sum = 0;
  for (int64_t k = 0; k < depth; ++k) sum = std::fma(valueOf(a[k]), valueOf(b[k]), sum);
  return sum;
}

// A list, and what its scores have to be above.
struct OwnList {
  std::vector<Candidate> candidates;
  float bound;
};

// The k largest, equals in their order.
void cutDown(OwnList& list, int64_t k, bool byMagnitude) {
  const auto rank = [&](const Candidate& candidate) {
    return byMagnitude ? std::abs(candidate.score) : candidate.score;
  };
  std::stable_sort(list.candidates.begin(), list.candidates.end(),
                   [&](const Candidate& a, const Candidate& b) { return rank(a) > rank(b); });
  list.candidates.resize(size_t(k));
  list.bound = rank(list.candidates.back());
  std::sort(list.candidates.begin(), list.candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.position < b.position; });
}

}  // namespace

bool findWarpgroupProducts(Context&) {
  return true;
}

void collectInOnePass(Context&, const EncodeOperands& operands, const OnePassFactors& factors, int64_t firstPosition,
                      const ScoreBounds& bounds, int64_t k, bool byMagnitude, const LaneLists& lists) {
  const int64_t positions = operands.positions(), depth = factors.x.columns;
  const int64_t tiles = piecesOf(positions - firstPosition, blockColumns);
  for (int64_t row = 0; row < factors.x.rows; ++row) {
    const float ofRow = bounds.ofRows ? bounds.ofRows[row] : bounds.ofAll ? *bounds.ofAll : -INFINITY;
    for (int64_t stripe = 0; stripe < lists.stripes; ++stripe) {
      OwnList own[listsPerStripe];
      for (OwnList& list : own) list.bound = ofRow;
      for (int64_t tile = tiles * stripe / lists.stripes; tile < tiles * (stripe + 1) / lists.stripes; ++tile) {
        const int64_t begin = firstPosition + tile * blockColumns, end = std::min(positions, begin + blockColumns);
        for (int64_t position = begin; position < end; ++position) {
          const float score =
              product(factors.x.row(row), factors.encoder.row(position), depth) + operands.biases[position];
          if (!std::isfinite(score))
            operands.outcome->nonFiniteScoreRow = std::min(operands.outcome->nonFiniteScoreRow, uint32_t(row));
          OwnList& list = own[position % 8 / 2];
          const float above = bounds.ofPositions ? bounds.ofPositions[position] - bounds.margin : list.bound;
          if (!((byMagnitude ? std::abs(score) : score) <= above))
            list.candidates.push_back({score, uint32_t(position)});
        }
        for (OwnList& list : own) {
          if (int64_t(list.candidates.size()) <= lists.capacity - scoresPerTile) continue;
          if (k > 0) {
            cutDown(list, k, byMagnitude);
          } else {
            operands.outcome->listsOverflowed = 1;
            operands.outcome->entries += list.candidates.size();
            list.candidates.clear();
          }
        }
      }
      for (int64_t i = 0; i < listsPerStripe; ++i) {
        const int64_t index = (row * lists.stripes + stripe) * listsPerStripe + i;
        lists.counts[index] = uint32_t(own[i].candidates.size());
        std::copy(own[i].candidates.begin(), own[i].candidates.end(), lists.candidates + index * lists.capacity);
      }
    }
  }
}

}  // namespace monosem::cuda
