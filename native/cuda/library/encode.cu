// The fused encoder: matrix product, bias and selection, chunk by chunk.
#include "cuda/library/encode.h"

#include "cuda/library/kernels.h"

namespace monosem::cuda {
namespace {

// offsets[row] = row * perRow for row in [0, rows].
__global__ void evenRowOffsetsKernel(int64_t rows, uint64_t perRow, uint64_t* offsets) {
  FOR_EACH_ELEMENT(row, rows + 1) {
    offsets[row] = uint64_t(row) * perRow;
  }
}

}  // namespace

uint64_t* evenRowOffsets(Context& gpu, int64_t rows, int64_t perRow) {
  uint64_t* offsets = gpu.allocate<uint64_t>(rows + 1);
  launch(gpu, evenRowOffsetsKernel, elementwise(gpu, rows + 1), rows, perRow, offsets);
  return offsets;
}

void encode(Context& gpu, Rows x, const uint16_t* roundedX, Rows encoder, const uint16_t* roundedEncoder, Floats bias,
            const SelectionView& selection, MadeCodes* made) {
  const EncodeOperands operands = prepareOperands(gpu, x, roundedX, encoder, roundedEncoder, bias, selection.subset);
  const float* thresholds =
      selection.select == Select::above ? prepareThresholds(gpu, operands, selection.thresholds) : nullptr;
  const bool noneWanted = selection.select == Select::topk && selection.k == 0;
  if (x.rows == 0 || operands.positions() == 0 || noneWanted) {
    readOutcome(gpu, operands);
    *made = {0, evenRowOffsets(gpu, x.rows, 0), gpu.allocate<uint32_t>(0), gpu.allocate<float>(0), nullptr};
    return;
  }
  switch (selection.select) {
    case Select::positive:
      return encodePositive(gpu, operands, made);
    case Select::topk:
      return encodeTopK(gpu, operands, selection.k, selection.byMagnitude, made);
    case Select::batchtopk:
      return encodeBatchTopK(gpu, operands, selection.k, made);
    case Select::above:
      return encodeAbove(gpu, operands, thresholds, float(selection.margin), made);
    case Select::all:
      return encodeAll(gpu, operands, made);
  }
}

}  // namespace monosem::cuda
