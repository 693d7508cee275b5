// What happens where kernels meet NaN or infinity instead of a number.
#pragma once

#include <string>

#include "cuda/library/context.h"
#include "engine/error.h"

namespace monosem::cuda {

// Whether codes are what a failed encode has left (see refuseLate).
__device__ inline bool isPoisoned(const CodesView& codes) {
  return codes.entries > 0 && codes.values[0] != codes.values[0];
}

[[noreturn]] inline void throwNonFinite(const char* operand, int64_t row) {
  throw EngineError(ErrorCode::nonFinite, std::string(operand) + " holds NaN or infinity, first in row " +
                                              std::to_string(row) + "; all of it must be finite.");
}

[[noreturn]] inline void throwTooLarge(int64_t row) {
  throw EngineError(ErrorCode::nonFinite, "The pre-activations of row " + std::to_string(row) +
                                              " are too large for float32: x or the encoder holds huge values.");
}

}  // namespace monosem::cuda
