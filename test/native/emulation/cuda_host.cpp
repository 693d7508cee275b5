#include "cuda_host.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_host {
namespace {

constexpr size_t stackBytes = 128 << 10;
constexpr int devices = 3;
enum class Order { ascending, descending, shuffled };
thread_local int currentDevice = 0;

// Of every kernel: the emulation does not know how much each has.
constexpr size_t staticSharedBytes = 8 << 10;
constexpr size_t unaskedSharedBytes = 48 << 10, mostSharedBytes = 227 << 10;
std::mutex allowedMutex;
std::map<const void*, size_t> allowedSharedBytes;  // dynamic, by kernel
thread_local cudaError_t launchError = cudaSuccess;

int launchesLeft = [] {
  const char* number = std::getenv("CUDA_HOST_BREAK_AFTER");
  return number ? std::atoi(number) : -1;
}();

// ---- Fibers: a stack, and where it was left

#if defined(__x86_64__)
// Saves the callee-saved registers and the stack pointer in *save, and takes those of `load`: a hundred times as fast
// as swapcontext, which asks the system for the signal mask.
extern "C" void monosemSwitchStacks(void** save, void* load);
asm(R"(
.text
.local monosemSwitchStacks
.type monosemSwitchStacks, @function
monosemSwitchStacks:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size monosemSwitchStacks, . - monosemSwitchStacks
)");
#endif

struct Fiber {
  std::unique_ptr<char[]> stack;
#if defined(__x86_64__)
  void* at = nullptr;
#else
  ucontext_t at;
#endif
  void* asanFakeStack = nullptr;
  enum { ready, atBlock, atWarp, returned } state = returned;
  int line = 0;
  uint64_t slots[2] = {};
  unsigned turn = 0;
  bool counted = false;
};

struct Scheduler {
  std::vector<Fiber> fibers;
  int count = 0;
  int current = -1;
  const std::function<void()>* body = nullptr;
  std::vector<uint64_t> shared;
#if defined(__x86_64__)
  void* home = nullptr;
#else
  ucontext_t home;
#endif
  void* asanFakeStack = nullptr;
  const void* homeStack = nullptr;
  size_t homeStackBytes = 0;
  std::mt19937 random{1};

  static Scheduler& self() {
    static thread_local Scheduler scheduler;
    return scheduler;
  }

  static void enter() {
    Scheduler& scheduler = self();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.homeStack, &scheduler.homeStackBytes);
#endif
    (*scheduler.body)();
    Fiber& fiber = scheduler.fibers[size_t(scheduler.current)];
    fiber.state = Fiber::returned;
    scheduler.leave(fiber);
    std::abort();
  }

  void prepare(Fiber& fiber) {
    if (!fiber.stack) fiber.stack.reset(new char[stackBytes]);
    fiber.state = Fiber::ready;
    fiber.turn = 0;
#if defined(__x86_64__)
    void** top =
        reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(fiber.stack.get()) + stackBytes) & ~uintptr_t(15));
    *--top = nullptr;  // where a call would have left its return address: the stack is aligned as in a function
    *--top = reinterpret_cast<void*>(&Scheduler::enter);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.at = top;
#else
    getcontext(&fiber.at);
    fiber.at.uc_stack.ss_sp = fiber.stack.get();
    fiber.at.uc_stack.ss_size = stackBytes;
    fiber.at.uc_link = nullptr;
    makecontext(&fiber.at, &Scheduler::enter, 0);
#endif
  }

  void resume(int thread) {
    current = thread;
    threadIdx = dim3(unsigned(thread));
    Fiber& fiber = fibers[size_t(thread)];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&asanFakeStack, fiber.stack.get(), stackBytes);
#endif
#if defined(__x86_64__)
    monosemSwitchStacks(&home, fiber.at);
#else
    swapcontext(&home, &fiber.at);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(asanFakeStack, nullptr, nullptr);
#endif
  }

  // Back to the scheduler, from the running fiber.
  void leave(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fiber.state == Fiber::returned ? nullptr : &fiber.asanFakeStack, homeStack,
                                   homeStackBytes);
#endif
#if defined(__x86_64__)
    monosemSwitchStacks(&fiber.at, home);
#else
    swapcontext(&fiber.at, &home);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.asanFakeStack, &homeStack, &homeStackBytes);
#endif
  }

  void wait(decltype(Fiber::state) state, int line) {
    Fiber& fiber = fibers[size_t(current)];
    fiber.state = state;
    fiber.line = line;
    leave(fiber);
  }

  [[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "emulated CUDA: %s, block (%u, %u, %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
    for (int t = 0; t < count; ++t)
      if (fibers[size_t(t)].state != Fiber::returned)
        std::fprintf(stderr, "  thread %d waits for its %s at line %d\n", t,
                     fibers[size_t(t)].state == Fiber::atBlock ? "block" : "warp", fibers[size_t(t)].line);
    std::abort();
  }

  // Lets every warp go on whose threads all wait for each other, or else the block; false when all have returned.
  bool release() {
    bool released = false, anyLeft = false, allAtBlock = true;
    for (int first = 0; first < count; first += 32) {
      const int end = std::min(count, first + 32);
      bool left = false, allAtWarp = true;
      for (int t = first; t < end; ++t) {
        const auto state = fibers[size_t(t)].state;
        if (state == Fiber::returned) continue;
        left = true;
        allAtWarp = allAtWarp && state == Fiber::atWarp;
        allAtBlock = allAtBlock && state == Fiber::atBlock;
      }
      anyLeft = anyLeft || left;
      if (!left || !allAtWarp) continue;
      for (int t = first; t < end; ++t)
        if (fibers[size_t(t)].state == Fiber::atWarp) fibers[size_t(t)].state = Fiber::ready;
      released = true;
    }
    if (!anyLeft) return false;
    if (released) return true;
    if (!allAtBlock) fail("a barrier that not all threads reach");
    for (int t = 0; t < count; ++t) {
      if (fibers[size_t(t)].state == Fiber::returned) fail("__syncthreads after some threads have returned");
      fibers[size_t(t)].state = Fiber::ready;
    }
    return true;
  }

  void runBlock(std::vector<int>& order, Order which) {
    std::fill(shared.begin(), shared.end(), ~uint64_t(0));
    for (int t = 0; t < count; ++t) prepare(fibers[size_t(t)]);
    do {
      if (which == Order::shuffled) std::shuffle(order.begin(), order.end(), random);
      for (const int t : order)
        if (fibers[size_t(t)].state == Fiber::ready) resume(t);
    } while (release());
  }
};

}  // namespace

HostWork hostWork;

void breakAfter(int launches) {
  launchesLeft = launches;
}

cudaError_t state() {
  return launchesLeft == 0 ? cudaErrorIllegalAddress : cudaSuccess;
}

bool mayHaveShared(const void* kernel, size_t bytes) {
  std::lock_guard<std::mutex> lock(allowedMutex);
  const auto allowed = allowedSharedBytes.find(kernel);
  const size_t most = allowed == allowedSharedBytes.end() ? unaskedSharedBytes - staticSharedBytes : allowed->second;
  if (bytes > most) launchError = cudaErrorInvalidValue;
  return bytes <= most;
}

cudaError_t takeLastError() {
  return state() != cudaSuccess ? state() : std::exchange(launchError, cudaSuccess);
}

void runGrid(dim3 blocks, unsigned threads, size_t sharedBytes, const std::function<void()>& body) {
  if (launchesLeft > 0) --launchesLeft;
  if (launchesLeft == 0) return;
  Scheduler& scheduler = Scheduler::self();
  const Order which = Order(currentDevice);
  scheduler.count = int(threads);
  scheduler.body = &body;
  if (scheduler.fibers.size() < threads) scheduler.fibers.resize(threads);
  scheduler.shared.resize((sharedBytes + 7) / 8);
  scheduler.random.seed(1);
  blockDim = dim3(threads);
  gridDim = blocks;
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  if (which == Order::descending) std::reverse(order.begin(), order.end());
  std::vector<unsigned> places(size_t(blocks.x) * blocks.y * blocks.z);
  std::iota(places.begin(), places.end(), 0u);
  if (which == Order::descending) std::reverse(places.begin(), places.end());
  if (which == Order::shuffled) std::shuffle(places.begin(), places.end(), scheduler.random);
  for (const unsigned place : places) {
    blockIdx = dim3(place % blocks.x, place / blocks.x % blocks.y, place / (blocks.x * blocks.y));
    scheduler.runBlock(order, which);
  }
}

void* dynamicShared() {
  return Scheduler::self().shared.data();
}

void waitForBlock(int line) {
  Scheduler::self().wait(Fiber::atBlock, line);
}

void waitForWarp(int line) {
  Scheduler::self().wait(Fiber::atWarp, line);
}

uint64_t* slotOf(unsigned lane, unsigned turn) {
  Scheduler& scheduler = Scheduler::self();
  const unsigned thread = unsigned(scheduler.current) / 32 * 32 + lane;
  if (thread >= unsigned(scheduler.count)) return nullptr;
  Fiber& fiber = scheduler.fibers[thread];
  // One that has returned since it left its value may have done so in the turn that others still read.
  return fiber.state == Fiber::returned && fiber.turn != turn + 1 ? nullptr : &fiber.slots[turn % 2];
}

unsigned nextTurn() {
  Scheduler& scheduler = Scheduler::self();
  return scheduler.fibers[size_t(scheduler.current)].turn++;
}

int countInBlock(bool predicate, int line) {
  Scheduler& scheduler = Scheduler::self();
  scheduler.fibers[size_t(scheduler.current)].counted = predicate;
  waitForBlock(line);
  int held = 0;
  for (int t = 0; t < scheduler.count; ++t) held += scheduler.fibers[size_t(t)].counted;
  waitForBlock(line);
  return held;
}

}  // namespace cuda_host

// ---- The runtime

cudaError_t cudaSetDevice(int ordinal) {
  if (ordinal < 0 || ordinal >= cuda_host::devices) return cudaErrorInvalidDevice;
  cuda_host::currentDevice = ordinal;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = cuda_host::devices;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  const char* orders[] = {"ascending", "descending", "shuffled"};
  std::snprintf(properties->name, sizeof properties->name, "emulated, threads %s", orders[ordinal]);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(cuda_host::mostSharedBytes);
      break;
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables:
      *value = 0;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (cuda_host::state() != cudaSuccess) return cuda_host::state();
  return posix_memalign(memory, 256, std::max(bytes, size_t(1))) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cuda_host::state();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (kind == cudaMemcpyHostToDevice) ++cuda_host::hostWork.uploads;
  if (kind == cudaMemcpyDeviceToHost) ++cuda_host::hostWork.waits;
  if (cuda_host::state() == cudaSuccess) std::memmove(to, from, bytes);
  return cuda_host::state();
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  if (cuda_host::state() == cudaSuccess) std::memset(memory, value, bytes);
  return cuda_host::state();
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->sharedSizeBytes = cuda_host::staticSharedBytes;
  return std::getenv("CUDA_HOST_WITHOUT_CODE") ? cudaErrorNoKernelImageForDevice : cuda_host::state();
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (size_t(value) + cuda_host::staticSharedBytes > cuda_host::mostSharedBytes) return cudaErrorInvalidValue;
  std::lock_guard<std::mutex> lock(cuda_host::allowedMutex);
  cuda_host::allowedSharedBytes[kernel] = size_t(value);
  return cuda_host::state();
}

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    default:
      return "cudaError";
  }
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    default:
      return "an error";
  }
}
