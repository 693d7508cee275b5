// What a pass over the encoder (one_pass_scores.h) is planned and prepared by.
#include <algorithm>

#include "cuda/library/one_pass_scores.h"

namespace monosem::cuda {
namespace {

// Copies of tiles need rows that begin at multiples of 16 bytes.
constexpr int64_t columnsOfCopies = 8;
// Lists with more room than they need at least take so much memory at most.
constexpr int64_t mostListBytes = int64_t(512) << 20;

int64_t rowsOfBlocks(int64_t rows) {
  constexpr int64_t rowsOfCluster = blockRows * int64_t(clusterBlocks);
  return piecesOf(rows, rowsOfCluster) * rowsOfCluster;
}

int64_t powerOfTwoFrom(int64_t least) {
  int64_t power = 1;
  while (power < least) power *= 2;
  return power;
}

// The first place from `memory` on that is a multiple of the size of `count` candidates.
Candidate* alignedTo(int64_t count, Candidate* memory) {
  const uintptr_t size = sizeof(Candidate) * uintptr_t(count);
  return reinterpret_cast<Candidate*>((reinterpret_cast<uintptr_t>(memory) + size - 1) / size * size);
}

}  // namespace

bool worthOnePass(Context& gpu, const EncodeOperands& operands) {
  const int64_t tiles = operands.x.rows * operands.positions() / (blockRows * blockColumns);
  return gpu.precision() == Precision::bfloat16 && !operands.eligible.indices &&
         operands.x.columns % columnsOfCopies == 0 && tiles >= gpu.multiprocessors() && gpu.hasWarpgroupProducts();
}

LaneLists makeLaneLists(Context& gpu, const EncodeOperands& operands, int64_t firstPosition, int64_t expectedPerRow,
                        int64_t fewest, int64_t mostPerRow) {
  const int64_t rows = rowsOfBlocks(operands.x.rows);
  const int64_t tiles = piecesOf(operands.positions() - firstPosition, blockColumns);
  const int64_t least = powerOfTwoFrom(fewest + scoresPerTile);
  const int64_t affordable = std::min(mostPerRow, mostListBytes / (rows * int64_t(sizeof(Candidate))));
  LaneLists lists;
  lists.stripes = std::clamp<int64_t>(gpu.multiprocessors() / (rows / blockRows), 1,
                                      std::clamp<int64_t>(affordable / (listsPerStripe * least), 1, tiles));
  lists.capacity = least;
  while (lists.capacity < 2 * expectedPerRow / lists.listsPerRow() + scoresPerTile &&
         2 * lists.capacity * lists.listsPerRow() <= affordable)
    lists.capacity *= 2;
  const int64_t count = rows * lists.listsPerRow();
  lists.candidates = alignedTo(lists.capacity, gpu.allocate<Candidate>((count + 1) * lists.capacity));
  lists.counts = gpu.allocate<uint32_t>(count);
  return lists;
}

OnePassFactors onePassFactors(Context& gpu, const EncodeOperands& operands) {
  return {roundedToBfloat16(gpu, operands.x), roundedToBfloat16(gpu, operands.encoder)};
}

}  // namespace monosem::cuda
