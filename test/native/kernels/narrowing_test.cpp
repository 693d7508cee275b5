// Codes cut down to their largest entries, and the running minimum of active values.
#include "check.h"
#include "data.h"

namespace monosem::test {
namespace {

PlainCodes plain(const Codes& codes) {
  PlainCodes out;
  out.rows = codes.rows;
  out.dSae = codes.dSae;
  out.offsets.assign(codes.offsets(), codes.offsets() + codes.rows + 1);
  out.features.assign(codes.feature(), codes.feature() + codes.entries);
  out.preActivations.assign(codes.preActivation(), codes.preActivation() + codes.entries);
  out.values.assign(codes.value(), codes.value() + codes.entries);
  return out;
}

PlainCodes largestOfRows(const PlainCodes& codes, int64_t k) {
  PlainCodes out;
  out.rows = codes.rows;
  out.dSae = codes.dSae;
  for (int64_t row = 0; row < codes.rows; ++row) {
    std::vector<size_t> entries;
    for (uint64_t e = codes.offsets[size_t(row)]; e < codes.offsets[size_t(row) + 1]; ++e) entries.push_back(size_t(e));
    std::stable_sort(entries.begin(), entries.end(),
                     [&](size_t a, size_t b) { return codes.preActivations[a] > codes.preActivations[b]; });
    entries.resize(std::min(entries.size(), size_t(k)));
    std::sort(entries.begin(), entries.end());
    for (const size_t e : entries) {
      out.features.push_back(codes.features[e]);
      out.preActivations.push_back(codes.preActivations[e]);
      out.values.push_back(codes.values[e]);
    }
    out.offsets.push_back(out.features.size());
  }
  return out;
}

KERNEL_TEST("selectTop", selectTopTests) {
  Random random(31);
  for (const auto& [rows, dSae, density] :
       {std::tuple<int64_t, int64_t, double>{1, 1, 1.0}, {0, 5, 1.0}, {7, 129, 0.3}, {40, 300, 0.9}, {9, 50, 0.0}})
    for (const bool inactive : {false, true})
      for (const int64_t k : {0, 1, 5, 37, 1000}) {
        PlainCodes codes = randomCodes(random, rows, dSae, density, inactive);
        for (int64_t e = 0; e < codes.entries(); e += 3)  // ties
          codes.preActivations[size_t(e)] = codes.values[size_t(e)] = 0.5f;
        const std::string name = "selectTop " + std::to_string(rows) + "x" + std::to_string(dSae) + " k " +
                                 std::to_string(k) + (inactive ? " with inactive entries" : "");
        const Codes onDevice = codes.onDevice(test.allocator());
        test.run<float>(name, [&](Kernels& kernels) { return plain(kernels.selectTop(onDevice, k)).values; });
        const PlainCodes narrowed = plain(test.kernels().selectTop(onDevice, k));
        const PlainCodes expected = largestOfRows(codes, k);
        test.same(name + ": offsets", narrowed.offsets, expected.offsets);
        test.same(name + ": features", narrowed.features, expected.features);
        test.same(name + ": pre-activations", narrowed.preActivations, expected.preActivations);
        test.same(name + ": values", narrowed.values, expected.values);
      }
  PlainCodes codes = randomCodes(random, 5, 20, 1, false);
  codes.preActivations[25] = NAN;
  test.throws("selectTop of NaN", ErrorCode::nonFinite,
              [&] { test.kernels().selectTop(codes.onDevice(test.allocator()), 3); });
}

KERNEL_TEST("updateRunningMinimum", runningMinimumTests) {
  Random random(32);
  Doubles state{0, 0}, expected{0, 0};
  Floats out(11, -1.0f);
  const auto update = [&](const PlainCodes& codes) {
    const Codes onDevice = codes.onDevice(test.allocator());
    test.kernels().updateRunningMinimum(onDevice, 0.9, {state.data(), 2}, view(out));
    double smallest = INFINITY;
    for (const float value : codes.values)
      if (value != 0) smallest = std::min(smallest, double(value));
    if (std::isinf(smallest)) return;
    expected[0] = 0.9 * expected[0] + (1 - 0.9) * smallest;
    expected[1] = 0.9 * expected[1] + (1 - 0.9);
  };
  update(randomCodes(random, 9, 33, 0, false));
  test.close("no entry: nothing happens", state, expected, 0);
  test.close("no entry: nothing is written", out, Doubles(11, -1.0), 0);
  PlainCodes inactive = randomCodes(random, 2, 33, 1, false);
  std::fill(inactive.values.begin(), inactive.values.end(), -0.0f);
  update(inactive);
  test.close("no active entry: nothing happens", state, expected, 0);
  for (const int64_t rows : {1, 2, 30}) {
    PlainCodes codes = randomCodes(random, rows, 33, 0.7, true);
    update(codes);
    test.close("running minimum", state, expected, 1e-15);
    test.close("running mean", out, Doubles(11, expected[0] / expected[1]), 1e-6);
    for (float& value : codes.values) value = -value;  // values may be negative
    update(codes);
    test.close("running minimum of signed values", state, expected, 1e-15);
    test.close("running mean of signed values", out, Doubles(11, expected[0] / expected[1]), 1e-6);
  }
  for (const float bad : {NAN, INFINITY}) {
    PlainCodes codes = randomCodes(random, 2, 33, 1, false);
    codes.values[17] = bad;
    test.throws("running minimum of a value that is not finite", ErrorCode::nonFinite, [&] { update(codes); });
  }
}

}  // namespace
}  // namespace monosem::test
