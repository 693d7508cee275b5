// Times of work on a GPU: batches of runs, queued without waiting in between.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "gpu.h"

namespace monosem::bench {

struct Effort {
  int batches = 9;
  double batchSeconds = 0.04;  // about
};

struct Timing {
  double milliseconds = 0;  // of a run: the median over the batches
  double fastest = 0, slowest = 0;
  int batches = 0, runs = 0;  // runs of each batch
};

inline double secondsOf(Gpu& gpu, int runs, const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < runs; ++i) work();
  gpu.kernels().settle();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// After two runs to warm up, and one or two to see how many fill a batch.
inline Timing timed(Gpu& gpu, const Effort& effort, const std::function<void()>& work) {
  secondsOf(gpu, 2, work);
  const double seconds = secondsOf(gpu, 2, work) / 2;
  Timing timing;
  timing.batches = effort.batches;
  timing.runs = std::clamp(int(effort.batchSeconds / seconds), 1, 500);
  std::vector<double> times;
  for (int i = 0; i < effort.batches; ++i) times.push_back(1e3 * secondsOf(gpu, timing.runs, work) / timing.runs);
  std::sort(times.begin(), times.end());
  timing.fastest = times.front();
  timing.milliseconds = times[times.size() / 2];
  timing.slowest = times.back();
  return timing;
}

}  // namespace monosem::bench
