// The thread pool and the choice of an instruction set.
#include <atomic>
#include <cstdlib>
#include <numeric>

#include "check.h"
#include "cpu/cpu_backend.h"
#include "cpu/thread_pool.h"

namespace monosem::test {
namespace {

KERNEL_TEST("thread pool", threadPoolTests) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    test.check(pool.threads() == threads, "threads");
    for (const int64_t count : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
      std::atomic<bool> known{true};
      pool.forEach(count, [&](int64_t item, int thread) {
        ++visits[size_t(item)];
        if (thread < 0 || thread >= threads) known = false;
      });
      test.check(known && std::all_of(visits.begin(), visits.end(), [](const auto& n) { return n == 1; }),
                 "every item once");
    }
    std::atomic<int64_t> covered{0};
    pool.forEachRange(1001, 10, [&](int64_t begin, int64_t end, int) { covered += end - begin; });
    test.check(covered == 1001, "ranges cover everything");
    for (int again = 0; again < 3; ++again) {
      bool caught = false;
      try {
        pool.forEach(100, [](int64_t item, int) {
          if (item == 57) throw EngineError(ErrorCode::internal, "item 57");
        });
      } catch (const EngineError& error) {
        caught = std::string(error.what()) == "item 57";
      }
      test.check(caught, "an exception reaches the caller, and the pool works on");
    }
    std::atomic<int> loops{0};
    for (int loop = 0; loop < 2000; ++loop) pool.forEach(3, [&](int64_t, int) { ++loops; });
    test.check(loops == 6000, "many short loops");
  }
}

KERNEL_TEST("instruction sets", instructionSetTests) {
  const std::vector<std::string> sets = availableInstructionSets();
  test.check(!sets.empty() && sets.back() == "baseline", "baseline is always there");
  test.check(makeCpuKernels(test.allocator(), 2, test.backend())->description() == test.backend() + ", 2 threads",
             "description");
  setenv("MONOSEM_ISA", test.backend().c_str(), 1);
  test.check(makeCpuKernels(test.allocator(), 1)->description() == test.backend() + ", 1 thread",
             "MONOSEM_ISA chooses");
  setenv("MONOSEM_ISA", "sse9", 1);
  test.throws("an unknown instruction set", ErrorCode::unsupported, [&] { makeCpuKernels(test.allocator(), 1); });
  try {
    makeCpuKernels(test.allocator(), 1);
  } catch (const EngineError& error) {
    const std::string message = error.what();
    test.check(message.find("sse9") != std::string::npos && message.find("baseline") != std::string::npos,
               "the error names the wanted and the available ones");
  }
  unsetenv("MONOSEM_ISA");
  test.check(makeCpuKernels(test.allocator(), 1)->description() == sets.front() + ", 1 thread", "the best by default");
}

}  // namespace
}  // namespace monosem::test
