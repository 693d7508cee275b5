// Compares our declarations of cuBLAS with NVIDIA's headers, where these are installed: it has to compile, no more.
//
//   g++ -std=c++17 -fsyntax-only -I native -I TOOLKIT/include -I CUBLAS/include
//   test/native/cublas/declarations_check.cpp
//
// CUBLAS: the toolkit again, or nvidia/cu13 in Python's site-packages.
#include <cublas_v2.h>

#include <type_traits>

#include "cuda/library/cublas_declarations.h"

namespace monosem::cuda::cublas {
namespace {

static_assert(int(Status::success) == CUBLAS_STATUS_SUCCESS);
static_assert(int(Status::notInitialized) == CUBLAS_STATUS_NOT_INITIALIZED);
static_assert(int(Status::allocationFailed) == CUBLAS_STATUS_ALLOC_FAILED);
static_assert(int(Status::invalidValue) == CUBLAS_STATUS_INVALID_VALUE);
static_assert(int(Status::architectureMismatch) == CUBLAS_STATUS_ARCH_MISMATCH);
static_assert(int(Status::mappingError) == CUBLAS_STATUS_MAPPING_ERROR);
static_assert(int(Status::executionFailed) == CUBLAS_STATUS_EXECUTION_FAILED);
static_assert(int(Status::internalError) == CUBLAS_STATUS_INTERNAL_ERROR);
static_assert(int(Status::notSupported) == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(int(Status::licenseError) == CUBLAS_STATUS_LICENSE_ERROR);

static_assert(int(Operation::none) == CUBLAS_OP_N);
static_assert(int(Operation::transpose) == CUBLAS_OP_T);

static_assert(int(DataType::float32) == CUDA_R_32F);
static_assert(int(DataType::bfloat16) == CUDA_R_16BF);

static_assert(int(ComputeType::float32) == CUBLAS_COMPUTE_32F);
static_assert(int(ComputeType::fastBfloat16) == CUBLAS_COMPUTE_32F_FAST_16BF);
static_assert(int(ComputeType::fastTf32) == CUBLAS_COMPUTE_32F_FAST_TF32);

static_assert(int(Algorithm::byShape) == CUBLAS_GEMM_DEFAULT);

// Whether values of the two types are passed alike: both pointers, or both integers or enumerations, of one size.
template <class Ours, class Theirs>
constexpr bool passedAlike =
    sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs> &&
    (std::is_integral_v<Ours> || std::is_enum_v<Ours>) == (std::is_integral_v<Theirs> || std::is_enum_v<Theirs>);

template <class Ours, class Theirs>
constexpr bool calledAlike = false;
template <class OurResult, class... Ours, class TheirResult, class... Theirs>
constexpr bool calledAlike<OurResult (*)(Ours...), TheirResult (*)(Theirs...)> = [] {
  if constexpr (sizeof...(Ours) == sizeof...(Theirs))
    return passedAlike<OurResult, TheirResult> && (passedAlike<Ours, Theirs> && ...);
  else
    return false;
}();

#define CHECK_FUNCTION(name) static_assert(calledAlike<decltype(Functions::name), decltype(&::name)>)
CHECK_FUNCTION(cublasCreate_v2);
CHECK_FUNCTION(cublasDestroy_v2);
CHECK_FUNCTION(cublasSetStream_v2);
CHECK_FUNCTION(cublasSetWorkspace_v2);
CHECK_FUNCTION(cublasGemmEx_64);

}  // namespace
}  // namespace monosem::cuda::cublas
