// N - 1 sleeping workers and the calling thread.
//
// Work is a number of independent items; which thread takes which item is left to chance, so a kernel that writes only
// what belongs to its item gives the same result for every number of threads. Sums over items are made by storing one
// number per item and adding them up in order afterwards.
//
// Denormal numbers count as zero while an item runs: the moments of a feature that no longer fires decay into them
// after some hundred steps, where every multiplication would cost a hundred cycles.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace monosem {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return int(workers_.size()) + 1; }

  // Calls body(item, thread) once for every item in [0, count), thread in [0, threads()), and returns when all are
  // done. An exception skips the items that have not begun and is thrown again here. Not to be called from within an
  // item.
  template <class Body>
  void forEach(int64_t count, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        count, [](void* context, int64_t item, int thread) { (*static_cast<Plain*>(context))(item, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Calls body(begin, end, thread) for consecutive ranges of `grain` elements (the last may be shorter) of [0, size).
  template <class Body>
  void forEachRange(int64_t size, int64_t grain, Body&& body) {
    forEach((size + grain - 1) / grain,
            [&](int64_t range, int thread) { body(range * grain, std::min(size, (range + 1) * grain), thread); });
  }

 private:
  using ItemFunction = void (*)(void* context, int64_t item, int thread);
  void run(int64_t count, ItemFunction function, void* context);
  void takeItems(int thread);
  void work(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;

  // The loop that runs now. Written under the mutex while every worker is idle.
  ItemFunction function_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> nextItem_{0};
  std::atomic<uint64_t> generation_{0};  // counts the loops: a worker that sees it change has work
  std::atomic<int> working_{0};          // workers that have not left the loop yet
  std::exception_ptr exception_;
  bool stopping_ = false;
};

}  // namespace monosem
