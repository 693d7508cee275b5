// A CUDA device in precision bfloat16, and what its kernels read there.
#pragma once

#include <cstring>

#include "cuda/cuda_allocator.h"
#include "cuda/cuda_kernels.h"
#include "data.h"
#include "library_under_test.h"

namespace monosem::test {

inline std::shared_ptr<cuda::OpenContext> openIn(cuda::Precision precision) {
  cuda::OpenOptions options;
  options.precision = precision;
  return std::make_shared<cuda::OpenContext>(libraryUnderTest(), options);
}

// To the nearest bfloat16, ties to even; of finite numbers.
inline Floats rounded(Floats values) {
  for (float& value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    std::memcpy(&value, &bits, sizeof bits);
  }
  return values;
}

class RoundingDevice {
 public:
  explicit RoundingDevice(cuda::Precision precision = cuda::Precision::bfloat16)
      : rounds_(precision == cuda::Precision::bfloat16),
        open_(openIn(precision)),
        memory_(open_),
        kernels_(cuda::makeCudaKernels(open_, memory_)) {}

  bool rounds() const { return rounds_; }
  Kernels& kernels() { return *kernels_; }
  cuda::CudaAllocator& memory() { return memory_; }
  void closeKernels() { kernels_.reset(); }

  template <class T>
  Block uploaded(const std::vector<T>& values) {
    Block block = memory_.allocateArray<T>(int64_t(values.size()));
    memory_.upload(values.data(), block, sizeof(T) * values.size());
    return block;
  }
  Floats downloaded(const Block& block, int64_t count) {
    Floats values(static_cast<size_t>(count));
    memory_.download(block, values.data(), sizeof(float) * values.size());
    return values;
  }
  Codes uploaded(const PlainCodes& plain) {
    Codes codes;
    codes.rows = plain.rows;
    codes.dSae = plain.dSae;
    codes.entries = plain.entries();
    codes.rowOffsets = uploaded(plain.offsets);
    codes.features = uploaded(plain.features);
    codes.preActivations = uploaded(plain.preActivations);
    codes.values = uploaded(plain.values);
    return codes;
  }

 private:
  bool rounds_;
  std::shared_ptr<cuda::OpenContext> open_;
  cuda::CudaAllocator memory_;
  std::unique_ptr<Kernels> kernels_;
};

}  // namespace monosem::test
