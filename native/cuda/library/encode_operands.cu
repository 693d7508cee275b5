#include "cuda/library/encode_operands.h"

#include <algorithm>
#include <string>

#include "cuda/library/matrix_products.h"
#include "cuda/library/non_finite.h"

namespace monosem::cuda {
namespace {

// A chunk has so many scores per multiprocessor, 17 million (68 MB) in all on an H200. Larger chunks take less time,
// though they do not stay in the second-level cache: their products fill the device in whole waves. Encoding 4096 rows
// took, in ms, by columns per chunk:
//
//   columns             1024   1536   2048   3072   4096   24576
//   768 -> 24576        0.83   0.73   0.70   0.65   0.63    0.53
//   2304 -> 65536       3.47   3.18   2.99   2.94   2.84    2.66
constexpr int64_t scoresPerMultiprocessor = 128 * 1024;
// Enough rows that the encoder is read rarely, few enough that a chunk has columns enough for an efficient product.
constexpr int64_t mostRowsPerChunk = 4096;
// Chunks begin at multiples of so many positions, as products prefer, and have at least as many.
constexpr int64_t columnAlignment = 64;
// With a subset, and where products are in bfloat16, the chunk's rows of the encoder are copied, unless there is a
// rounded copy of all of them: so many elements at most. Chunks are as large with such a copy as without, so that it
// does not show in the scores.
constexpr int64_t copiedElements = int64_t(16) << 20;

__global__ void startOutcomeKernel(EncodeOutcome* outcome) {
  *outcome = EncodeOutcome();
}

constexpr unsigned refusingThreads = 1024;

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

// The first row of the matrix that holds NaN or infinity, else `none`. `rowOf(i)`: its i-th row of `count`, ascending.
// By a block.
template <class RowOf>
__device__ uint32_t firstNonFiniteRow(Rows matrix, int64_t count, const RowOf& rowOf) {
  for (int64_t i = 0; i < count; ++i) {
    const float* elements = matrix.data + int64_t(rowOf(i)) * matrix.columns;
    bool refused = false;
    for (int64_t column = threadIdx.x; column < matrix.columns; column += blockDim.x)
      refused = refused || !isFinite(elements[column]);
    if (__syncthreads_or(refused)) return rowOf(i);
  }
  return EncodeOutcome::none;
}

// See refuseLate. One block, which has nothing to do unless the encode has failed.
__global__ void __launch_bounds__(refusingThreads)
    refuseLateKernel(Rows x, Rows encoder, FeatureSetView eligible, const EncodeOutcome* outcome, MadeCodes made,
                     LateFailureNote* note) {
  const uint32_t bias = outcome->nonFiniteBias, scoreRow = outcome->nonFiniteScoreRow;
  if (bias == EncodeOutcome::none && scoreRow == EncodeOutcome::none) return;
  for (int64_t entry = threadIdx.x; entry < made.entries; entry += refusingThreads) {
    made.preActivations[entry] = NAN;
    if (made.values) made.values[entry] = NAN;
  }
  LateFailure failure = LateFailure::biasNotFinite;
  uint32_t place = bias;
  if (bias == EncodeOutcome::none) {
    failure = LateFailure::inputNotFinite;
    place = firstNonFiniteRow(x, x.rows, [](int64_t row) { return uint32_t(row); });
  }
  if (place == EncodeOutcome::none) {
    failure = LateFailure::encoderNotFinite;
    place = firstNonFiniteRow(encoder, eligible.count, [&](int64_t position) { return featureAt(eligible, position); });
  }
  if (place == EncodeOutcome::none) {
    failure = LateFailure::scoresTooLarge;
    place = scoreRow;
  }
  if (threadIdx.x == 0) noteFailure(note, failure, place);
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

EncodeOperands prepareOperands(Context& gpu, Rows x, const uint16_t* roundedX, Rows encoder,
                               const uint16_t* roundedEncoder, Floats bias, const FeatureSetView& eligible) {
  EncodeOutcome* outcome = gpu.allocate<EncodeOutcome>(1);
  launch(gpu, startOutcomeKernel, Launch{1, 1}, outcome);
  const float* biases = gatherChecked<RefuseNonFinite>(gpu, bias, eligible, &outcome->nonFiniteBias);
  return {x,
          encoder,
          reinterpret_cast<const Bfloat16*>(roundedX),
          reinterpret_cast<const Bfloat16*>(roundedEncoder),
          eligible,
          biases,
          outcome};
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
    throwTooLarge(outcome.nonFiniteScoreRow);
  }
  return outcome;
}

void refuseLate(Context& gpu, const EncodeOperands& operands, const MadeCodes& made) {
  launch(gpu, refuseLateKernel, Launch{1, refusingThreads}, operands.x, operands.encoder, operands.eligible,
         operands.outcome, made, gpu.failureNote());
}

ChunkShape chunkShapeFor(const Context& gpu, const EncodeOperands& operands) {
  const int64_t rows = evenParts(operands.x.rows, mostRowsPerChunk, 1);
  int64_t columns = gpu.multiprocessors() * scoresPerMultiprocessor / rows;
  if (operands.eligible.indices || gpu.precision() == Precision::bfloat16)
    columns = std::min(columns, copiedElements / std::max<int64_t>(1, operands.x.columns));
  columns = std::max(columns / columnAlignment, int64_t(1)) * columnAlignment;
  return {rows, std::min(evenParts(operands.positions(), columns, columnAlignment), operands.positions())};
}

namespace {

// With x as the products take it, in float32 or rounded, and the encoder likewise; null: there is none.
template <class T>
void forEachScoreChunkOf(Context& gpu, const EncodeOperands& operands, Matrix<const T> x, const T* encoder,
                         const std::function<void(const ScoreChunk&)>& visit) {
  const ChunkShape shape = chunkShapeFor(gpu, operands);
  float* scratch = gpu.allocate<float>(shape.rows * alignedStride(shape.columns));
  const bool copied = !encoder || operands.eligible.indices;
  T* copies = copied ? gpu.allocate<T>(shape.columns * x.columns) : nullptr;
  for (int64_t row = 0; row < x.rows; row += shape.rows)
    for (int64_t position = 0; position < operands.positions(); position += shape.columns) {
      const int64_t rows = std::min(shape.rows, x.rows - row);
      const int64_t columns = std::min(shape.columns, operands.positions() - position);
      if (copied) copyEligibleRows(gpu, operands.encoder, operands.eligible, position, columns, copies);
      const T* factor = copied ? copies : encoder + position * x.columns;
      const Strided<float> products{scratch, rows, columns, alignedStride(columns)};
      gpu.products().abTransposed({x.row(row), rows, x.columns}, {factor, columns, x.columns}, 1, 0, products);
      visit({row, position, products, operands.biases + position});
    }
}

}  // namespace

void forEachScoreChunk(Context& gpu, const EncodeOperands& operands,
                       const std::function<void(const ScoreChunk&)>& visit) {
  if (gpu.precision() == Precision::bfloat16)
    forEachScoreChunkOf(gpu, operands, roundedToBfloat16(gpu, operands.x, operands.roundedX), operands.roundedEncoder,
                        visit);
  else
    forEachScoreChunkOf(gpu, operands, operands.x, operands.encoder.data, visit);
}

}  // namespace monosem::cuda
