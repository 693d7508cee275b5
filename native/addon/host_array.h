// Typed arrays of JavaScript, checked against what a tensor needs.
#pragma once

#include <napi.h>

#include "addon/handles.h"

namespace monosem {

// The array's bytes; throws EngineError unless it is a typed array of this element type with this many elements (a
// transferred array has none). The pointer is good until control returns to JavaScript.
const void* hostData(const Napi::Value& value, DType dtype, int64_t elements);

// A new typed array of this element type; `data` receives its memory. f16 and bf16 are Uint16Arrays.
Napi::TypedArray newHostArray(Napi::Env env, DType dtype, int64_t elements, void** data);

}  // namespace monosem
