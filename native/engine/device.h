// A device: memory, kernels, and a queue that runs them one after another on its own thread.
//
// Calls return at once. Failures follow the data: a kernel that fails leaves its new results uncomputed, and a kernel
// that reads an uncomputed result is not run and leaves its own new results uncomputed. What existed before stays
// computed: a kernel that is not run leaves it as it was. All other work goes on. The next barrier (a read, a
// synchronisation) receives the first failure since the barrier before it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/error.h"
#include "engine/kernels.h"
#include "engine/queue.h"
#include "engine/tensor.h"

namespace monosem {

// An error on its way to a caller.
struct Failure {
  ErrorCode code = ErrorCode::internal;
  std::string message;
};

enum class Access {
  read,       // must have been computed
  update,     // read and written
  write,      // written whole
  make,       // written whole, in memory that the kernel gives it
  writePart,  // written in part; the rest of a new tensor is 0
};

struct Operand {
  const char* name;
  Access access;
  std::shared_ptr<Result> result;
  Shape shape;
};

// One queued kernel: what it does, and what is said about it when it fails.
struct KernelCall {
  const char* kernel = "";
  std::vector<Operand> operands;
  std::string note;  // further arguments for messages, for example "topk 32"
  std::function<void(Kernels&)> run;

  // "encode(x [4096, 768], encoder [8192, 768], topk 32)"
  std::string text() const;
};

class Device {
 public:
  using MakeKernels = std::function<std::unique_ptr<Kernels>(Allocator&)>;
  // Called on the queue's thread, exactly once unless the device is shut down before: null means success.
  using Completion = std::function<void(const Failure*)>;

  Device(std::unique_ptr<Allocator> allocator, const MakeKernels& makeKernels);
  ~Device();

  Allocator& allocator() { return *allocator_; }
  std::string description() const { return description_; }

  // A tensor that holds a copy of `host`, made now. Throws EngineError(outOfMemory).
  Tensor tensorFromHost(DType dtype, const Shape& shape, const void* host);
  // A tensor without memory until a kernel writes it.
  Tensor emptyTensor(DType dtype, const Shape& shape) const;
  Tensor zeroTensor(DType dtype, const Shape& shape);
  // Replaces the content by a copy of `host`, made now, once the work queued before is done.
  void overwrite(const Tensor& tensor, const void* host);

  void enqueue(KernelCall call);

  // A barrier: waits for the work queued before and receives its error.
  void synchronize(Completion done);
  // A barrier that then runs `transfer` (which may throw) if `result` was computed.
  void read(std::shared_ptr<Result> result, std::string name, std::function<void(Allocator&)> transfer,
            Completion done);
  // Further transfers of a result that a barrier found computed, before the work that waits.
  void readMore(std::function<void(Allocator&)> transfer, Completion done);

  // Drops the work that has not started, waits for the kernel that is running and ends the device's threads. Its
  // results keep their memory. Idempotent.
  void shutDown();
  bool open() const { return bool(kernels_); }  // not shut down yet

 private:
  void run(const KernelCall& call);
  // Waits for the work that has been run, and takes its first failure.
  std::optional<Failure> settle();

  std::unique_ptr<Allocator> allocator_;
  std::unique_ptr<Kernels> kernels_;
  std::string description_;
  std::map<uint64_t, std::string> unsettled_;  // by Kernels::calls(): calls that may yet fail late; the queue's thread
  std::optional<Failure> failure_;             // the first of queued work, not received yet; the queue's thread only
  uint64_t failedAfter_ = 0;                   // Kernels::calls() then
  bool lost_ = false;                          // whether a barrier has found the GPU lost; the queue's thread
  WorkQueue queue_;                            // last: its thread uses the others
};

}  // namespace monosem
