#include "addon/host_array.h"

#include <string>

namespace monosem {
namespace {

napi_typedarray_type arrayTypeOf(DType dtype) {
  switch (dtype) {
    case DType::f16:
    case DType::bf16:
      return napi_uint16_array;
    case DType::i32:
      return napi_int32_array;
    case DType::u32:
      return napi_uint32_array;
    case DType::f64:
      return napi_float64_array;
    default:
      return napi_float32_array;
  }
}

// By JavaScript's constructor: where there is no memory it throws, while Node-API's own function ends the process.
Napi::ArrayBuffer newArrayBuffer(Napi::Env env, size_t bytes) {
  try {
    const Napi::Object made = env.Global().Get("ArrayBuffer").As<Napi::Function>().New({Napi::Number::New(env, bytes)});
    return made.As<Napi::ArrayBuffer>();
  } catch (const Napi::Error& failed) {
    throw EngineError(ErrorCode::outOfMemory, "cannot allocate " + std::to_string(bytes) +
                                                  " bytes of the process's memory to read into: " + failed.Message());
  }
}

}  // namespace

const void* hostData(const Napi::Value& value, DType dtype, int64_t elements) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  const bool isArray = value.IsTypedArray() &&
                       napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) == napi_ok;
  if (!isArray || type != arrayTypeOf(dtype)) {
    throw EngineError(ErrorCode::dtypeMismatch, std::string("data: expected a typed array of ") + nameOf(dtype));
  }
  if (int64_t(length) != elements) {
    throw EngineError(ErrorCode::shapeMismatch,
                      "data: expected " + std::to_string(elements) + " elements, found " + std::to_string(length));
  }
  return data;
}

Napi::TypedArray newHostArray(Napi::Env env, DType dtype, int64_t elements, void** data) {
  const size_t bytes = bytesPerElement(dtype) * size_t(elements);
  Napi::ArrayBuffer buffer = newArrayBuffer(env, bytes);
  *data = buffer.Data();
  napi_value array = nullptr;
  const napi_status status = napi_create_typedarray(env, arrayTypeOf(dtype), size_t(elements), buffer, 0, &array);
  if (status != napi_ok) throw Napi::Error::New(env);
  return Napi::Value(env, array).As<Napi::TypedArray>();
}

}  // namespace monosem
