// Encodes of so many scores that a GPU's fastest ways are taken (one_pass_scores.h, in bfloat16), which small shapes do
// not meet. Operands are small whole numbers: all precisions compute them exactly, so that every entry is known, and
// there are many equals.
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "encode_problem.h"

namespace monosem::test {
namespace {

struct ManyScores {
  int64_t rows, dSae, dIn;
};
// Tiles of 128 x 256 that are not full, in pairs of tiles of rows that are not either; more rows than a chunk has; deep
// products of which the last part is not full. Enough for a GPU of 132 multiprocessors, or for an emulated one of two.
std::vector<ManyScores> shapesFor(Test& test) {
  const std::string device = test.kernels().description();
  if (device.find("NVIDIA") != std::string::npos)
    return {{300, 16461, 72}, {130, 40003, 8}, {4500, 5000, 16}, {257, 18000, 200}};
  return {{20, 4173, 72}, {9, 8493, 8}};
}

int64_t below(Random& random, int64_t bound) {
  return random.below(2 * bound + 1) - bound;
}

// How an encoder's biases go on: about even, or so that each further feature scores more.
enum class Trend { none, rising };

Problem wholeNumbers(Random& random, const ManyScores& shape, Trend trend) {
  Problem problem(random, 0, 0, 0);
  problem.rows = shape.rows;
  problem.dSae = shape.dSae;
  problem.dIn = shape.dIn;
  problem.x.resize(size_t(shape.rows * shape.dIn));
  problem.encoder.resize(size_t(shape.dSae * shape.dIn));
  problem.bias.resize(size_t(shape.dSae));
  for (float& value : problem.x) value = float(below(random, 2));
  for (float& value : problem.encoder) value = float(below(random, 2));
  for (int64_t feature = 0; feature < shape.dSae; ++feature)
    problem.bias[size_t(feature)] = float(below(random, 3) + (trend == Trend::rising ? feature / 8 : 0));
  // Rows in which all features score the same but for their biases, and in which very few stand out.
  for (int64_t i = 0; i < shape.dIn; ++i) problem.x[size_t(5 * shape.dIn + i)] = 0;
  for (int64_t i = 1; i < shape.dIn; ++i) problem.x[size_t(6 * shape.dIn + i)] = 0;
  return problem;
}

// [rows, dSae]
Floats scoresOf(const Problem& problem) {
  Floats scores(size_t(problem.rows * problem.dSae));
  for (int64_t row = 0; row < problem.rows; ++row)
    for (int64_t feature = 0; feature < problem.dSae; ++feature) {
      float sum = problem.bias[size_t(feature)];
      const float* x = &problem.x[size_t(row * problem.dIn)];
      const float* weights = &problem.encoder[size_t(feature * problem.dIn)];
      for (int64_t i = 0; i < problem.dIn; ++i) sum += x[i] * weights[i];
      scores[size_t(row * problem.dSae + feature)] = sum;
    }
  return scores;
}

// Whether every row has exactly these features, ascending, with their scores.
void checkExactly(Test& test, const Problem& problem, const Floats& scores, const Selection& selection,
                  const std::string& name,
                  const std::function<std::vector<uint32_t>(const float* scores)>& expectedOfRow) {
  const Codes codes = encodeOnAll(test, problem, name, selection);
  bool sameFeatures = codes.rows == problem.rows, sameScores = true;
  for (int64_t row = 0; row < problem.rows && sameFeatures; ++row) {
    const float* ofRow = &scores[size_t(row * problem.dSae)];
    const uint64_t first = codes.offsets()[row];
    const auto features = elements(codes.feature() + first, int64_t(codes.offsets()[row + 1] - first));
    sameFeatures = features == expectedOfRow(ofRow);
    for (size_t i = 0; i < features.size() && sameFeatures; ++i)
      sameScores = sameScores && codes.preActivation()[first + i] == ofRow[features[i]];
  }
  test.check(sameFeatures, name + ": exactly the features that are wanted");
  test.check(sameScores, name + ": their pre-activations");
}

// By (rank descending, feature ascending), in the order of features.
std::vector<uint32_t> largest(const float* scores, int64_t count, int64_t k, bool byMagnitude) {
  std::vector<uint32_t> features(static_cast<size_t>(count));
  std::iota(features.begin(), features.end(), 0);
  const auto rank = [&](uint32_t feature) { return byMagnitude ? std::fabs(scores[feature]) : scores[feature]; };
  std::partial_sort(features.begin(), features.begin() + k, features.end(),
                    [&](uint32_t a, uint32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  features.resize(size_t(k));
  std::sort(features.begin(), features.end());
  return features;
}

std::vector<uint32_t> above(const float* scores, int64_t count, const std::function<float(uint32_t)>& bound) {
  std::vector<uint32_t> features;
  for (uint32_t feature = 0; feature < uint32_t(count); ++feature)
    if (scores[feature] > bound(feature)) features.push_back(feature);
  return features;
}

PRODUCT_TEST("many scores: top k", topKTests) {
  Random random(81);
  for (const ManyScores& shape : shapesFor(test))
    for (const Trend trend : {Trend::none, Trend::rising}) {
      const Problem problem = wholeNumbers(random, shape, trend);
      const Floats scores = scoresOf(problem);
      for (const auto& [k, byMagnitude] :
           {std::pair<int64_t, bool>{1, false}, {32, false}, {32, true}, {201, false}, {500, false}}) {
        Selection selection;
        selection.select = Select::topk;
        selection.k = k;
        selection.byMagnitude = byMagnitude;
        const std::string name =
            problem.name(trend == Trend::none ? "top k" : "top k, rising", k) + (byMagnitude ? " by magnitude" : "");
        checkExactly(test, problem, scores, selection, name,
                     [&, k = k, by = byMagnitude](const float* s) { return largest(s, problem.dSae, k, by); });
      }
    }
}

PRODUCT_TEST("many scores: above bounds", boundsTests) {
  Random random(82);
  for (const ManyScores& shape : shapesFor(test))
    for (const float shift : {0.0f, -20.0f}) {  // half of the scores, and few
      Problem problem = wholeNumbers(random, shape, Trend::none);
      for (float& bias : problem.bias) bias += shift;
      const Floats scores = scoresOf(problem);
      Selection positive;
      positive.select = Select::positive;
      checkExactly(test, problem, scores, positive, problem.name(shift == 0 ? "positive, dense" : "positive"),
                   [&](const float* s) { return above(s, problem.dSae, [](uint32_t) { return 0.0f; }); });
      Floats thresholds(size_t(problem.dSae));
      for (float& threshold : thresholds) threshold = float(below(random, 4));
      Selection byThreshold;
      byThreshold.select = Select::above;
      byThreshold.thresholds = view(std::as_const(thresholds));
      byThreshold.margin = 2;
      checkExactly(test, problem, scores, byThreshold, problem.name(shift == 0 ? "above, dense" : "above"),
                   [&](const float* s) {
                     return above(s, problem.dSae, [&](uint32_t feature) { return thresholds[feature] - 2; });
                   });
    }
}

PRODUCT_TEST("many scores: batch top k", batchTests) {
  Random random(83);
  for (const ManyScores& shape : shapesFor(test)) {
    const Problem problem = wholeNumbers(random, shape, Trend::none);
    const Floats scores = scoresOf(problem);
    const int64_t k = 20 * problem.rows + 7;
    // By (score descending, row ascending, feature ascending).
    std::vector<uint64_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + k, order.end(),
                      [&](uint64_t a, uint64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    std::vector<bool> taken(scores.size());
    for (int64_t i = 0; i < k; ++i) taken[order[size_t(i)]] = true;
    Selection selection;
    selection.select = Select::batchtopk;
    selection.k = k;
    checkExactly(test, problem, scores, selection, problem.name("batch top k", k), [&](const float* s) {
      std::vector<uint32_t> features;
      for (int64_t feature = 0; feature < problem.dSae; ++feature)
        if (taken[size_t(s - scores.data() + feature)]) features.push_back(uint32_t(feature));
      return features;
    });
  }
}

PRODUCT_TEST("many scores: refuses NaN and infinity", refusalTests) {
  Random random(84);
  for (const ManyScores& shape : shapesFor(test))
    for (const float bad : {NAN, INFINITY, -INFINITY})
      for (const bool inEncoder : {false, true})
        for (const Select select : {Select::topk, Select::positive}) {
          Problem problem = wholeNumbers(random, shape, Trend::none);
          for (float& x : problem.x) x = 1;
          (inEncoder ? problem.encoder[size_t((shape.dSae - 1) * shape.dIn)]
                     : problem.x[size_t((shape.rows - 1) * shape.dIn)]) = bad;
          test.throws(problem.name("NaN or infinity"), ErrorCode::nonFinite,
                      [&] { problem.encode(test.kernels(), select, 32); });
        }
}

}  // namespace
}  // namespace monosem::test
