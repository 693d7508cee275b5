// Scores that are above bounds, in one pass over the encoder that stores no other: a product by Hopper's matrix units,
// whose epilogue is the selection. In bfloat16, on GPUs of compute capability 9.0.
//
// Where the entries of a row go: the positions are cut into stripes, each the work of one block for 128 rows; there
// four threads have a quarter of the columns each. Each of these has a list of its own, which it fills without asking
// anybody. Positions ascend within a list, and those of a stripe are smaller than those of the next.
#pragma once

#include "cuda/library/encode_operands.h"

namespace monosem::cuda {

struct alignas(8) Candidate {
  float score;
  uint32_t position;
};

// The work of a block: tiles of so many rows and columns. Blocks work in pairs on the same columns.
constexpr int blockRows = 128, blockColumns = 256;
constexpr unsigned clusterBlocks = 2;
constexpr int64_t listsPerStripe = 4;
// How many scores of a row a list is offered at once.
constexpr int64_t scoresPerTile = blockColumns / listsPerStripe;

struct LaneLists {
  int64_t stripes, capacity;
  Candidate* candidates;  // [rows of all blocks, stripes, listsPerStripe, capacity]
  uint32_t* counts;       // [rows of all blocks, stripes, listsPerStripe]

  __host__ __device__ int64_t listsPerRow() const { return stripes * listsPerStripe; }
};

// What the rank of a score has to be above: the number of its row or of all rows, or of its position less the margin.
struct ScoreBounds {
  const float* ofRows = nullptr;       // [rows]
  const float* ofAll = nullptr;        // [1]
  const float* ofPositions = nullptr;  // [positions]
  float margin = 0;
};

// Whether the scores can be selected in one pass, with lists that have room for `fewest` entries, and are so many that
// this is the faster way.
bool worthOnePass(Context& gpu, const EncodeOperands& operands, int64_t fewest);

// Lists for the positions from the first one on. There are as many as keep the device busy; each has room for twice its
// part of the `expectedPerRow` entries of a row, and at least for `fewest` and another tile. All lists of a row
// together have room for at most `mostPerRow`, but four have as much as they need at least.
LaneLists makeLaneLists(Context& gpu, const EncodeOperands& operands, int64_t firstPosition, int64_t expectedPerRow,
                        int64_t fewest, int64_t mostPerRow);

// What a pass multiplies: rounded copies, of the encoder the one that is kept with it where there is one.
struct OnePassFactors {
  Matrix<const Bfloat16> x, encoder;
};
OnePassFactors onePassFactors(Context& gpu, const EncodeOperands& operands);

// Fills the lists with the scores of the positions from the first one on that are above their bounds. Where k > 0, a
// list that becomes full is cut down to its k largest, by value or by magnitude, and its bound rises: what it loses is
// not among the k largest of the row. Where k = 0, it loses what it has, which the outcome counts as entries, and the
// lists are useless. Notes scores that are NaN or infinite.
void collectInOnePass(Context& gpu, const EncodeOperands& operands, const OnePassFactors& factors,
                      int64_t firstPosition, const ScoreBounds& bounds, int64_t k, bool byMagnitude,
                      const LaneLists& lists);

// Whether the library has machine code for this GPU's matrix units; see Context::hasWarpgroupProducts.
bool findWarpgroupProducts(Context& gpu);

}  // namespace monosem::cuda
