// What the garbage collector is told about the memory behind handles, so that it looks for dropped ones in time.
//
// Telling it of every handle would start a collection in every training step, in which hundreds of megabytes come and
// go through handles that are disposed of properly. So it is told only when the total has grown by half, or shrunk
// below it: a steady rise and fall is reported once, while dropped handles add up until they are noticed.
#pragma once

#include <napi.h>

#include <algorithm>
#include <cstdint>

namespace monosem {

class ExternalMemory {
 public:
  void change(Napi::BasicEnv env, int64_t bytes) {
    live_ += bytes;
    const int64_t slack = std::max(kSmallestReport, reported_ / 2);
    if (live_ > reported_ + slack || live_ + slack < reported_) {
      Napi::MemoryManagement::AdjustExternalMemory(env, live_ - reported_);
      reported_ = live_;
    }
  }

 private:
  static constexpr int64_t kSmallestReport = int64_t(32) << 20;
  int64_t live_ = 0;      // bytes behind the handles of this environment
  int64_t reported_ = 0;  // what the collector believes
};

}  // namespace monosem
