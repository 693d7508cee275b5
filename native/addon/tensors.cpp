// Bindings of tensors: making, reading, overwriting, reshaping, disposing.
#include <napi.h>

#include <memory>
#include <string>
#include <utility>

#include "addon/call.h"
#include "addon/environment.h"
#include "addon/exports.h"
#include "addon/handles.h"
#include "addon/host_array.h"

namespace monosem {
namespace {

constexpr double kMaximumElements = double(int64_t(1) << 48);

DType dtypeOf(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::u32, DType::f64}) {
    if (name == nameOf(dtype)) return dtype;
  }
  throw EngineError(ErrorCode::dtypeMismatch, "\"" + name + "\" is not a dtype");
}

Shape shapeOf(const Napi::Value& value) {
  if (!value.IsArray()) throw EngineError(ErrorCode::invalidArgument, "shape: expected an array");
  const auto array = value.As<Napi::Array>();
  if (array.Length() > uint32_t(Shape::maxRank)) {
    throw EngineError(ErrorCode::invalidArgument, "shape: more than 8 dimensions");
  }
  Shape shape;
  double elements = 1;
  for (uint32_t d = 0; d < array.Length(); ++d) {
    const Napi::Value size = array.Get(d);
    const double number = size.IsNumber() ? size.As<Napi::Number>().DoubleValue() : -1;
    elements *= number;
    if (!(number >= 0 && number == double(int64_t(number)) && elements <= kMaximumElements)) {
      throw EngineError(ErrorCode::invalidArgument, "shape: sizes must be integers >= 0 and fit in memory");
    }
    shape.append(int64_t(number));
  }
  return shape;
}

// tensorFromHost(device, dtype, shape, data)
Napi::Value tensorFromHost(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto& device = unwrap(info[0], HandleKind::device, "device").device;
    const DType dtype = dtypeOf(info[1]);
    const Shape shape = shapeOf(info[2]);
    const void* data = hostData(info[3], dtype, shape.elements());
    return wrapTensor(info.Env(), device, device->tensorFromHost(dtype, shape, data));
  });
}

// emptyTensor(device, dtype, shape)
Napi::Value emptyTensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto& device = unwrap(info[0], HandleKind::device, "device").device;
    return wrapTensor(info.Env(), device, device->emptyTensor(dtypeOf(info[1]), shapeOf(info[2])));
  });
}

Napi::Value zeroTensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto& device = unwrap(info[0], HandleKind::device, "device").device;
    return wrapTensor(info.Env(), device, device->zeroTensor(dtypeOf(info[1]), shapeOf(info[2])));
  });
}

// reshapeTensor(tensor, shape)
Napi::Value reshapeTensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::tensor, "tensor");
    Tensor tensor = handle.tensor();
    tensor.shape = shapeOf(info[1]);
    if (tensor.shape.elements() != handle.shape.elements()) {
      throw EngineError(ErrorCode::shapeMismatch, "reshape: the number of elements must stay");
    }
    return wrapTensor(info.Env(), handle.device, tensor);
  });
}

// writeTensor(tensor, data)
Napi::Value writeTensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Handle& handle = unwrap(info[0], HandleKind::tensor, "tensor");
    handle.device->overwrite(handle.tensor(), hostData(info[1], handle.dtype, handle.shape.elements()));
    return info.Env().Undefined();
  });
}

// readTensor(tensor) -> promise of a typed array, made here and filled by the queue
Napi::Value readTensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Handle& handle = unwrap(info[0], HandleKind::tensor, "tensor");
    const Tensor tensor = handle.tensor();
    void* host = nullptr;
    const auto array = newHostArray(info.Env(), tensor.dtype, tensor.shape.elements(), &host);
    Environment& environment = Environment::of(info.Env());
    auto read = environment.beginRead(handle.device, array, [](Napi::Env, uint64_t, const Napi::Object& kept) {
      return std::optional<Napi::Value>(kept);
    });
    handle.device->read(
        tensor.storage, std::string("a tensor ") + nameOf(tensor.dtype) + " " + tensor.shape.text(),
        [storage = tensor.storage, host](Allocator& allocator) {
          allocator.download(storage->block, host, storage->bytes);
        },
        std::move(read.completion));
    return read.promise;
  });
}

// disposeHandle(handle of a tensor, codes, entry values or a feature set)
Napi::Value disposeHandle(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    dispose(info.Env(), unwrapResult(info[0], "handle"));
    return info.Env().Undefined();
  });
}

}  // namespace

void exportTensors(Napi::Env env, Napi::Object exports) {
  exports.Set("tensorFromHost", Napi::Function::New<tensorFromHost>(env, "tensorFromHost"));
  exports.Set("emptyTensor", Napi::Function::New<emptyTensor>(env, "emptyTensor"));
  exports.Set("zeroTensor", Napi::Function::New<zeroTensor>(env, "zeroTensor"));
  exports.Set("reshapeTensor", Napi::Function::New<reshapeTensor>(env, "reshapeTensor"));
  exports.Set("writeTensor", Napi::Function::New<writeTensor>(env, "writeTensor"));
  exports.Set("readTensor", Napi::Function::New<readTensor>(env, "readTensor"));
  exports.Set("disposeHandle", Napi::Function::New<disposeHandle>(env, "disposeHandle"));
}

}  // namespace monosem
