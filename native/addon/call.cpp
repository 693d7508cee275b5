#include "addon/call.h"

#include <cmath>
#include <new>

#include "addon/environment.h"

namespace monosem {
namespace {

[[noreturn]] void refuse(const char* name, const char* expected) {
  throw EngineError(ErrorCode::invalidArgument, std::string(name) + ": expected " + expected);
}

constexpr std::pair<const char*, Activation> kActivations[] = {
    {"none", Activation::none}, {"gelu_new", Activation::geluTanh},
    {"gelu", Activation::gelu}, {"relu", Activation::relu},
    {"exp", Activation::exp},   {"sigmoid", Activation::sigmoid},
    {"tanh", Activation::tanh}, {"heaviside", Activation::heaviside},
    {"silu", Activation::silu},
};

}  // namespace

Call::Call(const Napi::CallbackInfo& info, const char* kernel) : info_(info) {
  device_ = unwrap(next(), HandleKind::device, "device").device;
  call_.kernel = kernel;
}

Napi::Value Call::next() {
  return info_[index_++];
}

bool Call::skipAbsent() {
  const Napi::Value value = info_[index_];
  if (!value.IsNull() && !value.IsUndefined()) return false;
  ++index_;
  return true;
}

Handle& Call::handle(const char* name, HandleKind kind, Access access) {
  Handle& handle = unwrap(next(), kind, name);
  if (handle.device != device_) {
    throw EngineError(ErrorCode::deviceMismatch, std::string(name) + " lives on another device");
  }
  call_.operands.push_back({name, access, handle.result, handle.shape});
  return handle;
}

Tensor Call::tensor(const char* name, DType dtype, Access access) {
  const Tensor tensor = handle(name, HandleKind::tensor, access).tensor();
  if (tensor.dtype != dtype) {
    throw EngineError(ErrorCode::dtypeMismatch,
                      std::string(name) + ": expected " + nameOf(dtype) + ", found " + nameOf(tensor.dtype));
  }
  return tensor;
}

Tensor Call::readAny(const char* name) {
  return handle(name, HandleKind::tensor, Access::read).tensor();
}

WeightsOperand Call::readWeights(const char* name) {
  const Tensor tensor = readAny(name);
  if (tensor.dtype != DType::f32 && tensor.dtype != DType::bf16) {
    throw EngineError(ErrorCode::dtypeMismatch,
                      std::string(name) + ": expected f32 or bf16, found " + nameOf(tensor.dtype));
  }
  return WeightsOperand(tensor);
}

std::shared_ptr<CodesResult> Call::codes(const char* name, Access access) {
  return std::static_pointer_cast<CodesResult>(handle(name, HandleKind::codes, access).result);
}

std::shared_ptr<EntryValuesResult> Call::entryValues(const char* name, const std::shared_ptr<CodesResult>& codes) {
  if (skipAbsent()) return nullptr;
  auto values = entryValues(name);
  if (values->codes != codes) samePlaces_.push_back({name, values, codes});
  return values;
}

std::shared_ptr<EntryValuesResult> Call::entryValues(const char* name) {
  return std::static_pointer_cast<EntryValuesResult>(handle(name, HandleKind::entryValues, Access::read).result);
}

std::shared_ptr<EntryValuesResult> Call::writeEntryValues(const char* name, const std::shared_ptr<CodesResult>& codes,
                                                          Access access) {
  auto values = std::static_pointer_cast<EntryValuesResult>(handle(name, HandleKind::entryValues, access).result);
  require(values->codes == codes, "entry values must be made for the codes that they are computed from");
  return values;
}

std::shared_ptr<FeatureSetResult> Call::featureSet(const char* name, Access access) {
  return std::static_pointer_cast<FeatureSetResult>(handle(name, HandleKind::featureSet, access).result);
}

std::shared_ptr<KeptGradientResult> Call::keptGradient(const char* name, Access access) {
  return std::static_pointer_cast<KeptGradientResult>(handle(name, HandleKind::keptGradient, access).result);
}

double Call::number(const char* name) {
  const Napi::Value value = next();
  if (!value.IsNumber()) refuse(name, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (std::isnan(number)) refuse(name, "a number, found NaN");
  return number;
}

int64_t Call::integer(const char* name, int64_t minimum) {
  const double value = number(name);
  if (!(value >= double(minimum) && value <= 9007199254740991.0 && value == std::floor(value))) {
    refuse(name, ("an integer >= " + std::to_string(minimum)).c_str());
  }
  return int64_t(value);
}

std::vector<int64_t> Call::integers(const char* name, int64_t minimum) {
  std::vector<int64_t> all;
  for (int64_t count = integer(name); count > 0; --count) all.push_back(integer(name, minimum));
  return all;
}

bool Call::flag(const char* name) {
  const Napi::Value value = next();
  if (!value.IsBoolean()) refuse(name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string Call::text(const char* name) {
  const Napi::Value value = next();
  if (!value.IsString()) refuse(name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

Activation Call::activation(const char* name) {
  const std::string kind = text(name);
  for (const auto& [known, activation] : kActivations)
    if (kind == known) return activation;
  throw EngineError(ErrorCode::invalidArgument, "\"" + kind + "\" is not an activation");
}

void Call::require(bool condition, const char* what) const {
  if (!condition) throw EngineError(ErrorCode::shapeMismatch, call_.text() + ": " + what);
}

void Call::requireBlocks(const std::vector<int64_t>& widths, int64_t columns) const {
  int64_t left = columns;
  for (const int64_t width : widths) {
    require(width <= left, "the blocks are wider than the columns");
    left -= width;
  }
  require(widths.empty() || left == 0, "the blocks are narrower than the columns");
}

void Call::enqueue(std::function<void(Kernels&)> run) {
  if (samePlaces_.empty()) {
    call_.run = std::move(run);
  } else {
    call_.run = [samePlaces = std::move(samePlaces_), run = std::move(run)](Kernels& kernels) {
      for (const SamePlaces& same : samePlaces) {
        const int64_t found = same.values->codes->codes.entries, expected = same.codes->codes.entries;
        if (found != expected) {
          throw EngineError(ErrorCode::shapeMismatch, std::string(same.name) + " has " + std::to_string(found) +
                                                          " entries, the codes it is used with have " +
                                                          std::to_string(expected));
        }
      }
      run(kernels);
    };
  }
  device_->enqueue(std::move(call_));
}

Napi::Value guarded(const Napi::CallbackInfo& info, const std::function<Napi::Value()>& work) {
  Environment& environment = Environment::of(info.Env());
  try {
    return work();
  } catch (const Napi::Error&) {
    throw;
  } catch (const EngineError& error) {
    throw environment.error({error.code(), error.what()});
  } catch (const std::bad_alloc&) {
    throw environment.error({ErrorCode::outOfMemory, "the system is out of memory"});
  } catch (const std::exception& error) {
    throw environment.error({ErrorCode::internal, error.what()});
  }
}

void exportKernel(Napi::Env env, Napi::Object exports, const KernelBinding& binding) {
  const auto run = [](const Napi::CallbackInfo& info) {
    return guarded(info, [&]() -> Napi::Value {
      const auto* binding = static_cast<const KernelBinding*>(info.Data());
      Call call(info, binding->name);
      binding->bind(call);
      return info.Env().Undefined();
    });
  };
  exports.Set(binding.name, Napi::Function::New(env, run, binding.name, const_cast<KernelBinding*>(&binding)));
}

}  // namespace monosem
