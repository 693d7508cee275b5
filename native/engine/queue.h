// A first-in first-out queue of work with its own thread. Work must not throw.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace monosem {

class WorkQueue {
 public:
  using Work = std::function<void()>;

  WorkQueue();
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void push(Work work);
  // Before everything that waits: for work that depends on nothing queued.
  void pushFront(Work work);
  // Drops what has not started, waits for what is running and ends the thread. Later work is dropped too. Idempotent.
  void stop();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Work> waiting_;
  bool stopped_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace monosem
