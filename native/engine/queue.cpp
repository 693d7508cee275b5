#include "engine/queue.h"

#include <utility>

namespace monosem {

WorkQueue::WorkQueue() : thread_([this] { loop(); }) {}

WorkQueue::~WorkQueue() {
  stop();
}

void WorkQueue::push(Work work) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    waiting_.push_back(std::move(work));
  }
  arrived_.notify_one();
}

void WorkQueue::pushFront(Work work) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    waiting_.push_front(std::move(work));
  }
  arrived_.notify_one();
}

void WorkQueue::stop() {
  std::deque<Work> dropped;  // destroyed after the lock: it may own the last reference to memory
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    dropped.swap(waiting_);
  }
  arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void WorkQueue::loop() {
  for (;;) {
    Work work;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      arrived_.wait(lock, [this] { return stopped_ || !waiting_.empty(); });
      if (stopped_) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work();
  }
}

}  // namespace monosem
