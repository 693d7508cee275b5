// The error of kernels that meet NaN or infinity where a number is needed.
#pragma once

#include <string>

#include "engine/error.h"

namespace monosem::cuda {

[[noreturn]] inline void throwNonFinite(const char* operand, int64_t row) {
  throw EngineError(ErrorCode::nonFinite, std::string(operand) + " holds NaN or infinity, first in row " +
                                              std::to_string(row) + "; all of it must be finite.");
}

}  // namespace monosem::cuda
