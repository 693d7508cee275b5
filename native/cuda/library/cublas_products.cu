// Matrix products by cuBLAS.
//
// cuBLAS knows column-major matrices only. A row-major matrix [rows, columns] is, byte for byte, its transpose
// [columns, rows] in column-major order, so out^T = op(b)^T . op(a)^T is asked for, with the factors swapped:
//
//   out = op(a) . op(b)      gemm(op of b, op of a, n, m, k, b, a)      where an op is "transpose" or nothing
//
// Rounding: the compute type says what cuBLAS may do to float32 factors. Under CUBLAS_COMPUTE_32F, and in the math mode
// that a handle has from its creation on, cuBLAS computes with "at least 32 bits": TF32 is off. Products of bfloat16
// factors are exact in float32, in which they are summed.
//
// The same bits every time: cuBLAS promises them for one of its releases on GPUs of one architecture and number of
// multiprocessors, unless streams share a workspace. Here a handle has one stream, and a workspace of its own. As
// cuBLAS then allocates nothing in a product, products can also be captured in graphs.
#include <memory>

#include "cuda/library/cublas_library.h"
#include "cuda/library/gpu.h"
#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

using cublas::ComputeType;
using cublas::DataType;
using cublas::Operation;

// What NVIDIA recommends from Hopper on; older GPUs would do with 4 MiB.
constexpr size_t workspaceBytes = size_t(32) << 20;

ComputeType computeTypeOf(Precision precision) {
  return precision == Precision::tf32 ? ComputeType::fastTf32 : ComputeType::float32;
}

class Workspace {
 public:
  Workspace() { check(cudaMalloc(&memory_, workspaceBytes), "cudaMalloc of cuBLAS's workspace"); }
  ~Workspace() { cudaFree(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* memory() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

// A cuBLAS handle of the current device.
class Handle {
 public:
  explicit Handle(const CublasLibrary& library) : destroy_(library.functions.cublasDestroy_v2) {
    library.check(library.functions.cublasCreate_v2(&handle_), "cublasCreate");
  }
  ~Handle() { destroy_(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  cublas::Handle get() const { return handle_; }

 private:
  decltype(cublas::Functions::cublasDestroy_v2) destroy_;
  cublas::Handle handle_ = nullptr;
};

class CublasProducts final : public MatrixProducts {
 public:
  CublasProducts(Context& gpu, const char* cublasPath)
      : MatrixProducts(gpu),
        computeType_(computeTypeOf(gpu.precision())),
        library_(openCublas(cublasPath)),
        handle_(library_) {
    // In this order: to set a stream takes the workspace away.
    library_.check(library_.functions.cublasSetStream_v2(handle_.get(), gpu.stream()), "cublasSetStream");
    library_.check(library_.functions.cublasSetWorkspace_v2(handle_.get(), workspace_.memory(), workspaceBytes),
                   "cublasSetWorkspace");
  }

 private:
  static Operation operationOf(const Factor& factor) {
    return factor.transposed ? Operation::transpose : Operation::none;
  }
  static DataType typeOf(const Factor& factor) {
    return factor.element == Element::bfloat16 ? DataType::bfloat16 : DataType::float32;
  }
  ComputeType computeTypeFor(const Factor& factor) const {
    return factor.element == Element::float32 ? computeType_ : ComputeType::float32;
  }

  void multiply(const Factor& a, const Factor& b, int64_t depth, float factor, float keep,
                Strided<float> out) override {
    const cublas::Status status = library_.functions.cublasGemmEx_64(
        handle_.get(), operationOf(b), operationOf(a), out.columns, out.rows, depth, &factor, b.data, typeOf(b),
        b.stride, a.data, typeOf(a), a.stride, &keep, out.data, DataType::float32, out.stride, computeTypeFor(a),
        cublas::Algorithm::byShape);
    library_.check(status, "cublasGemmEx");
  }

  ComputeType computeType_;
  CublasLibrary library_;
  Workspace workspace_;
  Handle handle_;  // goes before the workspace that it uses
};

}  // namespace

std::unique_ptr<MatrixProducts> makeMatrixProducts(Context& gpu, const char* cublasPath) {
  return std::make_unique<CublasProducts>(gpu, cublasPath);
}

}  // namespace monosem::cuda
