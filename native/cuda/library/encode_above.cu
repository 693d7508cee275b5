// The selections that judge every score by itself: positive, above thresholds, all.
#include "cuda/library/collect_entries.h"
#include "cuda/library/encode.h"

namespace monosem::cuda {
namespace {

// values[e] = the pre-activation where it is above its threshold and positive, else 0. `thresholds` by position;
// `positionOf` of a feature, null where they are the same.
__global__ void valuesAboveKernel(const uint32_t* features, const float* preActivations, int64_t entries,
                                  const uint32_t* positionOf, const float* thresholds, float* values) {
  FOR_EACH_ELEMENT(entry, entries) {
    const uint32_t feature = features[entry];
    values[entry] = valueAbove(preActivations[entry], thresholds[positionOf ? positionOf[feature] : feature]);
  }
}

// Writes every score of a chunk, its feature and its value max(z, 0) to their places in codes that hold all positions
// of every row: a warp per piece of a row.
__global__ void __launch_bounds__(pieceThreads)
    writeAllKernel(ScoreChunk chunk, FeatureSetView eligible, MadeCodes made, EncodeOutcome* outcome) {
  const ScorePiece piece(chunk);
  bool allFinite = true;
#pragma unroll
  for (int i = 0; i < scoresPerLane; ++i) {
    if (!piece.has(i)) continue;
    const float score = piece.score(i);
    const int64_t entry = piece.row * eligible.count + piece.position(i);
    made.features[entry] = featureAt(eligible, piece.position(i));
    made.preActivations[entry] = score;
    made.values[entry] = score > 0 ? score : 0;
    allFinite = allFinite && isFinite(score);
  }
  noteScores(allFinite, piece.row, outcome);
}

}  // namespace

void encodePositive(Context& gpu, const EncodeOperands& operands, MadeCodes* made) {
  compactEntries(gpu, operands, collectAbove(gpu, operands, expectedOfSparseCodes(operands)), made);
}

void encodeAbove(Context& gpu, const EncodeOperands& operands, const float* thresholds, float margin, MadeCodes* made) {
  const CollectedEntries collected =
      collectAboveThresholds(gpu, operands, thresholds, margin, expectedOfSparseCodes(operands));
  compactEntries(gpu, operands, collected, made);
  if (!collected.valuesDiffer) return;
  made->values = gpu.allocate<float>(made->entries);
  launch(gpu, valuesAboveKernel, elementwise(gpu, made->entries), made->features, made->preActivations, made->entries,
         operands.eligible.position, thresholds, made->values);
}

void encodeAll(Context& gpu, const EncodeOperands& operands, MadeCodes* made) {
  const int64_t rows = operands.x.rows, positions = operands.positions();
  made->entries = rows * positions;
  made->rowOffsets = evenRowOffsets(gpu, rows, positions);
  made->features = gpu.allocate<uint32_t>(made->entries);
  made->preActivations = gpu.allocate<float>(made->entries);
  made->values = gpu.allocate<float>(made->entries);
  forEachScoreChunk(gpu, operands, [&](const ScoreChunk& chunk) {
    launch(gpu, writeAllKernel, warpPerPiece(chunk), chunk, operands.eligible, *made, operands.outcome);
  });
  refuseLate(gpu, operands, *made);
}

}  // namespace monosem::cuda
