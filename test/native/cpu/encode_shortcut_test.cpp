// Instruction sets with a shortcut to exact selections must give the bits of the others.
#include <array>

#include "cpu/cpu_backend.h"
#include "encode_problem.h"

namespace monosem::test {
namespace {

Selection selectionOf(Select select, int64_t k = 0) {
  Selection selection;
  selection.select = select;
  selection.k = k;
  return selection;
}

// Large enough that an instruction set with a shortcut takes it. Scores are chains of fused multiply-adds everywhere
// but on the baseline, so that any other instruction set gives the same bits the long way.
class Shortcut {
 public:
  explicit Shortcut(Test& test) : test_(test) {
    const std::vector<std::string> sets = availableInstructionSets();
    if (test.backend() == "baseline" || std::count(sets.begin(), sets.end(), "avx2") == 0)
      test.check(true, "nothing to compare with");
    else
      other_ = makeCpuKernels(test.allocator(), 2, "avx2");
  }

  explicit operator bool() const { return bool(other_); }

  void agrees(const Problem& problem, const std::string& data, const Selection& selection) {
    const std::string name = problem.name(data.c_str(), selection.k);
    test_.check(bits(encodeOnAll(test_, problem, name, selection)) == bits(problem.encode(*other_, selection)),
                name + ": the same bits as without");
  }

  // Gaussian data, and data that puts the bounds to the test.
  void agreesOnEverything(int64_t rows, int64_t dSae, int64_t dIn, uint64_t seed, const Selection& selection) {
    Random random(seed);
    const auto fresh = [&] { return Problem(random, rows, dSae, dIn); };
    Problem problem = fresh();
    agrees(problem, "Gaussian", selection);
    problem.subset = everyNth(test_.allocator(), dSae, 1, 0);
    agrees(problem, "Gaussian", selection);

    problem = fresh();  // x is made of a few rows of the encoder, whose norms differ
    for (int64_t f = 0; f < dSae; ++f)
      for (int64_t i = 0; i < dIn; ++i) problem.encoder[size_t(f * dIn + i)] *= float(1 + f % 5);
    for (int64_t row = 0; row < rows; ++row)
      for (int used = 0; used < 20; ++used) {
        const int64_t feature = random.below(dSae);
        for (int64_t i = 0; i < dIn; ++i)
          problem.x[size_t(row * dIn + i)] += problem.encoder[size_t(feature * dIn + i)];
      }
    agrees(problem, "features", selection);

    problem = fresh();  // a few dimensions dwarf the others, as in a residual stream: wide bounds, many candidates
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 3; i < dIn; i += 29) problem.x[size_t(row * dIn + i)] += row % 3 ? 300.0f : 3.0f;
    agrees(problem, "outliers", selection);

    problem = fresh();  // every feature many times over: ties straddle every cut
    for (size_t i = 0; i < problem.encoder.size(); ++i) problem.encoder[i] = problem.encoder[i % size_t(7 * dIn)];
    for (size_t f = 0; f < problem.bias.size(); ++f) problem.bias[f] = problem.bias[f % 7];
    agrees(problem, "duplicated features", selection);

    problem = fresh();
    for (float& value : problem.x) value = float(random.below(5) - 2);
    for (float& value : problem.encoder) value = float(random.below(3) - 1);
    for (float& value : problem.bias) value = 0;
    std::fill_n(problem.x.begin(), dIn, 0.0f);  // a row of zeros: all scores are equal
    agrees(problem, "small integers", selection);

    problem = fresh();  // far apart in size: tiny x against a large bias, and numbers next to the smallest normal one
    for (size_t i = 0; i < problem.x.size(); ++i) problem.x[i] *= i % 2 ? 1e-6f : 1e-37f;
    for (float& value : problem.bias) value = 1000 + 1e-4f * random.normal();
    agrees(problem, "large bias", selection);
    for (float& value : problem.bias) value = 0;  // scores next to zero, of either sign
    agrees(problem, "tiny x", selection);
  }

 private:
  Test& test_;
  std::unique_ptr<Kernels> other_;
};

KERNEL_TEST("encode top k by shortcut", topKShortcutTests) {
  Shortcut shortcut(test);
  if (!shortcut) return;
  for (const auto& [rows, dSae, dIn, k] :
       {std::array<int64_t, 4>{65, 2048, 64, 1}, std::array<int64_t, 4>{65, 2048, 64, 32},
        std::array<int64_t, 4>{65, 2048, 64, 70}, std::array<int64_t, 4>{100, 3001, 131, 32},
        std::array<int64_t, 4>{71, 2500, 768, 70}})
    shortcut.agreesOnEverything(rows, dSae, dIn, uint64_t(k), selectionOf(Select::topk, k));
}

KERNEL_TEST("encode above by shortcut", aboveShortcutTests) {
  Shortcut shortcut(test);
  if (!shortcut) return;
  for (const auto& [rows, dSae, dIn] : {std::array<int64_t, 3>{65, 1024, 64}, std::array<int64_t, 3>{100, 1501, 131},
                                        std::array<int64_t, 3>{71, 1200, 768}}) {
    const float deviation = std::sqrt(float(dIn));  // of a score of Gaussian data
    for (const auto& [quantile, margin] : {std::array<float, 2>{1.0f, 0.0f}, std::array<float, 2>{2.5f, 0.1f}}) {
      Selection selection = selectionOf(Select::above);
      Floats thresholds(size_t(dSae), deviation * quantile);
      for (size_t f = 0; f < thresholds.size(); f += 3) thresholds[f] *= 1.1f;
      thresholds[7] = INFINITY;
      thresholds[8] = -INFINITY;
      selection.thresholds = {thresholds.data(), dSae};
      selection.margin = double(margin * deviation);
      shortcut.agreesOnEverything(rows, dSae, dIn, uint64_t(10 * quantile), selection);
    }
    Floats zeros(size_t(dSae), 0.0f);
    Selection selection = selectionOf(Select::above);
    selection.thresholds = {zeros.data(), dSae};
    shortcut.agreesOnEverything(rows, dSae, dIn, 5, selection);
  }
}

KERNEL_TEST("encode positive by shortcut", positiveShortcutTests) {
  Shortcut shortcut(test);
  if (!shortcut) return;
  Random random(41);
  for (const auto& [rows, dSae, dIn] : {std::array<int64_t, 3>{65, 1024, 64}, std::array<int64_t, 3>{100, 1501, 131},
                                        std::array<int64_t, 3>{2200, 1030, 70}})
    for (const float quantile : {0.0f, 1.5f, 2.0f, 3.0f}) {
      Problem problem(random, rows, dSae, dIn);
      for (float& bias : problem.bias) bias -= quantile * std::sqrt(float(dIn));
      shortcut.agrees(problem, "quantile " + std::to_string(quantile), selectionOf(Select::positive));
      // dense rows between sparse ones: what is found for them together decides whether the shortcut is taken
      for (int64_t row = 0; row < rows; row += 40)
        for (int64_t i = 0; i < dIn; ++i) problem.x[size_t(row * dIn + i)] *= 30;
      shortcut.agrees(problem, "uneven, quantile " + std::to_string(quantile), selectionOf(Select::positive));
    }
}

KERNEL_TEST("encode batch top k by shortcut", batchShortcutTests) {
  Shortcut shortcut(test);
  if (!shortcut) return;
  for (const auto& [rows, dSae, dIn] : {std::array<int64_t, 3>{65, 1024, 64}, std::array<int64_t, 3>{530, 1501, 67}})
    for (const int64_t perRow : {1, 20, 300})
      shortcut.agreesOnEverything(rows, dSae, dIn, uint64_t(perRow), selectionOf(Select::batchtopk, rows * perRow));
}

KERNEL_TEST("encode refuses by shortcut", refusalShortcutTests) {
  Random random(42);
  const Problem good(random, 600, 2500, 64);
  const Floats thresholds(2500, 20.0f);
  const auto refuses = [&](const Problem& problem, const std::string& place) {
    for (const Select select : {Select::positive, Select::topk, Select::batchtopk, Select::above}) try {
        Selection selection = selectionOf(select, 3);
        selection.thresholds = {thresholds.data(), 2500};
        problem.encode(test.kernels(), selection);
        test.check(false, "refuses what is not finite");
      } catch (const EngineError& error) {
        test.check(error.code() == ErrorCode::nonFinite && std::string(error.what()).find(place) != std::string::npos,
                   std::string("names the place: ") + error.what());
      }
  };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Problem problem = good;
    problem.encoder[2401 * 64 + 5] = bad;
    refuses(problem, "encoder holds NaN or infinity, first in row 2401");
    for (const size_t row : {77, 299, 300, 301, 302, 303, 304, 599}) problem.x[row * 64 + 63] = bad;
    refuses(problem, "x holds NaN or infinity, first in row 77");
  }
  Problem huge = good;
  for (int64_t i = 0; i < 64; ++i) huge.x[size_t(70 * 64 + i)] = 1e30f;
  for (float& value : huge.encoder) value *= 1e20f;
  refuses(huge, "pre-activations of row 70");
}

}  // namespace
}  // namespace monosem::test
