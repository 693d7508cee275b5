// Reads the arguments of a binding one after another, and queues the kernel.
//
// JavaScript has checked everything before, with better messages; what is checked again here is what memory safety
// needs: kinds of handles, devices, dtypes, and (in the bindings) sizes that have to agree.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/handles.h"
#include "engine/device.h"

namespace monosem {

// A tensor as operand of a queued kernel. Sizes may be asked for at the call; data only when the kernel runs.
template <class T>
class TensorOperand {
 public:
  TensorOperand() = default;
  explicit TensorOperand(const Tensor& tensor) : storage_(tensor.storage), shape_(tensor.shape) {}

  explicit operator bool() const { return bool(storage_); }
  const Shape& shape() const { return shape_; }
  int64_t size() const { return shape_.elements(); }
  int64_t rows() const { return shape_.rows(); }
  int64_t columns() const { return shape_.columns(); }

  T* data() const { return storage_ ? storage_->block.template as<T>() : nullptr; }
  Vector<T> vector() const { return storage_ ? Vector<T>{data(), size()} : Vector<T>{}; }
  Matrix<T> matrix() const { return storage_ ? Matrix<T>{data(), rows(), columns()} : Matrix<T>{}; }

 private:
  std::shared_ptr<Storage> storage_;
  Shape shape_;
};

// A matrix of weights, f32 or bf16.
class WeightsOperand {
 public:
  explicit WeightsOperand(const Tensor& tensor)
      : brain_(tensor.dtype == DType::bf16), floats_(tensor), brains_(tensor) {}

  bool brain() const { return brain_; }
  int64_t rows() const { return floats_.rows(); }
  int64_t columns() const { return floats_.columns(); }
  Matrix<const float> matrix() const { return floats_.matrix(); }          // where they are f32
  Matrix<const uint16_t> brainMatrix() const { return brains_.matrix(); }  // where they are bf16

 private:
  bool brain_;
  TensorOperand<const float> floats_;
  TensorOperand<const uint16_t> brains_;
};

class Call {
 public:
  // The first argument is the device.
  Call(const Napi::CallbackInfo& info, const char* kernel);

  const std::shared_ptr<Device>& device() const { return device_; }

  // Tensors. An optional one is null or undefined.
  template <class T = float>
  TensorOperand<const T> read(const char* name) {
    return TensorOperand<const T>(tensor(name, dtypeOf<T>(), Access::read));
  }
  template <class T = float>
  TensorOperand<const T> readOptional(const char* name) {
    return skipAbsent() ? TensorOperand<const T>() : read<T>(name);
  }
  template <class T = float>
  TensorOperand<T> update(const char* name) {
    return TensorOperand<T>(tensor(name, dtypeOf<T>(), Access::update));
  }
  template <class T = float>
  TensorOperand<T> updateOptional(const char* name) {
    return skipAbsent() ? TensorOperand<T>() : update<T>(name);
  }
  template <class T = float>
  TensorOperand<T> write(const char* name) {
    return TensorOperand<T>(tensor(name, dtypeOf<T>(), Access::write));
  }
  template <class T = float>
  TensorOperand<T> writePart(const char* name) {
    return TensorOperand<T>(tensor(name, dtypeOf<T>(), Access::writePart));
  }
  Tensor readAny(const char* name);  // of any dtype
  WeightsOperand readWeights(const char* name);

  std::shared_ptr<CodesResult> codes(const char* name, Access access = Access::read);
  // Entry values, which may be absent, of codes with the same places as `codes`: that there are as many entries is
  // verified when the kernel runs.
  std::shared_ptr<EntryValuesResult> entryValues(const char* name, const std::shared_ptr<CodesResult>& codes);
  std::shared_ptr<EntryValuesResult> entryValues(const char* name);
  // New ones, made for exactly these codes.
  std::shared_ptr<EntryValuesResult> writeEntryValues(const char* name, const std::shared_ptr<CodesResult>& codes,
                                                      Access access = Access::write);
  std::shared_ptr<FeatureSetResult> featureSet(const char* name, Access access = Access::read);
  std::shared_ptr<FeatureSetResult> featureSetOptional(const char* name) {
    return skipAbsent() ? nullptr : featureSet(name);
  }

  std::shared_ptr<KeptGradientResult> keptGradient(const char* name, Access access = Access::read);
  std::shared_ptr<KeptGradientResult> keptGradientOptional(const char* name) {
    return skipAbsent() ? nullptr : keptGradient(name);
  }

  double number(const char* name);
  int64_t integer(const char* name, int64_t minimum = 0);  // up to 2^53 - 1
  bool flag(const char* name);
  // How many, then each of them.
  std::vector<int64_t> integers(const char* name, int64_t minimum);
  std::string text(const char* name);
  Activation activation(const char* name);

  // Sizes that must agree for the kernel to stay within its operands.
  void require(bool condition, const char* what) const;
  // Blocks, unless there are none, are all of the columns.
  void requireBlocks(const std::vector<int64_t>& widths, int64_t columns) const;
  // Said in messages after the operands: "topk 32".
  void note(std::string note) { call_.note = std::move(note); }

  void enqueue(std::function<void(Kernels&)> run);

 private:
  Napi::Value next();
  bool skipAbsent();
  Tensor tensor(const char* name, DType dtype, Access access);
  Handle& handle(const char* name, HandleKind kind, Access access);

  const Napi::CallbackInfo& info_;
  size_t index_ = 0;
  std::shared_ptr<Device> device_;
  KernelCall call_;
  struct SamePlaces {
    const char* name;
    std::shared_ptr<EntryValuesResult> values;
    std::shared_ptr<CodesResult> codes;
  };
  std::vector<SamePlaces> samePlaces_;
};

inline const float* dataOf(const std::shared_ptr<EntryValuesResult>& values) {
  return values ? values->block.as<float>() : nullptr;
}
inline Vector<const float> vectorOf(const std::shared_ptr<EntryValuesResult>& values) {
  return {values->block.as<const float>(), values->codes->codes.entries};
}
inline Vector<float> outputOf(const std::shared_ptr<EntryValuesResult>& values) {
  return {values->block.as<float>(), values->codes->codes.entries};
}

// A kernel's name in JavaScript and its binding.
struct KernelBinding {
  const char* name;
  void (*bind)(Call& call);
};

// Runs `work`; engine errors become MonosemErrors of JavaScript.
Napi::Value guarded(const Napi::CallbackInfo& info, const std::function<Napi::Value()>& work);

void exportKernel(Napi::Env env, Napi::Object exports, const KernelBinding& binding);

template <size_t count>
void exportKernels(Napi::Env env, Napi::Object exports, const KernelBinding (&bindings)[count]) {
  for (const KernelBinding& binding : bindings) exportKernel(env, exports, binding);
}

}  // namespace monosem
