// The part of cuBLAS that we use, declared here: cuBLAS is opened at run time, and the machine that builds may have
// neither it nor its headers. Types and values are those of NVIDIA's cublas_api.h, of cuBLAS 12 and 13 alike;
// test/native/cublas/declarations_check.cpp compares them where the headers are installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace monosem::cuda::cublas {

using Handle = struct OpaqueHandle*;  // cublasHandle_t

// cublasStatus_t
enum class Status : int {
  success = 0,
  notInitialized = 1,
  allocationFailed = 3,
  invalidValue = 7,
  architectureMismatch = 8,
  mappingError = 11,
  executionFailed = 13,
  internalError = 14,
  notSupported = 15,
  licenseError = 16,
};

// cublasOperation_t: what is done to a column-major factor first.
enum class Operation : int { none = 0, transpose = 1 };

// cudaDataType: what a matrix holds.
enum class DataType : int { float32 = 0, bfloat16 = 14 };

// cublasComputeType_t: how factors are rounded; the sums are float32 in all of these.
enum class ComputeType : int {
  float32 = 68,       // CUBLAS_COMPUTE_32F: not at all
  fastBfloat16 = 75,  // CUBLAS_COMPUTE_32F_FAST_16BF
  fastTf32 = 77,      // CUBLAS_COMPUTE_32F_FAST_TF32
};

// cublasGemmAlgo_t: cuBLAS chooses by the shapes.
enum class Algorithm : int { byShape = -1 };

// The functions, by their name in the library. `stream` is a cudaStream_t.
struct Functions {
  Status (*cublasCreate_v2)(Handle* handle);
  Status (*cublasDestroy_v2)(Handle handle);
  Status (*cublasSetStream_v2)(Handle handle, void* stream);
  Status (*cublasSetWorkspace_v2)(Handle handle, void* workspace, size_t bytes);
  // c[m, n] = alpha * op(a)[m, k] . op(b)[k, n] + beta * c, all column-major: element (row, column) of a matrix stands
  // at data[row + column * leading]. alpha and beta are float32 in host memory; where beta is 0, c is not read.
  Status (*cublasGemmEx_64)(Handle handle, Operation aOperation, Operation bOperation, int64_t m, int64_t n, int64_t k,
                            const void* alpha, const void* a, DataType aType, int64_t aLeading, const void* b,
                            DataType bType, int64_t bLeading, const void* beta, void* c, DataType cType,
                            int64_t cLeading, ComputeType computeType, Algorithm algorithm);
};

}  // namespace monosem::cuda::cublas
