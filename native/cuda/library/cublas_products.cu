// Matrix products by cuBLAS.
//
// cuBLAS knows column-major matrices only. A row-major matrix [rows, columns] is, byte for byte, its transpose
// [columns, rows] in column-major order, so out^T = op(b)^T . op(a)^T is asked for, with the factors swapped:
//
//   out = op(a) . op(b)      gemm(op of b, op of a, n, m, k, b, a)      where an op is "transpose" or nothing
//
// Rounding: the compute type says what cuBLAS may do to float32 factors. Under CUBLAS_COMPUTE_32F, and in the math mode
// that a handle has from its creation on, cuBLAS computes with "at least 32 bits": TF32 is off.
//
// The same bits every time: cuBLAS promises them for one of its releases on GPUs of one architecture and number of
// multiprocessors, unless streams share a workspace. Here a handle has one stream, and a workspace of its own. As
// cuBLAS then allocates nothing in a product, products can also be captured in graphs.
#include <memory>

#include "cuda/library/cublas_library.h"
#include "cuda/library/gpu.h"
#include "cuda/library/kernels.h"
#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

using cublas::ComputeType;
using cublas::DataType;
using cublas::Operation;

// What NVIDIA recommends from Hopper on; older GPUs would do with 4 MiB.
constexpr size_t workspaceBytes = size_t(32) << 20;

ComputeType computeTypeOf(Precision precision) {
  switch (precision) {
    case Precision::float32:
      return ComputeType::float32;
    case Precision::tf32:
      return ComputeType::fastTf32;
    case Precision::bfloat16:
      return ComputeType::fastBfloat16;
  }
  throw EngineError(ErrorCode::internal, "Matrix products in an unknown precision.");
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
      : gpu_(gpu), computeType_(computeTypeOf(gpu.precision())), library_(openCublas(cublasPath)), handle_(library_) {
    // In this order: to set a stream takes the workspace away.
    library_.check(library_.functions.cublasSetStream_v2(handle_.get(), gpu.stream()), "cublasSetStream");
    library_.check(library_.functions.cublasSetWorkspace_v2(handle_.get(), workspace_.memory(), workspaceBytes),
                   "cublasSetWorkspace");
  }

  void abTransposed(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(a, Operation::none, b, Operation::transpose, a.columns, factor, keep, out);
  }
  void ab(Matrix<const float> a, Matrix<const float> b, float factor, float keep, Matrix<float> out) override {
    multiply(a, Operation::none, b, Operation::none, a.columns, factor, keep, out);
  }
  void aTransposedB(Matrix<const float> a, Matrix<const float> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(a, Operation::transpose, b, Operation::none, a.rows, factor, keep, out);
  }
  void abTransposed(Matrix<const uint16_t> a, Matrix<const uint16_t> b, float factor, float keep,
                    Matrix<float> out) override {
    multiply(a, Operation::none, b, Operation::transpose, a.columns, factor, keep, out);
  }

 private:
  // out[m, n] = factor * sum over the `depth` k of op(a)[m, k] * op(b)[k, n] + keep * out[m, n].
  template <class T>
  void multiply(Matrix<const T> a, Operation aOperation, Matrix<const T> b, Operation bOperation, int64_t depth,
                float factor, float keep, Matrix<float> out) {
    if (out.rows == 0 || out.columns == 0) return;
    if (depth == 0) return keepOnly(keep, out);
    const cublas::Status status = library_.functions.cublasGemmEx_64(
        handle_.get(), bOperation, aOperation, out.columns, out.rows, depth, &factor, b.data, dataTypeOf(b), b.columns,
        a.data, dataTypeOf(a), a.columns, &keep, out.data, DataType::float32, out.columns, computeTypeFor(a),
        cublas::Algorithm::byShape);
    library_.check(status, "cublasGemmEx");
  }

  static DataType dataTypeOf(Matrix<const float>) { return DataType::float32; }
  static DataType dataTypeOf(Matrix<const uint16_t>) { return DataType::bfloat16; }
  // bf16 factors are taken as they are, in every precision.
  ComputeType computeTypeFor(Matrix<const float>) const { return computeType_; }
  static ComputeType computeTypeFor(Matrix<const uint16_t>) { return ComputeType::float32; }

  // out = keep * out, not read where keep is 0. cuBLAS would refuse factors whose rows have no elements.
  void keepOnly(float keep, Matrix<float> out) {
    const int64_t size = out.rows * out.columns;
    if (keep == 0) return gpu_.clear(out.data, sizeof(float) * size_t(size));
    scale(gpu_, {out.data, size}, keep, {out.data, size});
  }

  Context& gpu_;
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
