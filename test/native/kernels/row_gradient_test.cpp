// The fused row pass: gradient, its norm, projection, clipping, Adam, renormalisation.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

struct Case {
  int64_t rows, dSae, width;
  double density;
  int terms;
  bool penalised, projected, clipped, unitNorm;
  std::vector<int64_t> blockWidths = {};
};

const Case cases[] = {
    {1, 1, 1, 1.0, 1, false, false, false, false},
    {3, 17, 5, 0.3, 1, false, true, false, true},
    {17, 100, 129, 0.03, 2, false, true, true, true},
    {33, 70, 768, 0.02, 1, true, false, true, false},
    {40, 65, 31, 0.5, 1, true, false, false, false},
    {64, 257, 100, 0.2, 2, false, true, true, true},
    {5, 64, 200, 0.0, 1, true, true, true, true},
    {21, 130, 48, 1.0, 1, false, false, true, false},
    {100, 33, 16, 0.2, 3, true, true, false, true},
    {9, 40, 300, 0.1, 0, true, false, false, false},
    {20, 50, 70, 0.03, 1, true, false, true, false, {1, 32, 37}},
    {4, 6, 2501, 0.5, 1, true, true, true, true},
    {20, 50, 70, 0.5, 1, true, true, false, false, {69, 1}},
    {7, 30, 5, 0.03, 1, true, false, false, false, {5}},
    {7, 30, 3, 0.03, 2, true, false, false, false, {1, 1, 1}},
};

std::string name(const char* kernel, const Case& c) {
  return std::string(kernel) + " " + std::to_string(c.rows) + "x" + std::to_string(c.dSae) + "x" +
         std::to_string(c.width) + ", " + std::to_string(c.terms) + " terms, density " + std::to_string(c.density);
}

// The operands of one case, on both sides.
struct Operands {
  Operands(Random& random, const Case& c, Allocator& allocator)
      : weights(random.normals(c.dSae * c.width, 0.1f)), rowCoefficients(random.normals(c.dSae)) {
    std::fill(weights.begin(), weights.begin() + c.width, 0.0f);  // a row of norm 0
    if (!c.blockWidths.empty())                                   // a block of norm 0 in a row that has a norm
      std::fill_n(weights.end() - c.width, c.blockWidths.front() % c.width, 0.0f);
    for (int term = 0; term < c.terms; ++term) {
      codes.push_back(randomCodes(random, c.rows, c.dSae, c.density, true));
      onDevice.push_back(codes.back().onDevice(allocator));
      coefficients.push_back(random.normals(codes.back().entries()));
      dense.push_back(random.normals(c.rows * c.width));
    }
    for (int i = 0; i < c.terms; ++i) {
      const bool values = i == 1;
      const size_t term = size_t(i);
      terms.push_back({&codes[term], values ? nullptr : &coefficients[term], &dense[term], 0.5 + i});
      gradient.terms.push_back({&onDevice[term], values ? nullptr : coefficients[term].data(),
                                matrix(static_cast<const Floats&>(dense[term]), c.rows), 0.5 + i});
    }
    if (c.penalised) {
      gradient.rowCoefficients = view(static_cast<const Floats&>(rowCoefficients));
      gradient.rowScale = 0.7;
    }
    gradient.blockWidths = c.blockWidths;
    gradient.projectOutRow = c.projected;
    expected = reference::rowGradient(terms, c.penalised ? &rowCoefficients : nullptr, 0.7, c.blockWidths, c.projected,
                                      weights, c.dSae);
  }

  Floats weights, rowCoefficients;
  std::vector<PlainCodes> codes;
  std::vector<Codes> onDevice;
  std::vector<Floats> coefficients, dense;
  std::vector<reference::Term> terms;
  RowGradient gradient;
  Doubles expected;
};

KERNEL_TEST("rowGradient", rowGradientTests) {
  Random random(4);
  for (const Case& c : cases) {
    const Operands operands(random, c, test.allocator());
    const Matrix<const float> weights = matrix(operands.weights, c.dSae);
    test.close(name("rowGradient", c),
               test.floats(name("rowGradient", c),
                           [&](Kernels& kernels) {
                             Floats out(operands.weights.size(), NAN);
                             kernels.rowGradient(operands.gradient, weights, matrix(out, c.dSae));
                             return out;
                           }),
               operands.expected, 3e-5);
    double squaredNorm = 2;
    for (const double g : operands.expected) squaredNorm += g * g;
    test.close(name("rowGradientSquaredNorm", c),
               test.number(name("rowGradientSquaredNorm", c),
                           [&](Kernels& kernels) {
                             double sum = 2;
                             kernels.rowGradientSquaredNorm(operands.gradient, weights, &sum);
                             return sum;
                           }),
               squaredNorm, 1e-5);
  }
}

KERNEL_TEST("stepRows", stepRowsTests) {
  Random random(5);
  for (const Case& c : cases) {
    const Operands operands(random, c, test.allocator());
    double squaredNorm = 0;
    for (const double g : operands.expected) squaredNorm += g * g;
    const double maxNorm = 0.5 * std::sqrt(squaredNorm);
    const Clip clip = c.clipped ? Clip{&squaredNorm, maxNorm} : Clip{};
    const double factor = c.clipped ? std::min(1.0, maxNorm / (std::sqrt(squaredNorm) + 1e-6)) : 1;
    const AdamStep adam{1e-2, 0.9, 0.999, 1e-8, 3};
    const Floats m0 = random.normals(c.dSae * c.width, 0.1f);
    Floats v0 = random.normals(c.dSae * c.width, 0.1f);
    for (float& v : v0) v = 0.01f + v * v;

    const Floats all = test.floats(name("stepRows", c), [&](Kernels& kernels) {
      Floats weights = operands.weights, m = m0, v = v0;
      kernels.stepRows(operands.gradient, matrix(weights, c.dSae), matrix(m, c.dSae), matrix(v, c.dSae), adam, clip,
                       c.unitNorm, {});
      weights.insert(weights.end(), m.begin(), m.end());
      weights.insert(weights.end(), v.begin(), v.end());
      return weights;
    });
    reference::AdamState expected{reference::toDoubles(operands.weights), reference::toDoubles(m0),
                                  reference::toDoubles(v0)};
    reference::adam(operands.expected, expected, adam, factor);
    if (c.unitNorm) reference::normaliseRows(expected.weights, c.width, 1);
    expected.weights.insert(expected.weights.end(), expected.m.begin(), expected.m.end());
    expected.weights.insert(expected.weights.end(), expected.v.begin(), expected.v.end());
    test.close(name("stepRows", c), all, expected.weights, 1e-5);
  }
}

// The norm may keep the gradient for the step, which must not show in the numbers.
KERNEL_TEST("stepRows after the norm", keptGradientTests) {
  Random random(14);
  bool anyKept = false;
  for (const Case& c : cases) {
    const Operands operands(random, c, test.allocator());
    const Matrix<const float> initial = matrix(operands.weights, c.dSae);
    const auto step = [&](Kernels& kernels, const Block& kept) {
      Floats weights = operands.weights, m(weights.size(), 0.0f), v(weights.size(), 0.0f);
      kernels.stepRows(operands.gradient, matrix(weights, c.dSae), matrix(m, c.dSae), matrix(v, c.dSae), {}, {}, false,
                       kept);
      weights.insert(weights.end(), m.begin(), m.end());
      return weights;
    };
    const auto normAndStep = [&](Kernels& kernels) {
      double squaredNorm = 0;
      const Block kept = kernels.rowGradientSquaredNorm(operands.gradient, initial, &squaredNorm);
      anyKept = anyKept || kept;
      return step(kernels, kept);
    };
    test.same(name("the same step after the norm", c), test.floats("stepRows after the norm", normAndStep),
              step(test.kernels(), {}));
  }
  test.check(anyKept, "some gradient is worth keeping");
}

KERNEL_TEST("stepVector", stepVectorTests) {
  Random random(6);
  for (const int64_t size : {1, 3, 17, 129, 5000}) {
    const Floats gradient = random.normals(size), weights0 = random.normals(size), m0 = random.normals(size);
    Floats v0 = random.normals(size);
    for (float& v : v0) v *= v;
    const AdamStep adam{1e-3, 0.9, 0.99, 1e-6, 1};
    const double squaredNorm = 100;
    const Floats out = test.floats("stepVector", [&](Kernels& kernels) {
      Floats weights = weights0, m = m0, v = v0;
      kernels.stepVector(view(gradient), view(weights), view(m), view(v), adam, {&squaredNorm, 1});
      weights.insert(weights.end(), m.begin(), m.end());
      weights.insert(weights.end(), v.begin(), v.end());
      return weights;
    });
    reference::AdamState expected{reference::toDoubles(weights0), reference::toDoubles(m0), reference::toDoubles(v0)};
    reference::adam(reference::toDoubles(gradient), expected, adam, 1 / (10 + 1e-6));
    expected.weights.insert(expected.weights.end(), expected.m.begin(), expected.m.end());
    expected.weights.insert(expected.weights.end(), expected.v.begin(), expected.v.end());
    test.close("stepVector " + std::to_string(size), out, expected.weights, 1e-5);
  }
}

// A gradient that is not finite must not reach the weights.
KERNEL_TEST("steps refuse a norm that is not finite", nonFiniteNormTests) {
  const Floats gradient = {1, 2, 3}, initial = {4, 5, 6};
  for (const double squaredNorm : {double(NAN), double(INFINITY)})
    for (const double maxNorm : {1.0, double(INFINITY)}) {
      Floats weights = initial, m = initial, v = initial;
      const Clip clip{&squaredNorm, maxNorm};
      test.throws("stepVector", ErrorCode::nonFinite,
                  [&] { test.kernels().stepVector(view(gradient), view(weights), view(m), view(v), {}, clip); });
      for (const bool kept : {false, true})
        test.throws("stepRows", ErrorCode::nonFinite, [&] {
          test.kernels().stepRows({}, matrix(weights, 1), matrix(m, 1), matrix(v, 1), {}, clip, true,
                                  kept ? PlainCodes::copy(test.allocator(), gradient) : Block());
        });
      test.check(weights == initial && m == initial && v == initial, "nothing is written");
    }
  const auto step = [&](const Clip& clip) {
    Floats weights = initial, m = initial, v = initial;
    test.kernels().stepVector(view(gradient), view(weights), view(m), view(v), {1, 0.9, 0.999, 1e-8, 1}, clip);
    return weights;
  };
  const double huge = 1e300, zero = 0;
  test.same("an infinite maxNorm does not clip", step({&huge, INFINITY}), step({}));
  test.same("nor does it where the norm is 0", step({&zero, INFINITY}), step({}));
}

// From zero moments and a zero gradient nothing moves, and 0 / 0 never appears.
KERNEL_TEST("stepRows without gradient", zeroGradientTests) {
  Floats weights = {1, 2, 3}, m = {0, 0, 0}, v = {0, 0, 0};
  test.kernels().stepRows({}, matrix(weights, 1), matrix(m, 1), matrix(v, 1), {}, {}, false, {});
  test.same("weights stay", weights, Floats{1, 2, 3});
  m = {0.1f, 0, 0};
  v = {0.01f, 0, 0};
  test.kernels().stepRows({}, matrix(weights, 1), matrix(m, 1), matrix(v, 1), {0.1, 0.9, 0.999, 1e-8, 100}, {}, false,
                          {});
  test.check(weights[0] < 1 && weights[1] == 2, "moments of a row without gradient still move it");
}

}  // namespace
}  // namespace monosem::test
