// A libcublas.so.13 for tests: the functions that we call, on host memory, refusing what NVIDIA's documentation says
// that cuBLAS refuses. FAKE_CUBLAS_CREATE in the environment is a status that cublasCreate returns.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cuda/library/cublas_declarations.h"

namespace monosem::cuda::cublas {

struct OpaqueHandle {
  void* workspace = nullptr;
};

namespace {

int openHandles = 0;

// To the nearest number with so many bits after the leading one.
float rounded(float x, int bits) {
  int exponent;
  const float mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, bits + 1)), exponent - bits - 1);
}

float asComputed(float factor, ComputeType computeType) {
  switch (computeType) {
    case ComputeType::float32:
      return factor;
    case ComputeType::fastTf32:
      return rounded(factor, 10);
    case ComputeType::fastBfloat16:
      return rounded(factor, 7);
  }
  return NAN;
}

// Element (row, column) of op(matrix), column-major.
float element(const void* matrix, DataType type, Operation operation, int64_t leading, int64_t row, int64_t column) {
  const int64_t place = operation == Operation::none ? row + column * leading : column + row * leading;
  if (type == DataType::float32) return static_cast<const float*>(matrix)[place];
  const uint32_t bits = uint32_t(static_cast<const uint16_t*>(matrix)[place]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int fakeCublasOpenHandles() {
  return openHandles;
}

EXPORT Status cublasCreate_v2(Handle* handle) {
  if (const char* status = std::getenv("FAKE_CUBLAS_CREATE")) return Status(std::atoi(status));
  *handle = new OpaqueHandle;
  ++openHandles;
  return Status::success;
}

EXPORT Status cublasDestroy_v2(Handle handle) {
  delete handle;
  --openHandles;
  return Status::success;
}

EXPORT Status cublasSetStream_v2(Handle handle, void*) {
  handle->workspace = nullptr;
  return Status::success;
}

EXPORT Status cublasSetWorkspace_v2(Handle handle, void* workspace, size_t bytes) {
  if (uintptr_t(workspace) % 16 != 0 || bytes < (16 << 10)) return Status::invalidValue;
  handle->workspace = workspace;
  return Status::success;
}

EXPORT Status cublasGemmEx_64(Handle handle, Operation aOperation, Operation bOperation, int64_t m, int64_t n,
                              int64_t k, const void* alpha, const void* a, DataType aType, int64_t aLeading,
                              const void* b, DataType bType, int64_t bLeading, const void* beta, void* c,
                              DataType cType, int64_t cLeading, ComputeType computeType, Algorithm algorithm) {
  if (!handle->workspace) return Status::notInitialized;  // cuBLAS would use one of its own; ours is to be set
  if (aType != bType || cType != DataType::float32) return Status::notSupported;
  if (aType == DataType::bfloat16 && computeType != ComputeType::float32) return Status::notSupported;
  if (algorithm != Algorithm::byShape) return Status::notSupported;
  const int64_t aRows = aOperation == Operation::none ? m : k, bRows = bOperation == Operation::none ? k : n;
  if (m < 1 || n < 1 || k < 1 || aLeading < aRows || bLeading < bRows || cLeading < m) return Status::invalidValue;
  const float factor = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  for (int64_t column = 0; column < n; ++column)
    for (int64_t row = 0; row < m; ++row) {
      float sum = 0;
      for (int64_t i = 0; i < k; ++i)
        sum += asComputed(element(a, aType, aOperation, aLeading, row, i), computeType) *
               asComputed(element(b, bType, bOperation, bLeading, i, column), computeType);
      float& place = static_cast<float*>(c)[row + column * cLeading];
      place = keep == 0 ? factor * sum : factor * sum + keep * place;
    }
  return Status::success;
}

}  // namespace monosem::cuda::cublas
