// Errors of the engine. Inside the engine they are C++ exceptions; at the two edges (the work queue and the Node-API
// boundary) they become a code and a message, and nothing is thrown across.
#pragma once

#include <stdexcept>
#include <string>

namespace monosem {

enum class ErrorCode {
  invalidArgument,  // a number or an enumeration out of range
  shapeMismatch,    // sizes that do not fit together
  dtypeMismatch,    // another element type than the kernel works on
  deviceMismatch,   // operands that live on different devices
  disposed,         // a handle that was given back
  outOfMemory,      // the device's limit, or the machine's memory
  nonFinite,        // NaN or infinity where a number is needed
  notComputed,      // a tensor whose producing kernel failed
  unsupported,      // this machine, build or driver cannot do it
  deviceLost,       // a GPU that has failed and does nothing more in this process
  internal,         // a bug of ours
};

// The stable string that JavaScript sees in `error.code`, for example "ERR_SHAPE_MISMATCH".
const char* errorCodeName(ErrorCode code);

class EngineError : public std::runtime_error {
 public:
  EngineError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace monosem
