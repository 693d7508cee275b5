// The device's queue, errors and memory, without JavaScript: also what the sanitizers run.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/cpu_backend.h"
#include "engine/caching_allocator.h"
#include "engine/device.h"
#include "engine/host_allocator.h"

namespace monosem {
namespace {

int passed = 0, failed = 0;

void check(bool holds, const std::string& what) {
  holds ? ++passed : ++failed;
  if (!holds) std::printf("  FAILED %s\n", what.c_str());
}

std::shared_ptr<Device> openDevice(uint64_t limit = 0) {
  return std::make_shared<Device>(std::make_unique<HostAllocator>(limit),
                                  [](Allocator& allocator) { return makeCpuKernels(allocator, 2); });
}

Operand read(const char* name, const Tensor& tensor) {
  return {name, Access::read, tensor.storage, tensor.shape};
}
Operand write(const char* name, const Tensor& tensor) {
  return {name, Access::write, tensor.storage, tensor.shape};
}

Vector<float> vectorOf(const Tensor& tensor) {
  return {tensor.storage->block.as<float>(), tensor.shape.elements()};
}
Vector<const float> constVectorOf(const Tensor& tensor) {
  return {tensor.storage->block.as<float>(), tensor.shape.elements()};
}

// out = a + a
void enqueueDouble(Device& device, const Tensor& a, const Tensor& out) {
  device.enqueue({"add", {read("a", a), write("out", out)}, "", [a, out](Kernels& kernels) {
                    kernels.add(constVectorOf(a), constVectorOf(a), 1, vectorOf(out));
                  }});
}

void enqueueFailure(Device& device, const Tensor& x, const Tensor& out) {
  device.enqueue({"encode", {read("x", x), write("out", out)}, "topk 32", [](Kernels&) {
                    throw EngineError(ErrorCode::nonFinite, "x holds NaN");
                  }});
}

struct Answer {
  std::string code;  // "" for success
  std::string message;
};

Answer answerOf(const Failure* failure) {
  return failure ? Answer{errorCodeName(failure->code), failure->message} : Answer{};
}

Answer synchronize(Device& device) {
  std::promise<Answer> answer;
  device.synchronize([&](const Failure* failure) { answer.set_value(answerOf(failure)); });
  return answer.get_future().get();
}

Answer readFloats(Device& device, const Tensor& tensor, std::vector<float>& out) {
  out.assign(size_t(tensor.shape.elements()), -1);
  std::promise<Answer> answer;
  device.read(
      tensor.storage, "a tensor",
      [&](Allocator& allocator) { allocator.download(tensor.storage->block, out.data(), tensor.bytes()); },
      [&](const Failure* failure) { answer.set_value(answerOf(failure)); });
  return answer.get_future().get();
}

Tensor ramp(Device& device, int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
  return device.tensorFromHost(DType::f32, {size}, values.data());
}

void workRunsInOrder() {
  const auto device = openDevice();
  Tensor tensor = ramp(*device, 5);
  for (int i = 0; i < 20; ++i) {
    const Tensor next = device->emptyTensor(DType::f32, {5});
    enqueueDouble(*device, tensor, next);
    tensor = next;
  }
  std::vector<float> values;
  check(readFloats(*device, tensor, values).code.empty(), "a chain of kernels is read");
  check(values[3] == 3.0f * 1048576, "a chain of kernels runs in order");
}

void errorsReachTheNextBarrierOnly() {
  const auto device = openDevice();
  const Tensor x = ramp(*device, 6);
  const Tensor failed = device->emptyTensor(DType::f32, {6}), after = device->emptyTensor(DType::f32, {6});
  const Tensor goesOn = device->emptyTensor(DType::f32, {6});
  enqueueFailure(*device, x, failed);
  enqueueDouble(*device, failed, after);
  enqueueDouble(*device, x, goesOn);
  const Answer answer = synchronize(*device);
  check(answer.code == "ERR_NON_FINITE", "the first error's code");
  check(answer.message == "encode(x [6], out [6], topk 32): x holds NaN",
        "the error names kernel, operands, note: " + answer.message);
  check(synchronize(*device).code.empty(), "an error is received once");
  std::vector<float> values;
  check(readFloats(*device, failed, values).code == "ERR_NOT_COMPUTED", "what a failed kernel writes is not computed");
  check(readFloats(*device, after, values).code == "ERR_NOT_COMPUTED", "what is made from it is not computed");
  check(readFloats(*device, goesOn, values).code.empty() && values[5] == 10, "other work goes on");
  const Tensor uses = device->emptyTensor(DType::f32, {6});
  enqueueDouble(*device, after, uses);
  check(synchronize(*device).code == "ERR_NOT_COMPUTED", "using an uncomputed tensor is an error");
  enqueueDouble(*device, after, x);
  check(synchronize(*device).code == "ERR_NOT_COMPUTED", "also where the output existed before");
  check(readFloats(*device, x, values).code.empty() && values[5] == 5, "which then keeps its content");
}

void memoryComesLateAndGoesEarly() {
  const auto device = openDevice();
  const int64_t size = 1 << 18;  // 1 MiB
  Tensor tensor = ramp(*device, size);
  for (int i = 0; i < 200; ++i) {
    const Tensor next = device->emptyTensor(DType::f32, {size});
    enqueueDouble(*device, tensor, next);
    tensor = next;
  }
  check(synchronize(*device).code.empty(), "200 steps run");
  const MemoryStatistics statistics = device->allocator().statistics();
  check(statistics.current == size * 4, "only the last tensor is live");
  check(statistics.peak <= 3 * uint64_t(size) * 4, "no more than two steps were live at once");
  check(statistics.current + statistics.cached <= statistics.peak, "the cache stays within the peak");
}

void theLimitHolds() {
  const auto device = openDevice(1 << 20);
  bool refused = false;
  try {
    device->tensorFromHost(DType::f32, {1 << 20}, std::vector<float>(1 << 20).data());
  } catch (const EngineError& error) {
    refused = error.code() == ErrorCode::outOfMemory;
  }
  check(refused, "a tensor beyond the limit is refused at the call");
  const Tensor a = ramp(*device, 1 << 17);
  for (int i = 0; i < 10; ++i) {
    const Tensor out = device->emptyTensor(DType::f32, {1 << 17});
    enqueueDouble(*device, a, out);
  }
  check(synchronize(*device).code.empty(), "the cache makes room before an allocation is refused");
  const Tensor large = device->zeroTensor(DType::f64, {1 << 17});
  check(synchronize(*device).code == "ERR_OUT_OF_MEMORY", "queued work beyond the limit fails");
  const MemoryStatistics statistics = device->allocator().statistics();
  check(statistics.current + statistics.cached <= statistics.limit, "live and cached memory keep to the limit");
}

void allocatorsAreExactAndShared() {
  HostAllocator allocator;
  check(allocator.allocate(0).as<void>() != nullptr, "a block of no bytes is a block");
  {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&allocator, t] {
        std::vector<Block> blocks;
        for (size_t i = 0; i < 2000; ++i) {
          blocks.push_back(allocator.allocate((i * 7919 + size_t(t) * 131) % 100000));
          blocks.back().as<char>()[0] = 1;
          if (reinterpret_cast<uintptr_t>(blocks.back().as<char>()) % 64 != 0) std::abort();
          if (i % 3 == 0) blocks.erase(blocks.begin() + std::ptrdiff_t(i % blocks.size()));
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  check(allocator.statistics().current == 0, "every byte came back");
  allocator.releaseCache();
  check(allocator.statistics().cached == 0, "the cache was given back");
  Block survivor;
  {
    HostAllocator short_lived;
    survivor = short_lived.allocate(100);
  }
  survivor.as<char>()[99] = 1;
  check(true, "a block may outlive its allocator");

  HostAllocator closed;
  closed.allocate(1000);
  Block live = closed.allocate(5000);
  closed.close();
  check(closed.statistics().cached == 0 && closed.statistics().current > 0, "closing keeps what is in use alone");
  live = Block();
  check(closed.statistics().cached == 0 && closed.statistics().current == 0, "what comes back then is not kept");
}

// Counts what is asked of it, and has at most `most` bytes.
class CountingMemory final : public MemorySource {
 public:
  explicit CountingMemory(int& asked, size_t most = SIZE_MAX) : asked_(asked), left_(most) {}
  void* allocate(size_t size) override {
    if (size > left_) return nullptr;
    ++asked_;
    left_ -= size;
    return ::operator new(size);
  }
  void release(void* bytes, size_t size) override {
    left_ += size;
    ::operator delete(bytes);
  }

 private:
  int& asked_;
  size_t left_;
};

// Phases of work that want blocks of different sizes, one phase after the other, and nothing else of their peak.
void phases(CachingAllocator& allocator, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    { const Block a = allocator.allocate(65536), b = allocator.allocate(65536); }
    const Block a = allocator.allocate(98304), b = allocator.allocate(32768);
  }
}

void blocksOfOtherPhasesStay() {
  constexpr int rounds = 10;
  int asked = 0;
  CachingAllocator wide(std::make_unique<CountingMemory>(asked), 0, 2);
  phases(wide, rounds);
  check(asked == 4, "with room for two peaks, the blocks of both phases are asked for once");
  const MemoryStatistics both = wide.statistics();
  check(both.current == 0 && both.cached == 2 * both.peak, "two peaks are held");
  const Block other = wide.allocate(16384);
  check(wide.statistics().current + wide.statistics().cached <= 2 * both.peak, "and no more");
  wide.setLimit(both.peak);
  check(wide.statistics().current + wide.statistics().cached <= both.peak, "a limit is kept nevertheless");

  asked = 0;
  CachingAllocator narrow(std::make_unique<CountingMemory>(asked));
  phases(narrow, rounds);
  check(narrow.statistics().current + narrow.statistics().cached <= narrow.statistics().peak,
        "by default a process never holds more than its peak");
  check(asked > 2 * rounds, "which makes phases ask again and again");

  asked = 0;
  CachingAllocator scarce(std::make_unique<CountingMemory>(asked, 131072 + 16384), 0, 2);
  phases(scarce, rounds);
  check(scarce.statistics().peak == 131072, "where the source has no more, cached blocks make room");
}

void whatOnlySavesTimeTakesWhatIsLeft() {
  int asked = 0;
  CachingAllocator allocator(std::make_unique<CountingMemory>(asked, 65536), 0, 2);
  const Block first = allocator.allocateIfRoom(32768);
  check(bool(first), "there is room");
  { const Block scratch = allocator.allocate(16384); }
  check(!allocator.allocateIfRoom(49152), "there is none, even without what is cached");
  check(allocator.statistics().cached == 0, "which it takes to find out");
  { const Block scratch = allocator.allocate(16384); }
  for (int i = 0; i < 3; ++i) check(!allocator.allocateIfRoom(65536), "nor for more");
  check(allocator.statistics().cached == 16384, "the cache stays then");
  check(bool(allocator.allocateIfRoom(16384)), "cached blocks are room");
  check(bool(allocator.allocateIfRoom(32768)), "as is what nobody needs any more");

  CachingAllocator limited(std::make_unique<CountingMemory>(asked), 32768);
  check(!limited.allocateIfRoom(65536), "a limit holds");
  limited.setLimit(65536);
  check(bool(limited.allocateIfRoom(65536)), "until it is a higher one");
}

void shuttingDownDropsWaitingWork() {
  const auto device = openDevice();
  std::atomic<int> ran{0};
  std::promise<void> started;
  for (int i = 0; i < 100; ++i) {
    device->enqueue({"wait", {}, "", [&ran, &started](Kernels&) {
                       if (ran++ == 0) started.set_value();
                       std::this_thread::sleep_for(std::chrono::milliseconds(5));
                     }});
  }
  started.get_future().wait();
  device->shutDown();
  check(ran < 100, "work that had not started was dropped");
  check(!device->open(), "the device is shut down");
  device->shutDown();
  device->synchronize([](const Failure*) { std::abort(); });
  check(true, "shutting down twice and enqueueing afterwards do nothing");
}

void manyThreadsMayEnqueue() {
  const auto device = openDevice();
  const Tensor sum = device->zeroTensor(DType::f64, {1});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const Tensor a = ramp(*device, 100);
        device->enqueue(
            {"sum", {read("a", a), {"sum", Access::update, sum.storage, sum.shape}}, "", [a, sum](Kernels& kernels) {
               kernels.sum(constVectorOf(a), sum.storage->block.as<double>());
             }});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  check(synchronize(*device).code.empty(), "work from many threads runs");
  check(*sum.storage->block.as<double>() == 400 * 4950.0, "all of it");
}

}  // namespace
}  // namespace monosem

int main() {
  using namespace monosem;
  workRunsInOrder();
  errorsReachTheNextBarrierOnly();
  memoryComesLateAndGoesEarly();
  theLimitHolds();
  allocatorsAreExactAndShared();
  blocksOfOtherPhasesStay();
  whatOnlySavesTimeTakesWhatIsLeft();
  shuttingDownDropsWaitingWork();
  manyThreadsMayEnqueue();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
