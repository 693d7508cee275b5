// What JavaScript holds: opaque Externals, tagged so that nothing else is taken for one.
//
// A handle owns a share of its result (and of the device, which therefore outlives all of its handles). Disposing it,
// or its collection by the garbage collector, gives up that share; queued work has its own. Handles are made, used and
// finalised on their environment's JavaScript thread.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "addon/external_memory.h"
#include "engine/device.h"

namespace monosem {

enum class HandleKind : uint8_t { device, tensor, codes, entryValues, featureSet, keptGradient };

const char* nameOf(HandleKind kind);

struct Handle {
  HandleKind kind = HandleKind::device;
  std::shared_ptr<Device> device;
  std::shared_ptr<Result> result;                  // null once disposed; a device handle has none
  DType dtype = DType::f32;                        // of a tensor
  Shape shape;                                     // of a tensor; [rows, dSae] of codes
  int64_t bytes = 0;                               // roughly what it holds, for the garbage collector
  std::shared_ptr<ExternalMemory> externalMemory;  // of the environment; it may go before the handle does

  Tensor tensor() const { return {dtype, shape, std::static_pointer_cast<Storage>(result)}; }
};

Napi::Value wrapDevice(Napi::Env env, std::shared_ptr<Device> device);
Napi::Value wrapTensor(Napi::Env env, const std::shared_ptr<Device>& device, const Tensor& tensor);
// `bytes`: roughly what it will hold.
Napi::Value wrapResult(Napi::Env env, HandleKind kind, const std::shared_ptr<Device>& device,
                       std::shared_ptr<Result> result, const Shape& shape, int64_t bytes);

// The handle behind a JavaScript value; throws EngineError unless it is a live one of this kind, of an open device.
Handle& unwrap(const Napi::Value& value, HandleKind kind, const char* name);

// The handle of anything but a device, whose device may be closed.
Handle& unwrapResult(const Napi::Value& value, const char* name);

void dispose(Napi::BasicEnv env, Handle& handle);

}  // namespace monosem
