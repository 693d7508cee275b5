// The algebra of entries: products, powers, windows, ranges of features, and what derived codes share.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

struct Shape {
  int64_t rows, dSae;
  double density;
};

// Odd sizes, none at all, and more entries than one item of work.
const Shape shapes[] = {{1, 1, 1.0},    {0, 5, 0.5},   {5, 64, 0.0},   {3, 17, 0.3},
                        {7, 129, 0.02}, {40, 65, 0.5}, {21, 130, 1.0}, {300, 513, 0.3}};

std::string name(const char* kernel, const Shape& s) {
  return std::string(kernel) + " " + std::to_string(s.rows) + "x" + std::to_string(s.dSae) + " density " +
         std::to_string(s.density);
}

const float* dataOf(const Floats* values) {
  return values ? values->data() : nullptr;
}

KERNEL_TEST("entryProduct", entryProductTests) {
  Random random(41);
  for (const Shape& s : shapes) {
    const PlainCodes codes = randomCodes(random, s.rows, s.dSae, s.density, true);
    const Codes onDevice = codes.onDevice(test.allocator());
    const Floats a = random.normals(codes.entries()), b = random.normals(codes.entries()),
                 plus = random.normals(codes.entries()), perFeature = random.normals(s.dSae);
    for (int present = 0; present < 16; ++present) {
      const reference::Product product{present & 1 ? &a : nullptr, present & 2 ? &b : nullptr,
                                       present & 4 ? &perFeature : nullptr, present == 15 ? 1.0 : -0.7,
                                       present & 8 ? &plus : nullptr};
      test.close(name("entryProduct", s),
                 test.floats(name("entryProduct", s),
                             [&](Kernels& kernels) {
                               Floats out(a.size(), NAN);
                               kernels.entryProduct(onDevice,
                                                    {dataOf(product.a), dataOf(product.b),
                                                     product.perFeature ? view(perFeature) : Vector<const float>{},
                                                     product.scale, dataOf(product.plus)},
                                                    out.data());
                               return out;
                             }),
                 reference::entryProduct(codes, product), 1e-6);
    }
  }
  const PlainCodes codes = randomCodes(random, 1, 3, 1, false);
  const Floats a = {0, NAN, 2}, b = {INFINITY, 1, 3};
  Floats out(3);
  test.kernels().entryProduct(codes.onDevice(test.allocator()), {a.data(), b.data(), {}, 1, nullptr}, out.data());
  test.close("0 times infinity, and NaN, show", out, {NAN, NAN, 6}, 0);
}

KERNEL_TEST("power", powerTests) {
  Random random(42);
  Floats x = {0, -0.0f, 1, -1, 1e-6f, 1e6f, NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 40000; ++i) x.push_back(random.normal());
  for (const double exponent : {1.0, 0.5, 0.2, 2.0, -0.5, 0.0}) {
    const std::string what = "power " + std::to_string(exponent);
    Doubles expected;
    for (const float value : x) expected.push_back(reference::power(double(value), double(float(exponent))));
    test.close(what,
               test.floats(what,
                           [&](Kernels& kernels) {
                             Floats out(x.size(), NAN);
                             kernels.power(view(static_cast<const Floats&>(x)), exponent, view(out));
                             return out;
                           }),
               expected, 2e-7);
  }
}

KERNEL_TEST("windowSums", windowSumsTests) {
  Random random(43);
  for (const Shape& s : shapes) {
    const PlainCodes codes = randomCodes(random, s.rows, s.dSae, s.density, true);
    const Codes onDevice = codes.onDevice(test.allocator());
    const Floats coefficients = random.normals(codes.entries()), thresholds = random.normals(s.dSae);
    for (const bool counting : {false, true})
      for (const double bandwidth : {0.0, 0.3, 4.0})
        test.close(name("windowSums", s),
                   test.floats(name("windowSums", s),
                               [&](Kernels& kernels) {
                                 Floats out(size_t(s.dSae), NAN);
                                 kernels.windowSums(onDevice, view(thresholds), bandwidth,
                                                    counting ? nullptr : coefficients.data(), -0.5, view(out));
                                 return out;
                               }),
                   reference::windowSums(codes, thresholds, bandwidth, counting ? nullptr : &coefficients, -0.5), 1e-5);
  }
}

KERNEL_TEST("windowSums at the window's edge", windowEdgeTests) {
  PlainCodes codes;
  codes.rows = 1;
  codes.dSae = 5;
  codes.features = {0, 1, 2, 3, 4};
  codes.preActivations = {1.25f, 1.5f, 0.75f, 0.5f, 1};
  codes.values = codes.preActivations;
  codes.offsets = {0, 5};
  const Floats thresholds(5, 1.0f);
  Floats out(5, NAN);
  test.kernels().windowSums(codes.onDevice(test.allocator()), view(thresholds), 1, nullptr, 1, view(out));
  test.same("half a bandwidth away is outside", out, Floats{1, 0, 1, 0, 1});
}

template <class T>
std::vector<T> content(const Block& block, int64_t count) {
  return std::vector<T>(block.as<const T>(), block.as<const T>() + count);
}

KERNEL_TEST("featureRange", featureRangeTests) {
  Random random(44);
  for (const Shape& s : shapes)
    for (const bool inactive : {false, true})
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, s.dSae},
                                     {0, 0},
                                     {s.dSae, s.dSae},
                                     {0, s.dSae / 3},
                                     {s.dSae / 3, s.dSae},
                                     {s.dSae / 4, s.dSae / 4 + 1}}) {
        const PlainCodes codes = withSigns(random, randomCodes(random, s.rows, s.dSae, s.density, inactive));
        const PlainCodes expected = reference::featureRange(codes, from, to);
        const Codes onDevice = codes.onDevice(test.allocator());
        const Floats values = test.floats(name("featureRange", s), [&, from = from, to = to](Kernels& kernels) {
          const Codes range = kernels.featureRange(onDevice, from, to);
          test.check(range.rows == s.rows && range.dSae == s.dSae && range.entries == expected.entries(),
                     name("featureRange: sizes", s));
          test.same(name("featureRange: offsets", s), content<uint64_t>(range.rowOffsets, s.rows + 1),
                    expected.offsets);
          test.same(name("featureRange: features", s), content<uint32_t>(range.features, range.entries),
                    expected.features);
          test.same(name("featureRange: pre-activations", s), content<float>(range.preActivations, range.entries),
                    expected.preActivations);
          return Floats(range.value(), range.value() + range.entries);
        });
        test.same(name("featureRange: values", s), values, expected.values);
      }
}

// What the ranges of a partition decode to adds up to what the whole does, dense or sparse.
KERNEL_TEST("featureRange of dense codes and of a subset", featureRangeDenseTests) {
  Random random(45);
  PlainCodes plain = randomCodes(random, 30, 40, 0.6, true);
  plain.dSae = 90;
  std::vector<uint32_t> eligible, positions(90, UINT32_MAX);
  for (uint32_t f = 0; f < 40; ++f) {
    eligible.push_back(2 * f + 5);
    positions[2 * f + 5] = f;
  }
  for (uint32_t& feature : plain.features) feature = eligible[feature];
  const Floats decoder = random.normals(90 * 33);
  for (const bool subset : {false, true}) {
    Codes codes = plain.onDevice(test.allocator());
    if (subset) {
      auto set = std::make_shared<FeatureSet>();
      set->dSae = 90;
      set->count = 40;
      set->indices = PlainCodes::copy(test.allocator(), eligible);
      set->position = PlainCodes::copy(test.allocator(), positions);
      codes.subset = set;
    }
    for (const int64_t to : {1, 17, 60, 90}) {
      const std::string what = "decode of the features below " + std::to_string(to);
      test.close(what,
                 test.floats(what,
                             [&](Kernels& kernels) {
                               Floats out(30 * 33, NAN);
                               kernels.decode(kernels.featureRange(codes, 0, to), matrix(decoder, 90), {}, {},
                                              matrix(out, 30), nullptr);
                               return out;
                             }),
                 reference::decode(reference::featureRange(plain, 0, to), decoder, nullptr, nullptr, 33), 2e-5);
    }
  }
}

KERNEL_TEST("codes with other values share their places", sharedPlacesTests) {
  Random random(46);
  const PlainCodes plain = randomCodes(random, 50, 400, 0.02, true);
  const Codes codes = plain.onDevice(test.allocator());
  const Floats numbers = random.normals(plain.entries()), dense = random.normals(50 * 7), weights(400 * 7, 1.0f);
  const Codes other = codes.withValues(codes.preActivations, PlainCodes::copy(test.allocator(), numbers));
  test.check(other.rowOffsets.as<void>() == codes.rowOffsets.as<void>() &&
                 other.features.as<void>() == codes.features.as<void>(),
             "row offsets and features are shared");
  const auto gradientOf = [&](const Codes& of) {
    Floats out(weights.size(), NAN);
    RowGradient gradient;
    gradient.terms.push_back({&of, nullptr, matrix(dense, 50), 1});
    test.kernels().rowGradient(gradient, matrix(weights, 400), matrix(out, 400));
    return out;
  };
  test.check(!codes.featureOrder->offsets, "the feature order is built when it is needed");
  test.close("gradient of the derived codes", gradientOf(other),
             reference::rowGradient({{&plain, &numbers, &dense, 1}}, nullptr, 0, {}, false, weights, 400), 1e-5);
  test.check(codes.featureOrder->offsets && codes.featureOrder == other.featureOrder, "and then for both");
  test.close("gradient of the codes themselves", gradientOf(codes),
             reference::rowGradient({{&plain, nullptr, &dense, 1}}, nullptr, 0, {}, false, weights, 400), 1e-5);
}

}  // namespace
}  // namespace monosem::test
