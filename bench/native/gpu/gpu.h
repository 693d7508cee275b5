// A GPU with its memory and kernels, and tensors on it, as a training step sees them.
#pragma once

#include <memory>
#include <vector>

#include "cuda/cuda_allocator.h"
#include "cuda/cuda_kernels.h"

namespace monosem::bench {

// float32 [rows, columns], or a vector of one row.
struct Tensor {
  Block block;
  int64_t rows = 0, columns = 0;

  Matrix<float> matrix() const { return {block.as<float>(), rows, columns}; }
  Vector<float> vector() const { return {block.as<float>(), rows * columns}; }
  operator Matrix<float>() const { return matrix(); }
  operator Matrix<const float>() const { return {block.as<const float>(), rows, columns}; }
  operator Vector<float>() const { return vector(); }
  operator Vector<const float>() const { return {block.as<const float>(), rows * columns}; }
};

class Gpu {
 public:
  explicit Gpu(cuda::Precision precision)
      : rounds_(precision == cuda::Precision::bfloat16),
        open_(std::make_shared<cuda::OpenContext>(cuda::openLibrary(), options(precision))),
        memory_(open_),
        kernels_(cuda::makeCudaKernels(open_, memory_)) {}

  Kernels& kernels() { return *kernels_; }
  bool rounds() const { return rounds_; }  // whether kernels read rounded copies
  cuda::CudaAllocator& memory() { return memory_; }

  Tensor empty(int64_t rows, int64_t columns) { return {memory_.allocateArray<float>(rows * columns), rows, columns}; }
  Tensor empty(int64_t size) { return empty(1, size); }
  Tensor filled(int64_t rows, int64_t columns, float value) {
    Tensor tensor = empty(rows, columns);
    kernels_->fill(tensor, value);
    return tensor;
  }
  Tensor filled(int64_t size, float value) { return filled(1, size, value); }
  // Standard normal numbers times `deviation`, others with every call.
  Tensor normal(int64_t rows, int64_t columns, double deviation) {
    Tensor tensor = empty(rows, columns);
    kernels_->randomNormal(0, offset_, float(deviation), tensor);
    offset_ += uint64_t(rows * columns);
    return tensor;
  }
  Tensor copyOf(const Tensor& tensor) {
    Tensor copy = empty(tensor.rows, tensor.columns);
    kernels_->scale(tensor, 1, copy);
    return copy;
  }
  Tensor of(const std::vector<float>& values) {
    Tensor tensor = empty(int64_t(values.size()));
    memory_.upload(values.data(), tensor.block, sizeof(float) * values.size());
    return tensor;
  }
  // A number to add to, at 0.
  Block zeroSum() {
    Block sum = memory_.allocateArray<double>(1);
    memory_.clear(sum, sizeof(double));
    return sum;
  }
  // A number for every entry.
  Block entryValues(const Codes& codes) { return memory_.allocateArray<float>(codes.entries); }

 private:
  static cuda::OpenOptions options(cuda::Precision precision) {
    cuda::OpenOptions options;
    options.precision = precision;
    return options;
  }

  bool rounds_;
  std::shared_ptr<cuda::OpenContext> open_;
  cuda::CudaAllocator memory_;
  std::unique_ptr<Kernels> kernels_;
  uint64_t offset_ = 0;
};

}  // namespace monosem::bench
