#include "cuda/library/tensor_maps.h"

#include <string>

namespace monosem::cuda {
namespace {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function; the library does not link the driver.
EncodeTiled findEncodeTiled() {
  constexpr unsigned since = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, since, cudaEnableDefault, &found),
        "cudaGetDriverEntryPointByVersion");
#else
  check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
        "cudaGetDriverEntryPoint");
  (void)since;
#endif
  if (found != cudaDriverEntryPointSuccess)
    throw EngineError(ErrorCode::unsupported, "The driver has no cuTensorMapEncodeTiled: it needs to be of CUDA 12.");
  return reinterpret_cast<EncodeTiled>(function);
}

}  // namespace

CUtensorMap tensorMap(Matrix<const Bfloat16> matrix, int tileRows, int tileColumns) {
  static const EncodeTiled encode = findEncodeTiled();
  CUtensorMap map;
  const cuuint64_t sizes[] = {cuuint64_t(matrix.columns), cuuint64_t(matrix.rows)};
  const cuuint64_t rowBytes[] = {cuuint64_t(matrix.columns) * sizeof(Bfloat16)};
  const cuuint32_t tile[] = {cuuint32_t(tileColumns), cuuint32_t(tileRows)}, steps[] = {1, 1};
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bfloat16*>(matrix.data), sizes,
                                 rowBytes, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw EngineError(ErrorCode::internal, "cuTensorMapEncodeTiled failed with status " + std::to_string(status) + ".");
  return map;
}

}  // namespace monosem::cuda
