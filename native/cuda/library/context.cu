#include "cuda/library/context.h"

#include <new>

#include "cuda/library/gpu.h"
#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "cudaDeviceGetAttribute");
  return value;
}

const char* nameOf(Precision precision) {
  switch (precision) {
    case Precision::float32:
      return "float32";
    case Precision::tf32:
      return "tf32";
    case Precision::bfloat16:
      return "bfloat16";
  }
  return "";
}

// Throws unsupported where there is no such device, or no driver for it.
void requireDevice(int ordinal) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw EngineError(ErrorCode::unsupported, std::string("there is no usable NVIDIA GPU here: ") +
                                                  cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                                                  "). A GPU and its driver are needed; nvidia-smi shows both");
  }
  if (ordinal < count) return;
  throw EngineError(ErrorCode::unsupported,
                    "there is no device " + std::to_string(ordinal) + ": this machine has " + std::to_string(count) +
                        (count == 1 ? " CUDA device, number 0" : " CUDA devices, numbered from 0"));
}

[[noreturn]] void refuse(const LateFailureNote& note) {
  const std::string where = std::to_string(note.where);
  switch (LateFailure(note.failure)) {
    case LateFailure::gradientNotFinite:
      throw EngineError(ErrorCode::nonFinite, "The gradient holds NaN or infinity, or its norm is too large.");
    case LateFailure::valuesNotFinite:
      throw EngineError(ErrorCode::nonFinite,
                        "The values of the codes hold NaN or infinity; all of them must be finite.");
    case LateFailure::rowBeyondMatrix:
      throw EngineError(ErrorCode::invalidArgument, "Element " + where + " of rows names no row of the matrix.");
    case LateFailure::targetBeyondLogits:
      throw EngineError(ErrorCode::invalidArgument, "Target " + where + " names no column of the logits.");
    case LateFailure::logitsNotFinite:
      throw EngineError(
          ErrorCode::nonFinite,
          "Cannot sample from row " + where + " of the logits: one of them is NaN or infinity, or all are -infinity.");
    case LateFailure::none:
      break;
  }
  throw EngineError(ErrorCode::internal, "A kernel noted an unknown failure, " + std::to_string(note.failure) + ".");
}

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what is not sticky is told once
  const std::string reason = std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status);
  throw EngineError(status == cudaErrorMemoryAllocation ? ErrorCode::outOfMemory : ErrorCode::internal,
                    std::string(call) + " failed: " + reason + ".");
}

Context::Context(const OpenOptions& options) : ordinal_(options.ordinal), precision_(options.precision) {
  requireDevice(ordinal_);
  makeCurrent();
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, ordinal_);
  sharedBytes_ = size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal_));
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, ordinal_), "cudaGetDeviceProperties");
  description_ = std::string(properties.name) + ", " + nameOf(precision_);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
  void* note = nullptr;
  check(cudaMalloc(&note, sizeof(LateFailureNote)), "cudaMalloc");
  failureNote_.reset(static_cast<LateFailureNote*>(note));
  clear(failureNote_.get(), sizeof(LateFailureNote));
  products_ = makeMatrixProducts(*this, options.cublasPath);
}

Context::~Context() {
  cudaSetDevice(ordinal_);  // its members are of that device
}

void Context::makeCurrent() const {
  check(cudaSetDevice(ordinal_), "cudaSetDevice");
}

void Context::requireSharedBytes(size_t bytes) const {
  if (bytes <= sharedBytes_) return;
  throw EngineError(ErrorCode::unsupported, "A block would need " + std::to_string(bytes) +
                                                " bytes of shared memory, but the device has " +
                                                std::to_string(sharedBytes_) + ".");
}

void* Context::allocateBytes(size_t bytes) {
  void* memory = memory_->allocate(memory_->owner, bytes);
  if (!memory) throw EngineError(ErrorCode::outOfMemory, "no memory for " + std::to_string(bytes) + " bytes");
  return memory;
}

void* Context::allocateDevice(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMalloc");
  return memory;
}

void Context::releaseDevice(void* memory) {
  check(cudaFree(memory), "cudaFree");
}

void Context::upload(const void* host, void* memory, size_t bytes) {
  // From pageable memory: the runtime has copied it when this returns.
  if (bytes > 0) check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, stream_.get()), "cudaMemcpyAsync");
}

void Context::download(const void* memory, void* host, size_t bytes) {
  if (bytes > 0) check(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
}

void Context::clear(void* memory, size_t bytes) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, stream_.get()), "cudaMemsetAsync");
}

void Context::settle() {
  const LateFailureNote note = read(failureNote_.get());
  if (note.failure == uint32_t(LateFailure::none)) return;
  clear(failureNote_.get(), sizeof note);
  refuse(note);
}

}  // namespace monosem::cuda
