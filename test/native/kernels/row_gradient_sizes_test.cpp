// Row gradients at sizes that the row passes treat differently: features with many entries, rows that are long, many
// terms and many blocks of columns, codes whose products are made in several parts.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

struct SizeCase {
  int64_t rows, dSae, width;
  double density;
  bool busy;
  int terms;
  std::vector<int64_t> blockWidths;
};

const SizeCase sizeCases[] = {
    // On CUDA the shared memory of a row's step, and of its norm, that a block has without being allowed more, but for
    // what kernels have of static shared memory. First: longer rows let the kernels have more from then on.
    {12, 9, 11264, 0.2, false, 1, {}},
    {12, 9, 12032, 0.2, false, 1, {}},
    {700, 90, 20, 0.01, true, 1, {}},
    {129, 40, 7, 0.001, true, 2, {}},
    {128, 40, 7, 0.001, true, 2, {}},
    {1300, 4, 36, 0.001, true, 1, {20, 16}},
    {12, 9, 16388, 0.2, false, 1, {8000, 8388}},
    {12, 9, 17001, 0.2, false, 2, {8000, 1, 9000}},
    {12, 9, 16384, 0.2, false, 1, {}},
    {12, 30, 24, 0.2, false, 6, {4, 4, 4, 4, 4, 4}},
    {12, 30, 25, 0.2, false, 6, {4, 4, 4, 4, 4, 5}},
    {12, 30, 1030, 0.2, false, 1, {}},
    {12, 30, 1032, 0.2, false, 1, {}},
};

KERNEL_TEST("row gradients of all sizes", rowSizesTests) {
  Random random(44);
  for (const SizeCase& c : sizeCases) {
    const std::string what =
        "sizes " + std::to_string(c.rows) + "x" + std::to_string(c.dSae) + "x" + std::to_string(c.width);
    const Floats weights = random.normals(c.dSae * c.width), rowCoefficients = random.normals(c.dSae);
    std::vector<PlainCodes> codes;
    std::vector<Codes> onDevice;
    std::vector<Floats> dense;
    for (int i = 0; i < c.terms; ++i) {
      codes.push_back(c.busy ? codesWithBusyFeatures(random, c.rows, c.dSae, c.density)
                             : randomCodes(random, c.rows, c.dSae, c.density, true));
      onDevice.push_back(codes.back().onDevice(test.allocator()));
      dense.push_back(random.normals(c.rows * c.width));
    }
    std::vector<reference::Term> terms;
    RowGradient gradient;
    for (int i = 0; i < c.terms; ++i) {
      terms.push_back({&codes[size_t(i)], nullptr, &dense[size_t(i)], 0.25});
      gradient.terms.push_back(
          {&onDevice[size_t(i)], nullptr, matrix(static_cast<const Floats&>(dense[size_t(i)]), c.rows), 0.25});
    }
    gradient.rowCoefficients = view(rowCoefficients);
    gradient.rowScale = 0.7;
    gradient.blockWidths = c.blockWidths;
    gradient.projectOutRow = true;
    const Doubles expected = reference::rowGradient(terms, &rowCoefficients, 0.7, c.blockWidths, true, weights, c.dSae);
    test.close(what,
               test.floats(what,
                           [&](Kernels& kernels) {
                             Floats out(weights.size(), NAN);
                             kernels.rowGradient(gradient, matrix(weights, c.dSae), matrix(out, c.dSae));
                             return out;
                           }),
               expected, 3e-4);
    double squaredNorm = 0;
    for (const double g : expected) squaredNorm += g * g;
    const auto step = [&](Kernels& kernels, const Block& kept) {
      Floats w = weights, m(w.size(), 0.1f), v(w.size(), 0.1f);
      kernels.stepRows(gradient, matrix(w, c.dSae), matrix(m, c.dSae), matrix(v, c.dSae), {0.01}, {&squaredNorm, 2},
                       true, kept);
      w.insert(w.end(), m.begin(), m.end());
      w.insert(w.end(), v.begin(), v.end());
      return w;
    };
    const Floats direct = test.floats(what + " step", [&](Kernels& kernels) { return step(kernels, {}); });
    test.same(what + " kept", direct, test.floats(what + " norm and step", [&](Kernels& kernels) {
      double norm = 0;
      const Block kept = kernels.rowGradientSquaredNorm(gradient, matrix(weights, c.dSae), &norm);
      return step(kernels, kept);
    }));
    reference::AdamState state{reference::toDoubles(weights), Doubles(weights.size(), 0.1f),
                               Doubles(weights.size(), 0.1f)};
    reference::adam(expected, state, {0.01}, std::min(1.0, 2 / (std::sqrt(squaredNorm) + 1e-6)));
    reference::normaliseRows(state.weights, c.width, 1);
    state.weights.insert(state.weights.end(), state.m.begin(), state.m.end());
    state.weights.insert(state.weights.end(), state.v.begin(), state.v.end());
    test.close(what + " step", direct, state.weights, 1e-5);
  }
}

}  // namespace
}  // namespace monosem::test
