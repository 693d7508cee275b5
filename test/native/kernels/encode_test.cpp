// The fused encoder: products, positive and top k selections, ties, subsets, refusals.
#include <array>

#include "encode_problem.h"

namespace monosem::test {
namespace {

PRODUCT_TEST("encode positive", positiveTests) {
  Random random(11);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (int subset = 0; subset < 3; ++subset) {
      Problem problem(random, rows, dSae, dIn);
      if (subset) problem.subset = everyNth(test.allocator(), dSae, subset == 1 ? 3 : 1, subset == 1 ? 2 : 0);
      const std::string name = problem.name("positive");
      const Codes codes = encodeOnAll(test, problem, name, Select::positive);
      checkEntries(test, problem, codes, name);
      test.check(codes.rows == rows && codes.dSae == dSae && codes.entries == int64_t(codes.offsets()[rows]) &&
                     codes.subset == problem.subset && !codes.values,
                 name + ": sizes");
      int64_t clearly = 0, possibly = 0;  // exactly those above zero, but for rounding
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t feature = 0; feature < dSae; ++feature) {
          if (!problem.eligible(feature)) continue;
          const double z = problem.preActivation(row, feature);
          const double rounding = std::max(1e-3, 2 * test.productError() * problem.preActivationTerms(row, feature));
          clearly += z > rounding;
          possibly += z > -rounding;
        }
      test.check(clearly <= codes.entries && codes.entries <= possibly, name + ": all positive ones");
    }
}

PRODUCT_TEST("encode many rows",
             manyRowsTests) {  // more than one chunk of rows, and a density that changes between them
  Random random(12);
  Problem problem(random, 4500, 70, 3);
  for (int64_t row = 2048; row < 4096; ++row)
    for (int64_t i = 0; i < 3; ++i) problem.x[size_t(row * 3 + i)] = row % 2 ? 0.0f : 50.0f;
  const std::string name = problem.name("positive");
  checkEntries(test, problem, encodeOnAll(test, problem, name, Select::positive), name);
  const std::string topName = problem.name("top k", 69);
  checkEntries(test, problem, encodeOnAll(test, problem, topName, Select::topk, 69), topName);
}

// What top k must select from given float scores: a full sort by (score descending, feature ascending).
std::vector<uint32_t> largest(const std::vector<float>& scores, const Problem& problem, int64_t k) {
  std::vector<uint32_t> features;
  for (uint32_t f = 0; f < uint32_t(scores.size()); ++f)
    if (problem.eligible(f)) features.push_back(f);
  std::stable_sort(features.begin(), features.end(), [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  features.resize(std::min(features.size(), size_t(k)));
  std::sort(features.begin(), features.end());
  return features;
}

// Compares the selected features with a sort of the kernel's own scores, which it tells when asked for all of them.
void checkTopK(Test& test, const Problem& problem, int64_t k) {
  const std::string name = problem.name("top k", k);
  const Codes codes = encodeOnAll(test, problem, name, Select::topk, k);
  checkEntries(test, problem, codes, name);
  const Codes all = problem.encode(test.kernels(), Select::topk, problem.eligibleCount());
  bool exact = codes.entries == problem.rows * std::min(k, problem.eligibleCount());
  bool sameBits = true;
  for (int64_t row = 0; row < problem.rows && exact; ++row) {
    std::vector<float> scores(size_t(problem.dSae), 0.0f);
    for (uint64_t e = all.offsets()[row]; e < all.offsets()[row + 1]; ++e)
      scores[all.feature()[e]] = all.preActivation()[e];
    const uint64_t first = codes.offsets()[row];
    const std::vector<uint32_t> features = elements(codes.feature() + first, int64_t(codes.offsets()[row + 1] - first));
    exact = exact && features == largest(scores, problem, k);
    for (size_t i = 0; i < features.size(); ++i)
      sameBits = sameBits && std::memcmp(&scores[features[i]], codes.preActivation() + first + i, sizeof(float)) == 0;
  }
  test.check(exact, name + ": exactly the k largest");
  test.check(sameBits, name + ": the same pre-activations whatever k is");
}

PRODUCT_TEST("encode top k", topKTests) {
  Random random(13);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (const int64_t k : {int64_t(1), int64_t(5), int64_t(32), int64_t(200), dSae - 1, dSae, dSae + 3}) {
      if (k < 1 || (k == 200 && dSae < 1000)) continue;
      Problem problem(random, rows, dSae, dIn);
      checkTopK(test, problem, k);
      if (k > 32) continue;
      problem.subset = everyNth(test.allocator(), dSae, 3, 1);
      checkTopK(test, problem, k);
    }
}

PRODUCT_TEST("encode ties", tieTests) {
  Random random(14);
  for (const int64_t dSae : {10, 100, 700, 3000})
    for (const int64_t k : {1, 2, 31, 64}) {
      if (k > dSae) continue;
      Problem few(random, 20, dSae, 2);  // a handful of different scores, in small integers: no rounding
      for (float& value : few.x) value = float(random.below(3) - 1);
      for (float& value : few.encoder) value = float(random.below(3) - 1);
      for (float& value : few.bias) value = float(random.below(2));
      checkTopK(test, few, k);

      Problem equal(random, 3, dSae, 4);  // all scores are the same; then all are zeros of either sign
      std::fill(equal.encoder.begin(), equal.encoder.end(), 0.5f);
      std::fill(equal.bias.begin(), equal.bias.end(), 1.0f);
      checkTopK(test, equal, k);
      for (size_t i = 0; i < equal.encoder.size(); ++i) equal.encoder[i] = i % 8 < 4 ? 0.0f : -0.0f;
      for (size_t i = 0; i < equal.bias.size(); ++i) equal.bias[i] = i % 3 ? 0.0f : -0.0f;
      checkTopK(test, equal, k);
      const Codes codes = equal.encode(test.kernels(), Select::topk, k);
      bool lowest = true;
      for (int64_t e = 0; e < codes.entries; ++e) lowest = lowest && codes.feature()[e] == uint32_t(e % k);
      test.check(lowest, equal.name("zeros of either sign are equal: the lowest features win", k));

      Problem rising(random, 2, dSae, 1);  // every score is a new maximum, then every score is too small
      rising.x = {1, -1};
      for (int64_t f = 0; f < dSae; ++f) rising.encoder[size_t(f)] = float(f);
      std::fill(rising.bias.begin(), rising.bias.end(), 0.0f);
      checkTopK(test, rising, k);
    }
}

PRODUCT_TEST("encode nothing", emptyTests) {
  Random random(15);
  for (const Select select : {Select::positive, Select::topk, Select::batchtopk, Select::all}) {
    const Problem noRows(random, 0, 20, 8);
    Codes codes = encodeOnAll(test, noRows, noRows.name("no rows"), select, 3);
    test.check(codes.rows == 0 && codes.entries == 0 && codes.offsets()[0] == 0 && bool(codes.features),
               noRows.name("no rows"));
    Problem noFeatures(random, 5, 20, 8);
    noFeatures.subset = everyNth(test.allocator(), 20, 1, 20);
    codes = encodeOnAll(test, noFeatures, noFeatures.name("no features"), select, 3);
    test.check(codes.entries == 0 && codes.offsets()[5] == 0 && bool(codes.features), noFeatures.name("no features"));
  }
  Problem negative(random, 40, 300, 8);
  std::fill(negative.bias.begin(), negative.bias.end(), -1000.0f);
  test.check(encodeOnAll(test, negative, "all negative", Select::positive).entries == 0, "nothing is positive");
  checkTopK(test, negative, 7);  // the largest are negative: their values are 0
}

PRODUCT_TEST("encode refuses", refusalTests) {
  Random random(16);
  const auto refuses = [&](const Problem& problem, const std::string& operand, const std::string& place) {
    for (const Select select : {Select::positive, Select::topk, Select::batchtopk, Select::all}) try {
        problem.encode(test.kernels(), select, 3);
        test.kernels().settle();
        test.check(false, "refuses a " + operand + " that is not finite");
      } catch (const EngineError& error) {
        const std::string message = error.what();
        test.check(error.code() == ErrorCode::nonFinite && message.find(operand) != std::string::npos &&
                       message.find(place) != std::string::npos,
                   "names the operand and the place: " + message);
      }
  };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const Problem good(random, 30, 900, 35);
    Problem problem = good;
    problem.x[21 * 35 + 34] = bad;
    problem.x[29 * 35] = bad;
    refuses(problem, "x", "row 21");
    problem = good;
    problem.encoder[877 * 35 + 3] = bad;
    problem.encoder[899 * 35 + 34] = bad;
    refuses(problem, "encoder", "row 877");
    problem.subset = everyNth(test.allocator(), 900, 2, 1);
    refuses(problem, "encoder", "row 877");
    problem.subset = everyNth(test.allocator(), 900, 2, 0);  // those rows take no part
    problem.encode(test.kernels(), Select::topk, 3);
    problem = good;
    problem.bias[640] = bad;
    refuses(problem, "bias", "640");
  }
  Problem huge(random, 12, 70, 20);
  for (int64_t i = 0; i < 20; ++i) huge.x[size_t(5 * 20 + i)] = 1e30f;
  for (float& value : huge.encoder) value *= 1e20f;
  refuses(huge, "pre-activations", "row 5");
}

}  // namespace
}  // namespace monosem::test
