// What a pass over the encoder (one_pass_scores.h) is planned and prepared by.
#include <algorithm>

#include "cuda/library/one_pass_scores.h"

namespace monosem::cuda {
namespace {

// Copies of tiles need rows that begin at multiples of 16 bytes.
constexpr int64_t columnsOfCopies = 8;
// All lists together take so much memory at most; the addresses of their entries have 32 bits.
constexpr int64_t mostListBytes = int64_t(512) << 20;

int64_t rowsOfBlocks(int64_t rows) {
  constexpr int64_t rowsOfCluster = blockRows * int64_t(clusterBlocks);
  return piecesOf(rows, rowsOfCluster) * rowsOfCluster;
}

}  // namespace

bool worthOnePass(Context& gpu, const EncodeOperands& operands, int64_t fewest) {
  const int64_t tiles = operands.x.rows * operands.positions() / (blockRows * blockColumns);
  const int64_t leastBytes =
      rowsOfBlocks(operands.x.rows) * listsPerStripe * (fewest + scoresPerTile) * int64_t(sizeof(Candidate));
  return leastBytes <= mostListBytes && gpu.precision() == Precision::bfloat16 && !operands.eligible.indices &&
         operands.x.columns > 0 && operands.x.columns % columnsOfCopies == 0 && tiles >= gpu.multiprocessors() &&
         gpu.hasWarpgroupProducts();
}

LaneLists makeLaneLists(Context& gpu, const EncodeOperands& operands, int64_t firstPosition, int64_t expectedPerRow,
                        int64_t fewest, int64_t mostPerRow) {
  const int64_t rows = rowsOfBlocks(operands.x.rows);
  const int64_t tiles = piecesOf(operands.positions() - firstPosition, blockColumns);
  const int64_t affordable = std::min(mostPerRow, mostListBytes / (rows * int64_t(sizeof(Candidate))));
  LaneLists lists;
  const int64_t mostStripes = affordable / (listsPerStripe * (fewest + scoresPerTile));
  lists.stripes = std::clamp<int64_t>(gpu.multiprocessors() / (rows / blockRows), 1,
                                      std::clamp<int64_t>(mostStripes, 1, std::max<int64_t>(1, tiles)));
  const int64_t wanted = std::max(fewest, 2 * expectedPerRow / lists.listsPerRow()) + scoresPerTile;
  lists.capacity = std::max(fewest + scoresPerTile, std::min(wanted, affordable / lists.listsPerRow()));
  const int64_t count = rows * lists.listsPerRow();
  lists.candidates = gpu.allocate<Candidate>(count * lists.capacity);
  lists.counts = gpu.allocate<uint32_t>(count);
  return lists;
}

OnePassFactors onePassFactors(Context& gpu, const EncodeOperands& operands) {
  return {roundedToBfloat16(gpu, operands.x, operands.roundedX),
          roundedToBfloat16(gpu, operands.encoder, operands.roundedEncoder)};
}

}  // namespace monosem::cuda
