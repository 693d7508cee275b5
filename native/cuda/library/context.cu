#include "cuda/library/context.h"

#include <cmath>
#include <new>
#include <utility>

#include "cuda/library/gpu.h"
#include "cuda/library/matrix_products.h"
#include "cuda/library/non_finite.h"
#include "cuda/library/one_pass_scores.h"

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
    // Which is also what CUDA says where there is no driver at all.
    const std::string why = status == cudaErrorInsufficientDriver
                                ? "no NVIDIA driver was found, or one that is too old for this library"
                                : cudaGetErrorString(status);
    throw EngineError(ErrorCode::unsupported,
                      "there is no usable NVIDIA GPU here: " + why + " (" + cudaGetErrorName(status) +
                          "). A GPU and its driver are needed; nvidia-smi, which comes with the driver, lists both");
  }
  if (ordinal < count) return;
  throw EngineError(ErrorCode::unsupported,
                    "there is no device " + std::to_string(ordinal) + ": this machine has " + std::to_string(count) +
                        (count == 1 ? " CUDA device, number 0" : " CUDA devices, numbered from 0"));
}

__global__ void emptyKernel() {}

// Throws unsupported where the library has no code that this device can run: it was compiled for others, or into PTX
// that is too new for the driver.
void requireCode(const std::string& device) {
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(emptyKernel));
  switch (status) {
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
      break;
    default:
      return check(status, "cudaFuncGetAttributes");
  }
  cudaGetLastError();
  throw EngineError(ErrorCode::unsupported,
                    std::string("the CUDA library has no code for ") + device + ": " + cudaGetErrorString(status) +
                        " (" + cudaGetErrorName(status) +
                        "). Build it on this machine, or with MONOSEM_CUDA_ARCHITECTURES=all in the environment: "
                        "npm run build:native");
}

// More calls than this between two settles share the last note.
constexpr size_t mostNotes = 1024;

[[noreturn]] void refuse(const LateFailureNote& note) {
  const std::string position = std::to_string(note.position), number = std::to_string(int64_t(note.number)),
                    count = std::to_string(note.count);
  switch (LateFailure(note.failure)) {
    case LateFailure::normNotFinite:
      throw EngineError(ErrorCode::nonFinite,
                        std::string("the norm of the gradient is ") + (std::isnan(note.number) ? "NaN" : "infinite"));
    case LateFailure::valuesNotFinite:
      throw EngineError(ErrorCode::nonFinite,
                        "The values of the codes hold NaN or infinity; all of them must be finite.");
    case LateFailure::rowBeyondMatrix:
      throw EngineError(ErrorCode::invalidArgument, "Row " + number + " (at position " + position +
                                                        ") does not exist: the matrix has " + count + " rows.");
    case LateFailure::targetBeyondLogits:
      throw EngineError(ErrorCode::invalidArgument, "Target " + number + " of row " + position +
                                                        " does not exist: there are " + count + " classes.");
    case LateFailure::logitsNotFinite:
      throw EngineError(ErrorCode::nonFinite, "Cannot sample from row " + position +
                                                  " of the logits: a class is NaN or infinite, or all are -infinity.");
    case LateFailure::biasNotFinite:
      throwNonFinite("bias", note.position);
    case LateFailure::inputNotFinite:
      throwNonFinite("x", note.position);
    case LateFailure::encoderNotFinite:
      throwNonFinite("encoder", note.position);
    case LateFailure::scoresTooLarge:
      throwTooLarge(note.position);
    case LateFailure::none:
      break;
  }
  throw EngineError(ErrorCode::internal, "A kernel noted an unknown failure, " + std::to_string(note.failure) + ".");
}

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what the device gets over is told once
  const std::string message =
      std::string(call) + " failed: " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status) + ".";
  if (status == cudaErrorMemoryAllocation) throw EngineError(ErrorCode::outOfMemory, message);
  if (cudaDeviceSynchronize() == cudaSuccess) throw EngineError(ErrorCode::internal, message);
  cudaGetLastError();
  throw EngineError(ErrorCode::deviceLost,
                    message + " The GPU does nothing more in this process. Go on with the CPU, or start anew.");
}

template <class T>
std::unique_ptr<T, Context::FreeMemory> Context::zeros(size_t count) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
  std::unique_ptr<T, FreeMemory> owned(static_cast<T*>(memory));
  clear(memory, count * sizeof(T));
  return owned;
}

Context::Context(const OpenOptions& options) : ordinal_(options.ordinal), precision_(options.precision) {
  requireDevice(ordinal_);
  makeCurrent();
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, ordinal_);
  sharedBytes_ = size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal_));
  readsHostMemory_ = attribute(cudaDevAttrPageableMemoryAccessUsesHostPageTables, ordinal_) != 0;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, ordinal_), "cudaGetDeviceProperties");
  requireCode(properties.name);
  description_ = std::string(properties.name) + ", " + nameOf(precision_);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
  blocksDone_ = zeros<unsigned>(1);
  failureNotes_ = zeros<LateFailureNote>(mostNotes);
  products_ = makeMatrixProducts(*this, options.cublasPath);
}

Context::~Context() {
  cudaSetDevice(ordinal_);  // its members are of that device
}

void Context::makeCurrent() const {
  check(cudaSetDevice(ordinal_), "cudaSetDevice");
}

void Context::allowSharedBytes(const void* kernel, size_t bytes) const {
  // What blocks have without being allowed it, static shared memory included, of which kernels with dynamic have less
  // than this.
  constexpr size_t always = 48 * 1024, mostStatic = 8 * 1024;
  if (bytes + mostStatic <= always) return;
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  const size_t all = attributes.sharedSizeBytes + bytes;
  if (all > sharedBytes_)
    throw EngineError(ErrorCode::unsupported, "A block would need " + std::to_string(all) +
                                                  " bytes of shared memory, but the device has " +
                                                  std::to_string(sharedBytes_) + ".");
  // All of it, because contexts of one device share what a kernel is allowed: none takes from another what that needs.
  const size_t most = sharedBytes_ - attributes.sharedSizeBytes;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(most)), "cudaFuncSetAttribute");
}

bool Context::hasWarpgroupProducts() {
  if (!hasWarpgroupProducts_) hasWarpgroupProducts_ = findWarpgroupProducts(*this);
  return *hasWarpgroupProducts_;
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
  if (bytes == 0) return;
  check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, stream_.get()), "cudaMemcpyAsync");
  // The runtime has taken pageable memory when the call returns, but where the GPU reads that by itself.
  if (readsHostMemory_) check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
}

void Context::download(const void* memory, void* host, size_t bytes) {
  if (bytes > 0) check(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
}

void Context::clear(void* memory, size_t bytes) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, stream_.get()), "cudaMemsetAsync");
}

LateFailureNote* Context::failureNote() {
  const bool isNew = notedCalls_.empty() || notedCalls_.back() != call_;
  if (isNew && notedCalls_.size() < mostNotes) notedCalls_.push_back(call_);
  return failureNotes_.get() + (notedCalls_.size() - 1);
}

void Context::settle(uint64_t* call) {
  std::vector<LateFailureNote> notes(notedCalls_.size());
  const size_t bytes = notes.size() * sizeof(LateFailureNote);
  download(failureNotes_.get(), notes.data(), bytes);
  const std::vector<uint64_t> calls = std::exchange(notedCalls_, {});
  for (size_t i = 0; i < notes.size(); ++i) {
    if (notes[i].failure == uint32_t(LateFailure::none)) continue;
    clear(failureNotes_.get(), bytes);
    if (i + 1 < mostNotes) *call = calls[i];  // the last one may be of any call since
    refuse(notes[i]);
  }
}

}  // namespace monosem::cuda
