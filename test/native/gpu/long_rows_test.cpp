// Gradients whose rows are so long that they lie in device memory, and so many that one launch has not room for all.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

KERNEL_TEST("row gradients in several launches", longRowsTests) {
  constexpr int64_t rows = 5, dSae = 1100, width = 16400;
  constexpr int64_t inFirstLaunch = (int64_t(1) << 24) / width;
  Random random(62);
  const PlainCodes codes = randomCodes(random, rows, dSae, 0.3, true);
  const Codes onDevice = codes.onDevice(test.allocator());
  const Floats dense = random.normals(rows * width), weights(size_t(dSae * width), 0.5f);
  RowGradient gradient;
  gradient.terms.push_back({&onDevice, nullptr, matrix(dense, rows), 0.25});

  const Floats out = test.floats("long rows", [&](Kernels& kernels) {
    Floats result(weights.size(), NAN);
    kernels.rowGradient(gradient, matrix(weights, dSae), matrix(result, dSae));
    return result;
  });
  double norm = 0;
  for (const float value : out) norm += double(value) * double(value);
  const double squaredNorm = test.number("long rows: norm", [&](Kernels& kernels) {
    double sum = 0;
    kernels.rowGradientSquaredNorm(gradient, matrix(weights, dSae), &sum);
    return sum;
  });
  test.close("long rows: norm", squaredNorm, norm, 1e-5);
  const Floats stepped = test.floats("long rows: step", [&](Kernels& kernels) {
    Floats result = weights, m(weights.size(), 0.1f), v(weights.size(), 0.1f);
    kernels.stepRows(gradient, matrix(result, dSae), matrix(m, dSae), matrix(v, dSae), {0.01}, {&norm, 2}, true, {});
    return result;
  });

  // At both ends of the launches.
  for (const int64_t feature : {int64_t(0), inFirstLaunch - 1, inFirstLaunch, dSae - 1}) {
    const std::string name = "long rows: feature " + std::to_string(feature);
    Doubles expected(size_t(width), 0.0);
    for (int64_t e = 0; e < codes.entries(); ++e)
      for (int64_t column = 0; column < width && codes.features[size_t(e)] == feature; ++column)
        expected[size_t(column)] +=
            0.25 * double(codes.values[size_t(e)]) * double(dense[size_t(codes.rowOf(e) * width + column)]);
    const auto rowOf = [feature](const Floats& matrix) {
      return Floats(matrix.begin() + feature * width, matrix.begin() + (feature + 1) * width);
    };
    test.close(name, rowOf(out), expected, 1e-5);
    reference::AdamState state{Doubles(size_t(width), 0.5), Doubles(size_t(width), 0.1f), Doubles(size_t(width), 0.1f)};
    reference::adam(expected, state, {0.01}, std::min(1.0, 2 / (std::sqrt(norm) + 1e-6)));
    reference::normaliseRows(state.weights, width, 1);
    test.close(name + ": step", rowOf(stepped), state.weights, 1e-5);
  }
}

}  // namespace
}  // namespace monosem::test
