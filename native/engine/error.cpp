#include "engine/error.h"

namespace monosem {

const char* errorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalidArgument:
      return "ERR_INVALID_ARGUMENT";
    case ErrorCode::shapeMismatch:
      return "ERR_SHAPE_MISMATCH";
    case ErrorCode::dtypeMismatch:
      return "ERR_DTYPE_MISMATCH";
    case ErrorCode::deviceMismatch:
      return "ERR_DEVICE_MISMATCH";
    case ErrorCode::disposed:
      return "ERR_DISPOSED";
    case ErrorCode::outOfMemory:
      return "ERR_OUT_OF_MEMORY";
    case ErrorCode::nonFinite:
      return "ERR_NON_FINITE";
    case ErrorCode::notComputed:
      return "ERR_NOT_COMPUTED";
    case ErrorCode::unsupported:
      return "ERR_UNSUPPORTED";
    case ErrorCode::deviceLost:
      return "ERR_DEVICE_LOST";
    case ErrorCode::internal:
      return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

}  // namespace monosem
