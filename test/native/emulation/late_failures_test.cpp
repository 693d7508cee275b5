// What is found when the call that caused it has returned: by kernels that are never waited for, and by a device that
// breaks.
#include "backends.h"
#include "cuda_host.h"
#include "encode_problem.h"

namespace monosem::test {
namespace {

KERNEL_TEST("late: what a failed encode leaves", poisonedCodesTests) {
  Random random(91);
  for (const auto& [rows, dSae, k, byMagnitude] :
       {std::tuple{9, 700, 5, false}, {9, 700, 5, true}, {1, 40000, 60, false}, {40, 33, 33, false}}) {
    Problem problem(random, rows, dSae, 20);
    problem.x[size_t((rows - 1) * 20 + 7)] = NAN;
    Selection selection;
    selection.select = Select::topk;
    selection.k = k;
    selection.byMagnitude = byMagnitude;
    const std::string name = problem.name("poisoned", k);
    const Codes codes = problem.encode(test.kernels(), selection);
    bool exist = true, allNan = true;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t e = row * k; e < (row + 1) * k; ++e) {
        exist = exist && codes.feature()[e] < uint32_t(dSae) &&
                (e == row * k || codes.feature()[e] > codes.feature()[e - 1]);
        allNan = allNan && std::isnan(codes.preActivation()[e]) && std::isnan(codes.value()[e]);
      }
    test.check(exist, name + ": its features exist, and ascend");
    test.check(allNan, name + ": its values are NaN");
    std::vector<double> sinceFired(size_t(dSae), 7);
    test.kernels().updateTokensSinceFired(codes, rows, {sinceFired.data(), dSae});
    test.same(name + ": no feature counts as having fired, or not", sinceFired, std::vector<double>(size_t(dSae), 7));
    try {
      test.kernels().settle();
      test.check(false, name + ": a late error");
    } catch (const LateError& error) {
      const std::string message = error.what();
      test.check(error.code() == ErrorCode::nonFinite &&
                     message.find("x holds NaN or infinity, first in row " + std::to_string(rows - 1)) == 0,
                 name + ": " + message);
      test.check(error.call() > 0 && error.call() < test.kernels().calls(), name + ": the number of the call");
    }
    test.kernels().settle();  // told once
  }
}

KERNEL_TEST("late: a device that is lost", lostDeviceTests) {
  Random random(92);
  const Problem problem(random, 6, 200, 12);
  std::vector<float> out(200);
  const auto isLost = [&](const std::string& what, const std::function<void()>& work) {
    try {
      work();
      test.check(false, what + ": an error");
    } catch (const EngineError& error) {
      const std::string message = error.what();
      test.check(error.code() == ErrorCode::deviceLost && message.find("cudaErrorIllegalAddress") != std::string::npos,
                 what + ": " + message);
    }
  };
  for (const int launches : {1, 2, 4}) {
    cuda_host::breakAfter(launches);
    isLost("the kernel in which it breaks", [&] { problem.encode(test.kernels(), Select::topk, 5); });
    isLost("another kernel", [&] { test.kernels().fill({out.data(), 200}, 1); });
    isLost("a barrier", [&] { test.kernels().settle(); });
    isLost("opening it once more", [&] { backends().front().make(test.allocator()); });
    cuda_host::breakAfter(-1);
    test.kernels().fill({out.data(), 200}, 1);  // the emulation can mend a device
    test.kernels().settle();
  }
}

}  // namespace
}  // namespace monosem::test
