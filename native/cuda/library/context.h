// A device opened by the library: its stream, its matrix products, the memory of the call that is running, and the word
// in which kernels note that they had to fail.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "cuda_host.h"  // test/native/emulation
#endif

#include "cuda/abi.h"
#include "engine/error.h"

namespace monosem::cuda {

class MatrixProducts;

// Throws where a call of the CUDA runtime failed, naming it and CUDA's reason: outOfMemory; deviceLost where the device
// does not get over it; else internal.
void check(cudaError_t status, const char* call);

// Why a kernel that is running on the device gives up, and the numbers that its message tells.
enum class LateFailure : uint32_t {
  none,
  normNotFinite,       // stepRows, stepVector: -, the norm, -
  valuesNotFinite,     // updateRunningMinimum: -
  rowBeyondMatrix,     // gatherRows, scatterRows: the position, the row there, how many there are
  targetBeyondLogits,  // crossEntropy: the row, its target, how many classes there are
  logitsNotFinite,     // sample: the row, -, -
  biasNotFinite,       // encode: the feature
  inputNotFinite,      // encode: the row of x
  encoderNotFinite,    // encode: the feature
  scoresTooLarge,      // encode: the row of x
};

// In device memory, one for each call that may fail late. The first failure stays; see noteFailure in warp.h.
struct LateFailureNote {
  uint32_t failure;  // LateFailure
  int64_t position;
  double number;
  int64_t count;
};

class Context {
 public:
  explicit Context(const OpenOptions& options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  cudaStream_t stream() const { return stream_.get(); }
  int multiprocessors() const { return multiprocessors_; }
  const std::string& description() const { return description_; }
  Precision precision() const { return precision_; }
  MatrixProducts& products() { return *products_; }
  // Lets a kernel's blocks have so much dynamic shared memory. Throws unsupported where the device has less.
  void allowSharedBytes(const void* kernel, size_t bytes) const;
  void makeCurrent() const;  // for calls of the runtime on this thread
  // Whether the library has machine code for the matrix units of this GPU that warpgroups use (sm_90a); found out in
  // the first call that asks.
  bool hasWarpgroupProducts();

  // ---- Memory of the call that is running: lives until the call returns, or longer where it is part of a result.
  template <class T>
  T* allocate(int64_t count) {
    return static_cast<T*>(allocateBytes(sizeof(T) * size_t(count)));
  }
  // Gives scratch back that the work queued so far is the last to use; for what a call needs again and again.
  void release(const void* memory) { memory_->release(memory_->owner, memory); }
  // A kernel's call begins: its number, and its memory.
  void beginCall(uint64_t call, const Memory* memory) {
    call_ = call;
    memory_ = memory;
  }

  // ---- Between host and device; these wait for the stream where they read.
  void* allocateDevice(size_t bytes);  // null: no more
  void releaseDevice(void* memory);
  void upload(const void* host, void* memory, size_t bytes);
  void download(const void* memory, void* host, size_t bytes);
  void clear(void* memory, size_t bytes);
  template <class T>
  T read(const T* memory) {
    T value;
    download(memory, &value, sizeof(T));
    return value;
  }
  template <class T>
  T* uploaded(const T* host, int64_t count) {
    T* memory = allocate<T>(count);
    upload(host, memory, sizeof(T) * size_t(count));
    return memory;
  }

  // 0 whenever a kernel begins: where its blocks count how many of them are done. The last one leaves 0 there.
  unsigned* blocksDone() { return blocksDone_.get(); }

  // ---- Late failures
  // Where the call that is running notes one.
  LateFailureNote* failureNote();
  // Waits, and throws the first failure that was noted since the last time; `call` is the number of the call.
  void settle(uint64_t* call);

 private:
  struct DestroyStream {
    using pointer = cudaStream_t;
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  };
  struct FreeMemory {
    void operator()(void* memory) const { cudaFree(memory); }
  };

  void* allocateBytes(size_t bytes);
  // Zeros that live as long as the context.
  template <class T>
  std::unique_ptr<T, FreeMemory> zeros(size_t count);

  int ordinal_;
  Precision precision_;
  int multiprocessors_ = 0;
  size_t sharedBytes_ = 0;  // the most that a block can have
  bool readsHostMemory_ = false;
  std::optional<bool> hasWarpgroupProducts_;
  std::string description_;
  std::unique_ptr<cudaStream_t, DestroyStream> stream_;
  const Memory* memory_ = nullptr;
  uint64_t call_ = 0;
  std::unique_ptr<unsigned, FreeMemory> blocksDone_;
  std::unique_ptr<LateFailureNote, FreeMemory> failureNotes_;
  std::vector<uint64_t> notedCalls_;  // the calls that have a note since the last settle
  std::unique_ptr<MatrixProducts> products_;
};

}  // namespace monosem::cuda
