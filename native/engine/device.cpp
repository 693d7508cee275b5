#include "engine/device.h"

#include <new>
#include <utility>

namespace monosem {
namespace {

// Runs `work`; an exception becomes a failure whose message opens with what describe() says.
template <class Work, class Describe>
std::optional<Failure> attempt(const Work& work, const Describe& describe) {
  try {
    work();
    return std::nullopt;
  } catch (const EngineError& error) {
    return Failure{error.code(), describe() + ": " + error.what()};
  } catch (const std::bad_alloc&) {
    return Failure{ErrorCode::outOfMemory, describe() + ": the system is out of memory"};
  } catch (const std::exception& error) {
    return Failure{ErrorCode::internal, describe() + ": " + error.what()};
  }
}

// Of more calls between two barriers, a late failure is told without the name.
constexpr size_t mostUnsettled = 4096;

[[noreturn]] void throwNotComputed(const std::string& name) {
  throw EngineError(ErrorCode::notComputed,
                    name +
                        " was never computed: nothing wrote it, or the work that should have failed, or what that "
                        "work reads was itself not computed");
}

}  // namespace

std::string KernelCall::text() const {
  std::string text = std::string(kernel) + "(";
  const char* separator = "";
  for (const Operand& operand : operands) {
    text += separator + std::string(operand.name) + " " + operand.shape.text();
    separator = ", ";
  }
  if (!note.empty()) text += separator + note;
  return text + ")";
}

Device::Device(std::unique_ptr<Allocator> allocator, const MakeKernels& makeKernels)
    : allocator_(std::move(allocator)), kernels_(makeKernels(*allocator_)), description_(kernels_->description()) {}

Device::~Device() {
  shutDown();
}

Tensor Device::emptyTensor(DType dtype, const Shape& shape) const {
  Tensor tensor{dtype, shape, nullptr};
  tensor.storage = std::make_shared<Storage>(tensor.bytes());
  return tensor;
}

Tensor Device::tensorFromHost(DType dtype, const Shape& shape, const void* host) {
  Tensor tensor = emptyTensor(dtype, shape);
  tensor.storage->allocate(*allocator_);
  allocator_->upload(host, tensor.storage->block, tensor.bytes());
  tensor.storage->computed = true;
  return tensor;
}

Tensor Device::zeroTensor(DType dtype, const Shape& shape) {
  const Tensor tensor = emptyTensor(dtype, shape);
  enqueue({"zeros", {{"tensor", Access::writePart, tensor.storage, shape}}, "", [](Kernels&) {}});
  return tensor;
}

void Device::overwrite(const Tensor& tensor, const void* host) {
  const Block copy = allocator_->allocate(tensor.bytes());
  allocator_->upload(host, copy, tensor.bytes());
  const auto storage = tensor.storage;
  // Not an operand that is written, for which memory would be allocated: the copy becomes its memory.
  enqueue({"write", {}, "tensor " + tensor.shape.text(), [storage, copy](Kernels&) {
             storage->block = copy;
             storage->computed = true;
           }});
}

void Device::enqueue(KernelCall call) {
  queue_.push([this, call = std::move(call)] {
    std::optional<Failure> failure = attempt([&] { run(call); }, [&] { return call.text(); });
    if (!failure || failure_) return;
    failure_ = std::move(failure);
    failedAfter_ = kernels_->calls();
  });
}

void Device::run(const KernelCall& call) {
  for (const Operand& operand : call.operands) {
    const bool reads = operand.access == Access::read || operand.access == Access::update;
    if (reads && !operand.result->computed) throwNotComputed(operand.name);
  }
  for (const Operand& operand : call.operands) {
    if (operand.access == Access::write) operand.result->allocate(*allocator_);
    if (operand.access == Access::writePart) operand.result->allocateCleared(*allocator_);
  }
  const uint64_t before = kernels_->calls();
  call.run(*kernels_);
  if (kernels_->calls() > before && unsettled_.size() < mostUnsettled)
    unsettled_.emplace(kernels_->calls(), call.text());
  for (const Operand& operand : call.operands) {
    if (operand.access != Access::read) operand.result->computed = true;
  }
}

void Device::synchronize(Completion done) {
  queue_.push([this, done = std::move(done)] {
    const std::optional<Failure> failure = settle();
    done(failure ? &*failure : nullptr);
  });
}

std::optional<Failure> Device::settle() {
  std::string name = "queued work";
  bool lateIsFirst = false;
  const auto settleKernels = [&] {
    if (lost_) return;  // there is nothing to wait for, and it was told
    try {
      kernels_->settle();
    } catch (const LateError& error) {
      lost_ = error.code() == ErrorCode::deviceLost;
      lateIsFirst = error.call() <= failedAfter_;
      const auto found = unsettled_.lower_bound(error.call());
      if (error.call() > 0 && found != unsettled_.end()) name = found->second;
      throw;
    }
  };
  const std::optional<Failure> late = attempt(settleKernels, [&] { return name; });
  unsettled_.clear();
  const std::optional<Failure> failure = std::exchange(failure_, std::nullopt);
  return failure && !(late && lateIsFirst) ? failure : late;
}

void Device::read(std::shared_ptr<Result> result, std::string name, std::function<void(Allocator&)> transfer,
                  Completion done) {
  queue_.push([this, result = std::move(result), name = std::move(name), transfer = std::move(transfer),
               done = std::move(done)] {
    std::optional<Failure> failure = settle();
    if (!failure) {
      failure = attempt(
          [&] {
            if (!result->computed) throwNotComputed("it");
            transfer(*allocator_);
          },
          [&] { return "reading " + name; });
    }
    done(failure ? &*failure : nullptr);
  });
}

void Device::readMore(std::function<void(Allocator&)> transfer, Completion done) {
  queue_.pushFront([this, transfer = std::move(transfer), done = std::move(done)] {
    const std::optional<Failure> failure =
        attempt([&] { transfer(*allocator_); }, [] { return std::string("reading"); });
    done(failure ? &*failure : nullptr);
  });
}

void Device::shutDown() {
  queue_.stop();
  kernels_.reset();
  allocator_->close();
}

}  // namespace monosem
