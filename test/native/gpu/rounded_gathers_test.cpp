// Row gradients in bfloat16: what is gathered for the entries is rounded once, and everything else is as exact as in
// float32.
#include "check.h"
#include "mirrored_kernels.h"
#include "reference.h"
#include "rounding_device.h"

namespace monosem::test {
namespace {

struct Case {
  int64_t rows, dSae, width;
  double density;
  bool busy;
  int terms;
};

// Sparse, so that no product makes the rows; with rows of packs and without, long ones, sums of chunks, many terms.
const Case cases[] = {
    {17, 100, 129, 0.03, false, 2}, {33, 70, 768, 0.02, false, 1}, {700, 90, 20, 0.001, true, 1},
    {700, 90, 7, 0.001, true, 2},   {1300, 4, 36, 0.001, true, 1}, {12, 9, 16388, 0.2, false, 1},
    {12, 9, 17001, 0.2, false, 1},  {12, 30, 24, 0.2, false, 6},   {40, 65, 32, 0.5, false, 1},
    {5, 64, 200, 0.0, false, 1},
};

KERNEL_TEST("bfloat16: row gradients", roundedGradientTests) {
  Random random(61);
  const std::unique_ptr<Kernels> kernels = makeMirroredKernels(openIn(cuda::Precision::bfloat16), test.allocator());
  for (const Case& c : cases) {
    const std::string name = "bfloat16 " + std::to_string(c.rows) + "x" + std::to_string(c.dSae) + "x" +
                             std::to_string(c.width) + ", " + std::to_string(c.terms) + " terms";
    const Floats weights = random.normals(c.dSae * c.width, 0.1f), rowCoefficients = random.normals(c.dSae);
    std::vector<PlainCodes> codes;
    std::vector<Codes> onDevice;
    std::vector<Floats> dense, roundedDense;
    for (int i = 0; i < c.terms; ++i) {
      codes.push_back(c.busy ? codesWithBusyFeatures(random, c.rows, c.dSae, c.density)
                             : randomCodes(random, c.rows, c.dSae, c.density, true));
      onDevice.push_back(codes.back().onDevice(test.allocator()));
      dense.push_back(random.normals(c.rows * c.width));
      roundedDense.push_back(rounded(dense.back()));
    }
    std::vector<reference::Term> terms;
    RowGradient gradient;
    for (size_t i = 0; i < codes.size(); ++i) {
      terms.push_back({&codes[i], nullptr, &roundedDense[i], 0.25});
      gradient.terms.push_back({&onDevice[i], nullptr, matrix(static_cast<const Floats&>(dense[i]), c.rows), 0.25});
    }
    gradient.rowCoefficients = view(rowCoefficients);
    gradient.rowScale = 0.7;
    gradient.projectOutRow = true;
    const Doubles expected = reference::rowGradient(terms, &rowCoefficients, 0.7, {}, true, weights, c.dSae);

    Floats out(weights.size(), NAN);
    kernels->rowGradient(gradient, matrix(weights, c.dSae), matrix(out, c.dSae));
    test.close(name + ": rows", out, expected, 1e-4);

    double squaredNorm = 0, expectedNorm = 0;
    for (const double g : expected) expectedNorm += g * g;
    const Block kept = kernels->rowGradientSquaredNorm(gradient, matrix(weights, c.dSae), &squaredNorm);
    test.close(name + ": norm", squaredNorm, expectedNorm, 1e-5);

    const Floats m0 = random.normals(c.dSae * c.width, 0.1f);
    const auto stepped = [&](const Block& keptRows) {
      Floats w = weights, m = m0, v(weights.size(), 0.1f);
      kernels->stepRows(gradient, matrix(w, c.dSae), matrix(m, c.dSae), matrix(v, c.dSae), {0.01}, {&expectedNorm, 2},
                        true, keptRows);
      w.insert(w.end(), m.begin(), m.end());
      return w;
    };
    const Floats direct = stepped({});
    if (kept) test.same(name + ": the step after the norm", stepped(kept), direct);
    reference::AdamState state{reference::toDoubles(weights), reference::toDoubles(m0), Doubles(weights.size(), 0.1f)};
    reference::adam(expected, state, {0.01}, std::min(1.0, 2 / (std::sqrt(expectedNorm) + 1e-6)));
    reference::normaliseRows(state.weights, c.width, 1);
    state.weights.insert(state.weights.end(), state.m.begin(), state.m.end());
    test.close(name + ": step", direct, state.weights, 1e-5);
  }
}

}  // namespace
}  // namespace monosem::test
