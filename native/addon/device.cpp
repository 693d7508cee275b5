// Bindings of devices: opening, memory, synchronisation, closing.
#include <napi.h>

#include <memory>
#include <string>
#include <utility>

#include "addon/call.h"
#include "addon/environment.h"
#include "addon/exports.h"
#include "addon/handles.h"
#include "cpu/cpu_backend.h"
#include "cuda/cuda_allocator.h"
#include "cuda/cuda_kernels.h"
#include "engine/host_allocator.h"

namespace monosem {
namespace {

Device& deviceOf(const Napi::CallbackInfo& info) {
  return *unwrap(info[0], HandleKind::device, "device").device;
}

double numberOf(const Napi::Value& value, const char* name, double minimum, double maximum) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : minimum - 1;
  if (!(number >= minimum && number <= maximum)) {
    throw EngineError(ErrorCode::invalidArgument, std::string(name) + " is out of range");
  }
  return number;
}

// openCpuDevice(threads, memoryLimitBytes or 0)
Napi::Value openCpuDevice(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const int threads = int(numberOf(info[0], "threads", 1, 1024));
    const auto limit = uint64_t(numberOf(info[1], "memoryLimitBytes", 0, 9007199254740991.0));
    const auto device =
        std::make_shared<Device>(std::make_unique<HostAllocator>(limit),
                                 [threads](Allocator& allocator) { return makeCpuKernels(allocator, threads); });
    Environment::of(info.Env()).add(device);
    return wrapDevice(info.Env(), device);
  });
}

cuda::Precision precisionOf(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "float32") return cuda::Precision::float32;
  if (name == "tf32") return cuda::Precision::tf32;
  if (name == "bfloat16") return cuda::Precision::bfloat16;
  throw EngineError(ErrorCode::invalidArgument, "unknown precision \"" + name + "\"");
}

// openCudaDevice(ordinal, precision, path of cuBLAS or "", memoryLimitBytes or 0)
Napi::Value openCudaDevice(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    cuda::OpenOptions options;
    options.ordinal = int32_t(numberOf(info[0], "ordinal", 0, 1023));
    options.precision = precisionOf(info[1]);
    const std::string cublasPath = info[2].ToString().Utf8Value();
    options.cublasPath = cublasPath.empty() ? nullptr : cublasPath.c_str();
    const auto limit = uint64_t(numberOf(info[3], "memoryLimitBytes", 0, 9007199254740991.0));
    const auto open = std::make_shared<cuda::OpenContext>(cuda::openLibrary(), options);
    const auto device =
        std::make_shared<Device>(std::make_unique<cuda::CudaAllocator>(open, limit),
                                 [&open](Allocator& allocator) { return cuda::makeCudaKernels(open, allocator); });
    Environment::of(info.Env()).add(device);
    return wrapDevice(info.Env(), device);
  });
}

Napi::Value describeDevice(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), deviceOf(info).description()); });
}

Napi::Value deviceMemory(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const MemoryStatistics statistics = deviceOf(info).allocator().statistics();
    auto result = Napi::Object::New(info.Env());
    result.Set("currentBytes", double(statistics.current));
    result.Set("peakBytes", double(statistics.peak));
    result.Set("cachedBytes", double(statistics.cached));
    result.Set("limitBytes", double(statistics.limit));
    return result;
  });
}

Napi::Value resetPeakMemory(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    deviceOf(info).allocator().resetPeak();
    return info.Env().Undefined();
  });
}

Napi::Value releaseCachedMemory(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    deviceOf(info).allocator().releaseCache();
    return info.Env().Undefined();
  });
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto device = unwrap(info[0], HandleKind::device, "device").device;
    auto read = Environment::of(info.Env())
                    .beginRead(device, Napi::Object::New(info.Env()), [](Napi::Env env, uint64_t, const Napi::Object&) {
                      return std::optional<Napi::Value>(env.Undefined());
                    });
    device->synchronize(std::move(read.completion));
    return read.promise;
  });
}

// Ends the device's threads; work that has not started is dropped.
Napi::Value closeDevice(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    deviceOf(info).shutDown();
    return info.Env().Undefined();
  });
}

}  // namespace

void exportDevice(Napi::Env env, Napi::Object exports) {
  exports.Set("openCpuDevice", Napi::Function::New<openCpuDevice>(env, "openCpuDevice"));
  exports.Set("openCudaDevice", Napi::Function::New<openCudaDevice>(env, "openCudaDevice"));
  exports.Set("describeDevice", Napi::Function::New<describeDevice>(env, "describeDevice"));
  exports.Set("deviceMemory", Napi::Function::New<deviceMemory>(env, "deviceMemory"));
  exports.Set("resetPeakMemory", Napi::Function::New<resetPeakMemory>(env, "resetPeakMemory"));
  exports.Set("releaseCachedMemory", Napi::Function::New<releaseCachedMemory>(env, "releaseCachedMemory"));
  exports.Set("synchronize", Napi::Function::New<synchronize>(env, "synchronize"));
  exports.Set("closeDevice", Napi::Function::New<closeDevice>(env, "closeDevice"));
}

}  // namespace monosem
