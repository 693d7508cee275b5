// The selections of the fused encoder, one function each; see Kernels::encode. There are rows and eligible features.
#pragma once

#include "cuda/library/encode_operands.h"

namespace monosem::cuda {

void encodePositive(Context& gpu, const EncodeOperands& operands, MadeCodes* made);
void encodeTopK(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude, MadeCodes* made);  // k > 0
// The selection of encodeTopK, into codes that have room for its entries: the faster way, where there is one.
bool selectTopKInOnePass(Context& gpu, const EncodeOperands& operands, int64_t k, bool byMagnitude,
                         const MadeCodes& made);
void encodeBatchTopK(Context& gpu, const EncodeOperands& operands, int64_t k, MadeCodes* made);
// `thresholds` by position.
void encodeAbove(Context& gpu, const EncodeOperands& operands, const float* thresholds, float margin, MadeCodes* made);
void encodeAll(Context& gpu, const EncodeOperands& operands, MadeCodes* made);

// Of codes with `perRow` entries in every row.
uint64_t* evenRowOffsets(Context& gpu, int64_t rows, int64_t perRow);

}  // namespace monosem::cuda
