#include "addon/handles.h"

#include <string>
#include <utility>

#include "addon/environment.h"

namespace monosem {
namespace {

constexpr napi_type_tag kHandleTag = {0x8f2b6d0a51c94e37, 0xb1d70c5e92a84f63};

Napi::Value wrap(Napi::Env env, std::unique_ptr<Handle> handle) {
  auto external = Napi::External<Handle>::New(env, handle.get(), [](Napi::BasicEnv basicEnv, Handle* finalised) {
    dispose(basicEnv, *finalised);
    delete finalised;
  });
  Handle& owned = *handle.release();  // the finaliser's now
  external.TypeTag(&kHandleTag);
  owned.externalMemory = Environment::of(env).externalMemory();
  owned.externalMemory->change(env, owned.bytes);
  return external;
}

Handle& handleOf(const Napi::Value& value, const char* name) {
  if (!value.IsExternal() || !value.As<Napi::External<Handle>>().CheckTypeTag(&kHandleTag)) {
    throw EngineError(ErrorCode::invalidArgument, std::string(name) + ": expected a handle of monosem");
  }
  return *value.As<Napi::External<Handle>>().Data();
}

}  // namespace

const char* nameOf(HandleKind kind) {
  switch (kind) {
    case HandleKind::device:
      return "device";
    case HandleKind::tensor:
      return "tensor";
    case HandleKind::codes:
      return "codes";
    case HandleKind::entryValues:
      return "entry values";
    case HandleKind::featureSet:
      return "feature set";
    case HandleKind::keptGradient:
      return "kept gradient";
  }
  return "handle";
}

Napi::Value wrapDevice(Napi::Env env, std::shared_ptr<Device> device) {
  auto handle = std::make_unique<Handle>();
  handle->device = std::move(device);
  return wrap(env, std::move(handle));
}

Napi::Value wrapTensor(Napi::Env env, const std::shared_ptr<Device>& device, const Tensor& tensor) {
  auto handle = std::make_unique<Handle>();
  *handle = {HandleKind::tensor, device, tensor.storage, tensor.dtype, tensor.shape, int64_t(tensor.bytes()), nullptr};
  return wrap(env, std::move(handle));
}

Napi::Value wrapResult(Napi::Env env, HandleKind kind, const std::shared_ptr<Device>& device,
                       std::shared_ptr<Result> result, const Shape& shape, int64_t bytes) {
  auto handle = std::make_unique<Handle>();
  *handle = {kind, device, std::move(result), DType::f32, shape, bytes, nullptr};
  return wrap(env, std::move(handle));
}

Handle& unwrap(const Napi::Value& value, HandleKind kind, const char* name) {
  Handle& handle = handleOf(value, name);
  if (handle.kind != kind) {
    throw EngineError(ErrorCode::invalidArgument,
                      std::string(name) + ": expected a " + nameOf(kind) + ", found a " + nameOf(handle.kind));
  }
  if (kind != HandleKind::device && !handle.result) {
    throw EngineError(ErrorCode::disposed, std::string(name) + ": this " + nameOf(kind) + " was disposed");
  }
  if (!handle.device->open()) throw EngineError(ErrorCode::disposed, std::string(name) + ": the device was closed");
  return handle;
}

Handle& unwrapResult(const Napi::Value& value, const char* name) {
  Handle& handle = handleOf(value, name);
  if (!handle.result) {
    throw EngineError(ErrorCode::disposed, std::string(name) + ": this " + nameOf(handle.kind) + " holds no result");
  }
  return handle;
}

void dispose(Napi::BasicEnv env, Handle& handle) {
  handle.result.reset();
  if (handle.externalMemory) handle.externalMemory->change(env, -handle.bytes);
  handle.bytes = 0;
}

}  // namespace monosem
