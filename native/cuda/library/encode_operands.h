// What every selection of the fused encoder starts from: checked operands, and the scores, chunk by chunk.
//
//   z[r, p] = bias[p] + sum over k of x[r, k] * encoder[p, k]
//
// where p is a position among the eligible features, which ascend: all of them or those of a subset. The product is
// made for a chunk of rows and positions at a time, large enough to fill the device well, and the kernel of a selection
// reads it, adds the bias and keeps what it selects: [rows, dSae] never exists. Chunks depend on the
// shapes alone, so that a score has the same bits whatever is selected, unless that is done in one pass, which sums in
// another order (one_pass_scores.h).
#pragma once

#include <functional>

#include "cuda/library/eligible_rows.h"
#include "cuda/library/strided.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {

// What an encode finds out, in device memory. Where the number of entries follows from it, the host reads it, once;
// else it is never waited for (see refuseLate).
struct EncodeOutcome {
  static constexpr uint32_t none = UINT32_MAX;

  float bound = 0;                    // that entries have to be above: collectAbove's operand
  uint32_t valuesDiffer = 0;          // whether an entry's value is not its pre-activation
  unsigned long long entries = 0;     // that were collected
  uint32_t listsOverflowed = 0;       // whether lists of one_pass_scores.h have lost entries
  uint32_t nonFiniteBias = none;      // the first feature whose bias is NaN or infinite
  uint32_t nanThreshold = none;       // the first feature whose threshold is NaN
  uint32_t nonFiniteScoreRow = none;  // the first row with a score that is NaN or infinite
};

struct EncodeOperands {
  Rows x, encoder;
  // x [rows, dIn] and the encoder [dSae, dIn] in bfloat16; null: there is no copy.
  const Bfloat16* roundedX;
  const Bfloat16* roundedEncoder;
  FeatureSetView eligible;
  const float* biases;  // [positions]
  EncodeOutcome* outcome;

  int64_t positions() const { return eligible.count; }
};

// Checks the biases, of all features.
EncodeOperands prepareOperands(Context& gpu, Rows x, const uint16_t* roundedX, Rows encoder,
                               const uint16_t* roundedEncoder, Floats bias, const FeatureSetView& eligible);
// The thresholds by position. Checks them, of all features.
const float* prepareThresholds(Context& gpu, const EncodeOperands& operands, Floats thresholds);
// Waits for the kernels so far and reads what they have found out. Throws nonFinite, naming the operand and the place,
// where they met NaN or infinity.
EncodeOutcome readOutcome(Context& gpu, const EncodeOperands& operands);
// The same without waiting, for codes whose number of entries is known: where NaN or infinity was met, the failure is
// noted, and all pre-activations and values (null: there are none) become NaN. So a step that goes on with these codes
// is refused for the norm of its gradient, and by isPoisoned where it has none, as kernels that keep a state are. What
// else is made from them, is NaN or of no meaning.
void refuseLate(Context& gpu, const EncodeOperands& operands, const MadeCodes& made);

// The size of all chunks but the last ones.
struct ChunkShape {
  int64_t rows, columns;
};
ChunkShape chunkShapeFor(const Context& gpu, const EncodeOperands& operands);

// The scores of some rows and positions: products + biases.
struct ScoreChunk {
  int64_t firstRow, firstPosition;
  Strided<const float> products;  // [rows, columns]
  const float* biases;            // [columns]

  int64_t endPosition() const { return firstPosition + products.columns; }
};

// visit(chunk) for every chunk: all positions of the first rows, ascending, then of the next. What it queues has to
// read the chunk; the next one takes its memory.
void forEachScoreChunk(Context& gpu, const EncodeOperands& operands,
                       const std::function<void(const ScoreChunk&)>& visit);

// ---- In kernels

// By a thread: whether all scores of the row that it has seen are finite.
__device__ inline void noteScores(bool allFinite, int64_t row, EncodeOutcome* outcome) {
  if (!allFinite) atomicMin(&outcome->nonFiniteScoreRow, uint32_t(row));
}
// By a thread: whether it has seen an entry whose value is not its pre-activation.
__device__ inline void noteValues(bool differ, EncodeOutcome* outcome) {
  if (differ) outcome->valuesDiffer = 1;
}

// A piece of a row of a chunk, which one warp takes at once: up to scoresPerLane steps of 32 columns.
constexpr int scoresPerLane = 16;
constexpr int pieceColumns = scoresPerLane * int(warpSize_);
constexpr unsigned pieceWarps = 8, pieceThreads = pieceWarps * warpSize_;  // of a block

class ScorePiece {
 public:
  int64_t row;            // of x
  int64_t number;         // of the piece in its row of the chunk
  int64_t firstPosition;  // of the piece
  int columns;            // 0 in a warp that has no piece

  __device__ explicit ScorePiece(const ScoreChunk& chunk) {
    const int64_t pieces = (chunk.products.columns + pieceColumns - 1) / pieceColumns;
    const int64_t item = int64_t(blockIdx.x) * pieceWarps + warpOf();
    const int64_t rowOfChunk = item / pieces;
    number = item - rowOfChunk * pieces;
    row = chunk.firstRow + rowOfChunk;
    const int64_t firstColumn = number * pieceColumns;
    firstPosition = chunk.firstPosition + firstColumn;
    columns =
        rowOfChunk < chunk.products.rows ? int(min(int64_t(pieceColumns), chunk.products.columns - firstColumn)) : 0;
    products_ = chunk.products.data + rowOfChunk * chunk.products.stride + firstColumn;
    biases_ = chunk.biases + firstColumn;
  }
  // Whether any lane has a score in a step, and whether this one has.
  __device__ bool hasStep(int step) const { return step * int(warpSize_) < columns; }
  __device__ bool has(int step) const { return column(step) < columns; }
  __device__ float score(int step) const { return products_[column(step)] + biases_[column(step)]; }
  __device__ int64_t position(int step) const { return firstPosition + column(step); }

 private:
  __device__ static int column(int step) { return step * int(warpSize_) + int(laneOf()); }

  const float* products_;
  const float* biases_;
};

// For kernels that give each piece to a warp.
inline Launch warpPerPiece(const ScoreChunk& chunk) {
  return {dim3(piecesOf(chunk.products.rows * piecesOf(chunk.products.columns, pieceColumns), pieceWarps)),
          pieceThreads};
}

}  // namespace monosem::cuda
