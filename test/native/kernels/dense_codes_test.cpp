// Kernels on codes that are dense enough for blocked products: all features, or a subset that is in use throughout.
#include <array>

#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

struct DenseCase {
  int64_t rows, dSae, width;
  double density;          // among the eligible features
  int64_t nth, clustered;  // eligible: every nth feature, and the last `clustered` ones; nth 1: all, without a subset
};

const DenseCase cases[] = {{1, 1, 1, 1.0, 1, 0},         {9, 50, 47, 0.07, 1, 0},   {800, 30, 49, 0.5, 1, 0},
                           {17, 1000, 97, 0.3, 1, 0},    {400, 450, 20, 0.9, 1, 0}, {30, 900, 33, 0.4, 7, 0},
                           {50, 2000, 64, 0.8, 40, 300}, {390, 60, 770, 0.6, 5, 3}, {13, 500, 48, 0.5, 499, 0},
                           {385, 385, 385, 0.2, 1, 0}};

struct Operands {
  PlainCodes plain;
  Codes codes;

  Operands(Random& random, const DenseCase& c, Allocator& allocator) {
    std::vector<uint32_t> eligible, positions(size_t(c.dSae), UINT32_MAX);
    for (int64_t f = 0; f < c.dSae; ++f) {
      if (f % c.nth != 0 && f < c.dSae - c.clustered) continue;
      positions[size_t(f)] = uint32_t(eligible.size());
      eligible.push_back(uint32_t(f));
    }
    plain = withSigns(random, randomCodes(random, c.rows, int64_t(eligible.size()), c.density, true));
    plain.dSae = c.dSae;
    for (uint32_t& feature : plain.features) feature = eligible[feature];
    codes = plain.onDevice(allocator);
    if (c.nth == 1) return;
    auto set = std::make_shared<FeatureSet>();
    set->dSae = c.dSae;
    set->count = int64_t(eligible.size());
    set->indices = PlainCodes::copy(allocator, eligible);
    set->position = PlainCodes::copy(allocator, positions);
    codes.subset = set;
  }
};

std::string name(const char* kernel, const DenseCase& c) {
  return std::string(kernel) + " " + std::to_string(c.rows) + "x" + std::to_string(c.dSae) + "x" +
         std::to_string(c.width) + " every " + std::to_string(c.nth);
}

PRODUCT_TEST("dense codes: decode", denseDecodeTests) {
  Random random(21);
  for (const DenseCase& c : cases) {
    const Operands o(random, c, test.allocator());
    const Floats decoder = random.normals(c.dSae * c.width), bias = random.normals(c.width),
                 target = random.normals(c.rows * c.width), perFeature = random.normals(c.dSae);
    for (const bool withBias : {false, true}) {
      const Floats* usedBias = withBias ? &bias : nullptr;
      const Floats decoded = test.floats(name("decode", c), [&](Kernels& kernels) {
        Floats out(size_t(c.rows * c.width), NAN);
        kernels.decode(o.codes, matrix(decoder, c.dSae), withBias ? view(bias) : Vector<const float>{},
                       matrix(target, c.rows), matrix(out, c.rows), nullptr);
        return out;
      });
      test.products(name("decode", c), decoded, reference::decode(o.plain, decoder, usedBias, &target, c.width),
                    reference::decodeTerms(o.plain, decoder, usedBias, &target, c.width), 1e-4);
    }
    for (const auto& [penalised, every] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const Floats* penalty = penalised ? &perFeature : nullptr;
      const Floats gradient =
          test.floats(name("decodeGradient", c), [&, penalised = penalised, every = every](Kernels& kernels) {
            Floats out(size_t(o.plain.entries()), NAN);
            kernels.decodeGradient(o.codes, matrix(decoder, c.dSae), matrix(target, c.rows), 0.5,
                                   penalised ? view(perFeature) : Vector<const float>{}, 0.25, every, out.data());
            return out;
          });
      test.products(name("decodeGradient", c), gradient,
                    reference::decodeGradient(o.plain, decoder, target, 0.5, penalty, 0.25, every, c.width),
                    reference::decodeGradientTerms(o.plain, decoder, target, 0.5, penalty, 0.25, every, c.width), 1e-4);
    }
  }
}

PRODUCT_TEST("dense codes: row gradient", denseRowGradientTests) {
  Random random(22);
  for (const DenseCase& c : cases) {
    const Operands o(random, c, test.allocator());
    const PlainCodes sparse = randomCodes(random, c.rows, c.dSae, 0.02, false);
    const Operands all(random, {c.rows, c.dSae, c.width, 0.5, 1, 0}, test.allocator());
    const Floats weights = random.normals(c.dSae * c.width), coefficients = random.normals(o.plain.entries()),
                 first = random.normals(c.rows * c.width), second = random.normals(c.rows * c.width);
    for (const int others : {0, 1, 2}) {  // alone; with a sparse term before it; with another dense term
      const Floats out = test.floats(name("row gradient", c), [&](Kernels& kernels) {
        Codes dense = o.codes, sparseCodes = sparse.onDevice(test.allocator()), allCodes = all.codes;
        RowGradient gradient;
        if (others == 1) gradient.terms.push_back({&sparseCodes, nullptr, matrix(second, c.rows), 2});
        gradient.terms.push_back({&dense, coefficients.data(), matrix(first, c.rows), 0.5});
        if (others == 2) gradient.terms.push_back({&allCodes, nullptr, matrix(second, c.rows), 1});
        Floats result(weights.size(), NAN);
        kernels.rowGradient(gradient, matrix(weights, c.dSae), matrix(result, c.dSae));
        return result;
      });
      std::vector<reference::Term> terms{{&o.plain, &coefficients, &first, 0.5}};
      if (others == 1) terms.push_back({&sparse, nullptr, &second, 2});
      if (others == 2) terms.push_back({&all.plain, nullptr, &second, 1});
      test.products(name("row gradient", c), out, reference::rowGradient(terms, nullptr, 0, {}, false, weights, c.dSae),
                    reference::rowGradientTerms(terms, weights, c.dSae), 2e-4);
    }
  }
}

KERNEL_TEST("dense codes: feature sums", denseFeatureSumsTests) {
  Random random(24);
  for (const DenseCase& c : cases) {
    const Operands o(random, c, test.allocator());
    const Floats coefficients = random.normals(o.plain.entries());
    const Floats sums = test.floats(name("featureSums", c), [&](Kernels& kernels) {
      Floats out(size_t(c.dSae), NAN);
      kernels.featureSums(o.codes, coefficients.data(), 0.5, view(out));
      return out;
    });
    test.close(name("featureSums", c), sums, reference::featureSums(o.plain, coefficients, 0.5), 1e-5);
  }
}

PRODUCT_TEST("linear: few rows and many", linearTests) {
  Random random(23);
  for (const auto& [rows, in, out] : std::initializer_list<std::array<int64_t, 3>>{{1, 1, 1},
                                                                                   {1, 192, 77},
                                                                                   {3, 50, 33},
                                                                                   {31, 65, 64},
                                                                                   {32, 7, 100},
                                                                                   {33, 7, 100},
                                                                                   {50, 770, 49},
                                                                                   {200, 64, 1000}})
    for (const bool plain : {false, true}) {
      const Floats x = random.normals(rows * in), weights = random.normals(out * in, 0.3f), bias = random.normals(out),
                   residual = random.normals(rows * out);
      const std::string what = "linear " + std::to_string(rows) + "x" + std::to_string(in) + "->" + std::to_string(out);
      const Floats absoluteX = reference::absolute(x), absoluteWeights = reference::absolute(weights);
      Doubles preActivations, terms;  // no activation makes an error larger by more than an eighth
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t f = 0; f < out; ++f) {
          preActivations.push_back(reference::dot(&x[size_t(r * in)], &weights[size_t(f * in)], in) +
                                   (plain ? 0 : double(bias[size_t(f)])));
          terms.push_back(
              reference::dot(&absoluteX[size_t(r * in)], &absoluteWeights[size_t(f * in)], in) +
              (plain ? 0 : std::fabs(double(bias[size_t(f)])) + std::fabs(double(residual[size_t(r * out + f)]))));
        }
      for (const Activation activation : {Activation::none, Activation::geluTanh, Activation::gelu, Activation::relu}) {
        Doubles expected;
        for (size_t i = 0; i < preActivations.size(); ++i)
          expected.push_back(reference::activation(preActivations[i], activation) + (plain ? 0 : double(residual[i])));
        test.products(what,
                      test.floats(what,
                                  [&](Kernels& kernels) {
                                    Floats result(size_t(rows * out), NAN);
                                    kernels.linear(matrix(x, rows), matrix(weights, out),
                                                   plain ? Vector<const float>{} : view(bias), activation,
                                                   plain ? Matrix<const float>{} : matrix(residual, rows), false,
                                                   matrix(result, rows));
                                    return result;
                                  }),
                      expected, terms, 5e-5);
      }
    }
}

}  // namespace
}  // namespace monosem::test
