#include "cpu/thread_pool.h"

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace monosem {
namespace {

// Long enough for the gap between two loops of one kernel, short enough to leave the core to JavaScript otherwise.
constexpr int spins = 2000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class DenormalsAreZero {
 public:
#if defined(__x86_64__)
  DenormalsAreZero() : before_(_mm_getcsr()) {
    _mm_setcsr(before_ | 0x8040);
  }  // flush to zero, denormals are zero
  ~DenormalsAreZero() {
    _mm_setcsr(before_);
  }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  DenormalsAreZero() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t(1) << 24)));
  }
  ~DenormalsAreZero() {
    asm volatile("msr fpcr, %0" : : "r"(before_));
  }

 private:
  uint64_t before_ = 0;
#else
  DenormalsAreZero() {}
#endif
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t count, ItemFunction function, void* context) {
  if (count <= 0) return;
  const bool alone = count == 1 || workers_.empty();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    function_ = function;
    context_ = context;
    count_ = count;
    nextItem_.store(0);
    exception_ = nullptr;
    if (!alone) {
      working_.store(int(workers_.size()));
      generation_.fetch_add(1);
    }
  }
  if (!alone) wake_.notify_all();
  takeItems(0);
  if (!alone) {
    for (int spin = 0; spin < spins && working_.load() > 0; ++spin) pause();
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return working_.load() == 0; });
  }
  if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
}

void ThreadPool::takeItems(int thread) {
  DenormalsAreZero denormalsAreZero;
  try {
    for (int64_t item; (item = nextItem_.fetch_add(1, std::memory_order_relaxed)) < count_;)
      function_(context_, item, thread);
  } catch (...) {
    nextItem_.store(count_);
    std::lock_guard<std::mutex> lock(mutex_);
    if (!exception_) exception_ = std::current_exception();
  }
}

void ThreadPool::work(int thread) {
  for (uint64_t seen = 0;;) {
    for (int spin = 0; spin < spins && generation_.load() == seen; ++spin) pause();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      seen = generation_.load();
      if (stopping_) return;
    }
    takeItems(thread);
    if (working_.fetch_sub(1) == 1) {
      std::lock_guard<std::mutex> lock(mutex_);  // the caller is before its test or already waiting
      finished_.notify_one();
    }
  }
}

}  // namespace monosem
