// Kernels on codes at sizes that they may treat differently: features that fire everywhere, many rows, many features,
// wide decoders.
#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

// Feature f fires with probability firing(f); values have both signs.
PlainCodes codesOf(Random& random, int64_t rows, int64_t dSae, const std::function<double(int64_t)>& firing) {
  PlainCodes codes;
  codes.rows = rows;
  codes.dSae = dSae;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t feature = 0; feature < dSae; ++feature) {
      if (random.uniform() >= firing(feature)) continue;
      codes.features.push_back(uint32_t(feature));
      codes.preActivations.push_back(random.normal());
    }
    codes.offsets.push_back(codes.features.size());
  }
  codes.values = codes.preActivations;
  return codes;
}

// The order of the entries by feature, where the kernels leave it in memory that can be looked at, and sums in it.
void checkFeatureOrder(Test& test, const std::string& name, const PlainCodes& plain) {
  std::vector<std::vector<uint32_t>> entriesOf(size_t(plain.dSae));
  for (int64_t e = 0; e < plain.entries(); ++e) entriesOf[plain.features[size_t(e)]].push_back(uint32_t(e));
  std::vector<uint64_t> offsets{0};
  std::vector<uint32_t> entries, rows;
  for (const std::vector<uint32_t>& list : entriesOf) {
    for (const uint32_t e : list) {
      entries.push_back(e);
      rows.push_back(uint32_t(plain.rowOf(e)));
    }
    offsets.push_back(entries.size());
  }
  const Floats sums = test.floats(name, [&](Kernels& kernels) {
    const Codes codes = plain.onDevice(test.allocator());
    Floats out(size_t(plain.dSae), NAN);
    kernels.featureSums(codes, nullptr, 1, view(out));
    const FeatureOrder& order = *codes.featureOrder;
    if (order.offsets) {
      const auto holds = [](const Block& block, const auto& expected) {
        return std::memcmp(block.as<const void>(), expected.data(), expected.size() * sizeof expected[0]) == 0;
      };
      test.check(holds(order.offsets, offsets), name + ": offsets");
      test.check(holds(order.entries, entries), name + ": entries by feature, rows ascending");
      test.check(holds(order.rows, rows), name + ": their rows");
    }
    return out;
  });
  test.close(name + ": sums", sums, reference::featureSums(plain, plain.values, 1), 1e-5);
}

KERNEL_TEST("feature order of all sizes", featureOrderTests) {
  Random random(51);
  checkFeatureOrder(test, "busy features", codesOf(random, 5000, 20, [](int64_t feature) {
                      return feature % 7 == 0 ? 0.9 : feature == 3 ? 1.0 : 0.01 * double(feature % 3);
                    }));
  checkFeatureOrder(test, "many rows", codesOf(random, 20000, 9, [](int64_t f) { return 0.005 * double(f); }));
  checkFeatureOrder(test, "very many rows", codesOf(random, 70000, 3, [](int64_t f) { return f == 1 ? 0.5 : 1e-4; }));
  checkFeatureOrder(test, "many features", codesOf(random, 5, 40001, [](int64_t) { return 0.02; }));
}

KERNEL_TEST("featureRange of many rows", manyRowsTests) {
  Random random(52);
  const PlainCodes plain = codesOf(random, 40000, 7, [](int64_t) { return 0.1; });
  const PlainCodes expected = reference::featureRange(plain, 2, 5);
  const Codes codes = plain.onDevice(test.allocator());
  const Floats values = test.floats("featureRange of many rows", [&](Kernels& kernels) {
    const Codes range = kernels.featureRange(codes, 2, 5);
    test.check(std::equal(expected.offsets.begin(), expected.offsets.end(), range.offsets()), "offsets");
    return Floats(range.value(), range.value() + range.entries);
  });
  test.same("featureRange of many rows: values", values, expected.values);
}

PRODUCT_TEST("decode of all widths", widthTests) {
  Random random(53);
  for (const auto& shape :
       {std::pair<int64_t, double>{1023, 0.02}, {4097, 0.02}, {9216, 0.02}, {1023, 0.3}, {4097, 0.3}}) {
    const int64_t dIn = shape.first;
    const double density = shape.second;
    const int64_t rows = 45, dSae = density > 0.1 ? 330 : 100;
    const std::string name = "decode to " + std::to_string(dIn) + " columns, density " + std::to_string(density);
    const PlainCodes plain = codesOf(random, rows, dSae, [&](int64_t) { return density; });
    const Codes codes = plain.onDevice(test.allocator());
    const Floats decoder = random.normals(dSae * dIn), bias = random.normals(dIn), target = random.normals(rows * dIn);
    const Floats out = test.floats(name, [&](Kernels& kernels) {
      Floats result(size_t(rows * dIn), NAN);
      double squaredError = 1, expected = 1;
      kernels.decode(codes, matrix(decoder, dSae), view(bias), matrix(target, rows), matrix(result, rows),
                     &squaredError);
      for (const float x : result) expected += double(x) * double(x);
      test.close(name + ": squared error", squaredError, expected, 1e-12);
      return result;
    });
    test.products(name, out, reference::decode(plain, decoder, &bias, &target, dIn),
                  reference::decodeTerms(plain, decoder, &bias, &target, dIn), 1e-4);
    const Floats gradient = test.floats(name + ": gradient", [&](Kernels& kernels) {
      Floats result(size_t(plain.entries()), NAN);
      kernels.decodeGradient(codes, matrix(decoder, dSae), matrix(target, rows), 0.5, {}, 0, false, result.data());
      return result;
    });
    test.products(name + ": gradient", gradient,
                  reference::decodeGradient(plain, decoder, target, 0.5, nullptr, 0, false, dIn),
                  reference::decodeGradientTerms(plain, decoder, target, 0.5, nullptr, 0, false, dIn), 3e-4);
  }
}

KERNEL_TEST("squared error of many rows", manyErrorsTests) {
  Random random(54);
  for (const int64_t rows : {2048, 2049, 5003}) {
    const Codes codes = codesOf(random, rows, 4, [](int64_t) { return 0.3; }).onDevice(test.allocator());
    const Floats decoder = random.normals(4 * 3), target = random.normals(rows * 3);
    const std::string name = "squared error of " + std::to_string(rows) + " rows";
    double expected = 1;
    const double squaredError = test.number(name, [&](Kernels& kernels) {
      Floats residual(size_t(rows * 3), NAN);
      double sum = 1;
      kernels.decode(codes, matrix(decoder, 4), {}, matrix(target, rows), matrix(residual, rows), &sum);
      expected = 1;
      for (const float x : residual) expected += double(x) * double(x);
      return sum;
    });
    test.close(name, squaredError, expected, 1e-12);
  }
}

KERNEL_TEST("dead features of all sizes", deadTests) {
  for (const uint32_t dSae : {1, 2, 2047, 2048, 2049, 40003, 131072, 131073, 270001}) {
    Doubles tokensSinceFired;
    std::vector<uint32_t> dead, positions;
    for (uint32_t feature = 0; feature < dSae; ++feature) {
      const bool isDead = feature % 3 == (dSae - 1) % 3 || feature % 1000 > 700;  // the last one is
      tokensSinceFired.push_back(isDead ? 5 : 1);
      positions.push_back(isDead ? uint32_t(dead.size()) : UINT32_MAX);
      if (isDead) dead.push_back(feature);
    }
    const auto set = test.kernels().featuresNotFiredFor({tokensSinceFired.data(), int64_t(dSae)}, 5);
    const auto elementsOf = [](const Block& block, size_t count) {
      const uint32_t* const first = block.as<const uint32_t>();
      return std::vector<uint32_t>(first, first + count);
    };
    const std::string name = "dead ones of " + std::to_string(dSae) + " features";
    test.check(set->count == int64_t(dead.size()), name + ": their number");
    if (set->count != int64_t(dead.size())) continue;
    test.same(name, std::vector<uint32_t>(set->view().data, set->view().data + set->count), dead);
    test.same(name + ": positions", elementsOf(set->position, dSae), positions);
  }
}

}  // namespace
}  // namespace monosem::test
