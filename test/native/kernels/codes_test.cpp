// Kernels on codes: decoder, its gradient, sums and counts per feature, dead latents.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

struct Shape {
  int64_t rows, dSae, dIn;
  double density;
};

// Odd sizes around every vector width and block, and codes from empty to full, with too few entries to be dense.
const Shape shapes[] = {{1, 1, 1, 1.0},       {3, 17, 5, 0.3},    {7, 129, 33, 0.02},   {17, 100, 129, 0.03},
                        {33, 300, 768, 0.01}, {5, 64, 200, 0.0},  {40, 65, 31, 0.5},    {64, 257, 100, 0.2},
                        {21, 130, 48, 1.0},   {100, 33, 16, 0.2}, {130, 513, 192, 0.04}};

std::string name(const char* kernel, const Shape& s) {
  return std::string(kernel) + " " + std::to_string(s.rows) + "x" + std::to_string(s.dSae) + "x" +
         std::to_string(s.dIn) + " density " + std::to_string(s.density);
}

PRODUCT_TEST("decode", decodeTests) {
  Random random(1);
  for (const Shape& s : shapes)
    for (int variant = 0; variant < 4; ++variant) {
      const bool withBias = variant & 1, withTarget = variant & 2;
      const PlainCodes codes = randomCodes(random, s.rows, s.dSae, s.density, withBias);
      const Floats decoder = random.normals(s.dSae * s.dIn), bias = random.normals(s.dIn),
                   target = random.normals(s.rows * s.dIn);
      const Codes onDevice = codes.onDevice(test.allocator());
      const auto decode = [&](Kernels& kernels, double* squaredError) {
        Floats out(size_t(s.rows * s.dIn), NAN);
        kernels.decode(onDevice, matrix(decoder, s.dSae), withBias ? view(bias) : Vector<const float>{},
                       withTarget ? matrix(target, s.rows) : Matrix<const float>{}, matrix(out, s.rows), squaredError);
        return out;
      };
      const Floats *usedBias = withBias ? &bias : nullptr, *usedTarget = withTarget ? &target : nullptr;
      const Floats out = test.floats(name("decode", s), [&](Kernels& kernels) { return decode(kernels, nullptr); });
      test.products(name("decode", s), out, reference::decode(codes, decoder, usedBias, usedTarget, s.dIn),
                    reference::decodeTerms(codes, decoder, usedBias, usedTarget, s.dIn), 2e-5);

      const double squaredError = test.number(name("squared error", s), [&](Kernels& kernels) {
        double sum = 3;
        decode(kernels, &sum);
        return sum;
      });
      double sum = 3;
      for (const float value : out) sum += double(value) * double(value);
      test.close(name("squared error", s), squaredError, sum, 1e-12);
    }
}

PRODUCT_TEST("decodeGradient", decodeGradientTests) {
  Random random(2);
  for (const Shape& s : shapes)
    for (const auto& [penalised, every] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const PlainCodes codes = withSigns(random, randomCodes(random, s.rows, s.dSae, s.density, !penalised || every));
      const Floats decoder = random.normals(s.dSae * s.dIn), dOutput = random.normals(s.rows * s.dIn),
                   perFeature = random.normals(s.dSae);
      const Codes onDevice = codes.onDevice(test.allocator());
      const Floats out =
          test.floats(name("decodeGradient", s), [&, penalised = penalised, every = every](Kernels& kernels) {
            Floats result(size_t(codes.entries()), NAN);
            kernels.decodeGradient(onDevice, matrix(decoder, s.dSae), matrix(dOutput, s.rows), 0.5,
                                   penalised ? view(perFeature) : Vector<const float>{}, 0.25, every, result.data());
            return result;
          });
      const Floats* penalty = penalised ? &perFeature : nullptr;
      test.products(name("decodeGradient", s), out,
                    reference::decodeGradient(codes, decoder, dOutput, 0.5, penalty, 0.25, every, s.dIn),
                    reference::decodeGradientTerms(codes, decoder, dOutput, 0.5, penalty, 0.25, every, s.dIn), 3e-5);
    }
}

KERNEL_TEST("features", featureTests) {
  Random random(3);
  for (const Shape& s : shapes) {
    const PlainCodes codes = withSigns(random, randomCodes(random, s.rows, s.dSae, s.density, true));
    const Floats coefficients = random.normals(codes.entries());
    const Codes onDevice = codes.onDevice(test.allocator());
    const auto perFeature = [&](const char* kernel, const std::function<void(Kernels&, Vector<float>)>& compute) {
      return test.floats(name(kernel, s), [&](Kernels& kernels) {
        Floats out(size_t(s.dSae), NAN);
        compute(kernels, view(out));
        return out;
      });
    };
    test.close(name("featureSums", s),
               perFeature("featureSums",
                          [&](Kernels& kernels, Vector<float> out) {
                            kernels.featureSums(onDevice, coefficients.data(), 0.5, out);
                          }),
               reference::featureSums(codes, coefficients, 0.5), 1e-5);
    test.close(name("featureSums of values", s),
               perFeature("featureSums of values",
                          [&](Kernels& kernels, Vector<float> out) { kernels.featureSums(onDevice, nullptr, 2, out); }),
               reference::featureSums(codes, codes.values, 2), 1e-5);
    test.close(
        name("featureCounts", s),
        perFeature("featureCounts", [&](Kernels& kernels, Vector<float> out) { kernels.featureCounts(onDevice, out); }),
        reference::featureCounts(codes), 0);
    test.close(name("densify", s),
               test.floats(name("densify", s),
                           [&](Kernels& kernels) {
                             Floats out(size_t(s.rows * s.dSae), NAN);
                             kernels.densify(onDevice, matrix(out, s.rows));
                             return out;
                           }),
               reference::densify(codes), 0);

    Doubles since(size_t(s.dSae), 5.0);
    test.kernels().updateTokensSinceFired(onDevice, 7, {since.data(), s.dSae});
    const Doubles counts = reference::featureCounts(codes);
    Doubles expected;
    std::vector<uint32_t> dead;
    for (int64_t f = 0; f < s.dSae; ++f) {
      expected.push_back(counts[size_t(f)] > 0 ? 0 : 12);
      if (counts[size_t(f)] == 0) dead.push_back(uint32_t(f));
    }
    test.close(name("updateTokensSinceFired", s), since, expected, 0);
    const std::shared_ptr<const FeatureSet> set = test.kernels().featuresNotFiredFor({since.data(), s.dSae}, 12);
    test.check(set->dSae == s.dSae && set->count == int64_t(dead.size()), name("featuresNotFiredFor: sizes", s));
    test.same(name("featuresNotFiredFor: features", s),
              std::vector<uint32_t>(set->view().data, set->view().data + set->count), dead);
    bool inverse = true;
    for (uint32_t f = 0; f < uint32_t(s.dSae); ++f) {
      const uint32_t position = set->position.as<const uint32_t>()[f];
      inverse = inverse && (counts[f] == 0 ? position < dead.size() && dead[position] == f : position == UINT32_MAX);
    }
    test.check(inverse, name("featuresNotFiredFor: positions", s));
  }
}

}  // namespace
}  // namespace monosem::test
