#include "cuda/library/encode_operands.h"

#include <algorithm>
#include <string>

#include "cuda/library/matrix_products.h"
#include "cuda/library/non_finite.h"

namespace monosem::cuda {
namespace {

// A chunk has so many scores per multiprocessor: 192 KB of second-level cache, 25 MB in all on an H200.
constexpr int64_t scoresPerMultiprocessor = 48 * 1024;
// Enough rows that the encoder is read rarely, few enough that a chunk has columns enough for an efficient product.
constexpr int64_t mostRowsPerChunk = 4096;
// Chunks begin at multiples of so many positions, as products prefer, and have at least as many.
constexpr int64_t columnAlignment = 64;
// With a subset the chunk's rows of the encoder are copied, so many elements at most.
constexpr int64_t gatheredElements = int64_t(16) << 20;

struct RefuseNonFinite {
  __device__ static bool refuses(float value) { return !isFinite(value); }
};
struct RefuseNan {
  __device__ static bool refuses(float value) { return value != value; }
};

// byPosition[p] = perFeature[feature(p)]; *first = the first feature, eligible or not, whose element is refused.
template <class Refusal>
__global__ void gatherCheckedKernel(Floats perFeature, FeatureSetView eligible, float* byPosition, uint32_t* first) {
  FOR_EACH_ELEMENT(feature, perFeature.size) {
    if (Refusal::refuses(perFeature.data[feature])) atomicMin(first, uint32_t(feature));
  }
  FOR_EACH_ELEMENT(position, eligible.count) {
    byPosition[position] = perFeature.data[featureAt(eligible, position)];
  }
}

// rows[i, :] = encoder[feature(first + i), :]. A block per row.
__global__ void gatherEncoderKernel(Rows encoder, FeatureSetView eligible, int64_t first, float* rows) {
  const float* from = encoder.data + int64_t(featureAt(eligible, first + blockIdx.x)) * encoder.columns;
  float* to = rows + int64_t(blockIdx.x) * encoder.columns;
  for (int64_t column = threadIdx.x; column < encoder.columns; column += blockDim.x) to[column] = from[column];
}

// *first = the first of the eligible rows of the matrix (all rows, or those of a subset) that holds NaN or infinity.
// A block per row.
__global__ void firstNonFiniteRowKernel(Rows matrix, FeatureSetView eligible, uint32_t* first) {
  const uint32_t row = featureAt(eligible, blockIdx.x);
  const float* elements = matrix.data + int64_t(row) * matrix.columns;
  bool refused = false;
  for (int64_t column = threadIdx.x; column < matrix.columns; column += blockDim.x)
    refused = refused || !isFinite(elements[column]);
  if (refused) atomicMin(first, row);
}

template <class Refusal>
const float* gatherChecked(Context& gpu, Floats perFeature, const FeatureSetView& eligible, uint32_t* first) {
  float* byPosition = gpu.allocate<float>(eligible.count);
  launch(gpu, gatherCheckedKernel<Refusal>, elementwise(gpu, perFeature.size), perFeature, eligible, byPosition, first);
  return byPosition;
}

void refuseNonFinite(Context& gpu, const char* operand, Rows matrix, const FeatureSetView& eligible) {
  uint32_t* first = gpu.uploaded(&EncodeOutcome::none, 1);
  launch(gpu, firstNonFiniteRowKernel, Launch{unsigned(eligible.count)}, matrix, eligible, first);
  const uint32_t row = gpu.read(first);
  if (row != EncodeOutcome::none) throwNonFinite(operand, row);
}

// `count` cut into as few equal parts of at most `most` as possible, but for the last, all multiples of `alignment`.
int64_t evenParts(int64_t count, int64_t most, int64_t alignment) {
  const int64_t parts = piecesOf(count, most);
  return int64_t(piecesOf(piecesOf(count, parts), alignment)) * alignment;
}

}  // namespace

EncodeOperands prepareOperands(Context& gpu, Rows x, Rows encoder, Floats bias, const FeatureSetView& eligible) {
  const EncodeOutcome nothing;
  EncodeOutcome* outcome = gpu.uploaded(&nothing, 1);
  return {x, encoder, eligible, gatherChecked<RefuseNonFinite>(gpu, bias, eligible, &outcome->nonFiniteBias), outcome};
}

const float* prepareThresholds(Context& gpu, const EncodeOperands& operands, Floats thresholds) {
  return gatherChecked<RefuseNan>(gpu, thresholds, operands.eligible, &operands.outcome->nanThreshold);
}

EncodeOutcome readOutcome(Context& gpu, const EncodeOperands& operands) {
  const EncodeOutcome outcome = gpu.read(operands.outcome);
  if (outcome.nonFiniteBias != EncodeOutcome::none) throwNonFinite("bias", outcome.nonFiniteBias);
  if (outcome.nanThreshold != EncodeOutcome::none)
    throw EngineError(ErrorCode::nonFinite,
                      "The threshold of feature " + std::to_string(outcome.nanThreshold) + " is NaN.");
  if (outcome.nonFiniteScoreRow != EncodeOutcome::none) {  // why, is looked for only now
    refuseNonFinite(gpu, "x", operands.x, {nullptr, nullptr, operands.x.rows});
    refuseNonFinite(gpu, "encoder", operands.encoder, operands.eligible);
    throw EngineError(ErrorCode::nonFinite, "The pre-activations of row " + std::to_string(outcome.nonFiniteScoreRow) +
                                                " are too large for float32: x or the encoder holds huge values.");
  }
  return outcome;
}

ChunkShape chunkShapeFor(const Context& gpu, const EncodeOperands& operands) {
  const int64_t rows = evenParts(operands.x.rows, mostRowsPerChunk, 1);
  int64_t columns = gpu.multiprocessors() * scoresPerMultiprocessor / rows;
  if (operands.eligible.indices)
    columns = std::min(columns, gatheredElements / std::max<int64_t>(1, operands.x.columns));
  columns = std::max(columns / columnAlignment, int64_t(1)) * columnAlignment;
  return {rows, std::min(evenParts(operands.positions(), columns, columnAlignment), operands.positions())};
}

void forEachScoreChunk(Context& gpu, const EncodeOperands& operands,
                       const std::function<void(const ScoreChunk&)>& visit) {
  const ChunkShape shape = chunkShapeFor(gpu, operands);
  const Rows x = operands.x;
  float* products = gpu.allocate<float>(shape.rows * shape.columns);
  float* gathered = operands.eligible.indices ? gpu.allocate<float>(shape.columns * x.columns) : nullptr;
  for (int64_t row = 0; row < x.rows; row += shape.rows)
    for (int64_t position = 0; position < operands.positions(); position += shape.columns) {
      const int64_t rows = std::min(shape.rows, x.rows - row);
      const int64_t columns = std::min(shape.columns, operands.positions() - position);
      if (gathered)
        launch(gpu, gatherEncoderKernel, Launch{unsigned(columns), 128}, operands.encoder, operands.eligible, position,
               gathered);
      gpu.products().abTransposed(
          {x.data + row * x.columns, rows, x.columns},
          {gathered ? gathered : operands.encoder.data + position * x.columns, columns, x.columns}, 1, 0,
          {products, rows, columns});
      visit({row, position, {products, rows, columns}, operands.biases + position});
    }
}

}  // namespace monosem::cuda
