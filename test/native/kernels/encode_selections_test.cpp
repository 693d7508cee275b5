// The selections of the fused encoder beside positive and top k: by magnitude, over the batch, above thresholds, all.
// What they must select is told by a sort of the kernel's own pre-activations.
#include <array>

#include "encode_problem.h"

namespace monosem::test {
namespace {

struct Entry {
  int64_t row;
  uint32_t feature;
  float z;

  bool operator==(const Entry& other) const {
    return row == other.row && feature == other.feature && std::memcmp(&z, &other.z, sizeof z) == 0;
  }
};

std::vector<Entry> entriesOf(const Codes& codes) {
  std::vector<Entry> entries;
  for (int64_t row = 0; row < codes.rows; ++row)
    for (uint64_t e = codes.offsets()[row]; e < codes.offsets()[row + 1]; ++e)
      entries.push_back({row, codes.feature()[e], codes.preActivation()[e]});
  return entries;
}

std::vector<Entry> everyEntry(Test& test, const Problem& problem) {
  return entriesOf(problem.encode(test.kernels(), Select::all));
}

// The first k of `entries` in the order of `before`; earlier ones first among equals.
template <class Before>
std::vector<Entry> first(std::vector<Entry> entries, int64_t k, const Before& before) {
  std::stable_sort(entries.begin(), entries.end(), before);
  if (int64_t(entries.size()) > k) entries.resize(size_t(k));
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.row != b.row ? a.row < b.row : a.feature < b.feature; });
  return entries;
}

PRODUCT_TEST("encode all", allTests) {
  Random random(21);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (const bool restricted : {false, true}) {
      Problem problem(random, rows, dSae, dIn);
      if (restricted) problem.subset = everyNth(test.allocator(), dSae, 3, 1);
      const std::string name = problem.name("all");
      const Codes codes = encodeOnAll(test, problem, name, Select::all);
      checkEntries(test, problem, codes, name);
      test.check(codes.entries == rows * problem.eligibleCount(), name + ": every entry");
      test.check(bits(codes) == bits(problem.encode(test.kernels(), Select::topk, dSae)),
                 name + ": the same bits as the top k of all");
    }
}

void checkMagnitudes(Test& test, const Problem& problem, int64_t k) {
  Selection selection;
  selection.select = Select::topk;
  selection.k = k;
  selection.byMagnitude = true;
  const std::string name = problem.name("top k by magnitude", k);
  const Codes codes = encodeOnAll(test, problem, name, selection);
  checkEntries(test, problem, codes, name, [](uint32_t, float z) { return z; });
  std::vector<Entry> expected;
  for (int64_t row = 0; row < problem.rows; ++row) {
    std::vector<Entry> ofRow;
    for (const Entry& entry : everyEntry(test, problem))
      if (entry.row == row) ofRow.push_back(entry);
    for (const Entry& entry :
         first(ofRow, k, [](const Entry& a, const Entry& b) { return std::fabs(a.z) > std::fabs(b.z); }))
      expected.push_back(entry);
  }
  test.check(entriesOf(codes) == expected, name + ": exactly the k largest");
}

PRODUCT_TEST("encode top k by magnitude", magnitudeTests) {
  Random random(22);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (const int64_t k : {int64_t(1), int64_t(5), int64_t(40), dSae}) {
      Problem problem(random, std::min<int64_t>(rows, 10), dSae, dIn);
      checkMagnitudes(test, problem, k);
      problem.subset = everyNth(test.allocator(), dSae, 3, 1);
      checkMagnitudes(test, problem, k);
    }
  for (const int64_t dSae : {10, 100, 700}) {
    Problem ties(random, 5, dSae, 2);  // equal magnitudes of either sign
    for (float& value : ties.x) value = float(random.below(3) - 1);
    for (float& value : ties.encoder) value = float(random.below(3) - 1);
    for (float& value : ties.bias) value = 0;
    checkMagnitudes(test, ties, 7);
    std::fill(ties.x.begin(), ties.x.end(), 0.0f);
    checkMagnitudes(test, ties, 7);
  }
}

void checkBatch(Test& test, const Problem& problem, const char* data, int64_t k) {
  const std::string name = problem.name(data, k);
  const Codes codes = encodeOnAll(test, problem, name, Select::batchtopk, k);
  checkEntries(test, problem, codes, name);
  test.check(!codes.values && codes.entries == int64_t(codes.offsets()[problem.rows]), name + ": sizes");
  std::vector<Entry> positive;
  for (const Entry& entry : everyEntry(test, problem))
    if (entry.z > 0) positive.push_back(entry);
  test.check(entriesOf(codes) == first(positive, k, [](const Entry& a, const Entry& b) { return a.z > b.z; }),
             name + ": exactly the k largest of the batch");
}

PRODUCT_TEST("encode batch top k", batchTests) {
  Random random(23);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (const int64_t k : {int64_t(0), int64_t(1), rows * 3, rows * dSae / 4, rows * dSae}) {
      Problem problem(random, rows, dSae, dIn);
      checkBatch(test, problem, "batch top k", k);
      problem.subset = everyNth(test.allocator(), dSae, 3, 1);
      checkBatch(test, problem, "batch top k", k);
    }
}

PRODUCT_TEST("encode batch top k of many rows", manyRowsBatchTests) {  // enough of them for a sample
  Random random(24);
  for (const int64_t rows : {512, 2100}) {
    const bool many = rows > 2048;
    for (const int64_t k :
         many ? std::vector<int64_t>{rows * 20} : std::vector<int64_t>{0, 1, rows, rows * 20, rows * 45}) {
      Problem problem(random, rows, 77, 5);
      checkBatch(test, problem, "even rows", k);

      for (int64_t row = 0; row < rows; ++row)  // most rows hold nothing large, some hold nearly all
        for (int64_t i = 0; i < 5; ++i) problem.x[size_t(row * 5 + i)] *= row % 100 ? 0.01f : 30.0f;
      checkBatch(test, problem, "uneven rows", k);

      problem = Problem(random, rows, 77, 5);  // what a sample sees is larger than the rest, then smaller
      for (const float factor : {100.0f, 0.0f}) {
        for (int64_t i = 0; i < 128; ++i)
          for (int64_t c = 0; c < 5; ++c) problem.x[size_t((2 * i + 1) * rows / 256 * 5 + c)] *= factor;
        checkBatch(test, problem, "a misleading sample", k);
      }

      Problem ties(random, rows, 60, 2);
      for (float& value : ties.x) value = float(random.below(3) - 1);
      for (float& value : ties.encoder) value = float(random.below(3) - 1);
      for (float& value : ties.bias) value = float(random.below(2));
      checkBatch(test, ties, "ties across rows", k);
      std::fill(ties.x.begin(), ties.x.end(), 0.0f);
      std::fill(ties.bias.begin(), ties.bias.end(), 1.0f);
      checkBatch(test, ties, "all equal", k);
      std::fill(ties.bias.begin(), ties.bias.end(), -0.0f);
      checkBatch(test, ties, "nothing positive", k);
    }
  }
}

void checkAbove(Test& test, const Problem& problem, const Floats& thresholds, float margin) {
  Selection selection;
  selection.select = Select::above;
  selection.thresholds = view(thresholds);
  selection.margin = double(margin);
  const std::string name = problem.name("above") + " margin " + std::to_string(margin);
  const Codes codes = encodeOnAll(test, problem, name, selection);
  checkEntries(test, problem, codes, name,
               [&](uint32_t feature, float z) { return z > thresholds[feature] ? std::max(z, 0.0f) : 0.0f; });
  std::vector<Entry> expected;
  for (const Entry& entry : everyEntry(test, problem))
    if (entry.z > thresholds[entry.feature] - margin) expected.push_back(entry);
  test.check(entriesOf(codes) == expected, name + ": exactly those above");
}

PRODUCT_TEST("encode above thresholds", aboveTests) {
  Random random(25);
  for (const auto& [rows, dSae, dIn] : encodeShapes)
    for (const float margin : {0.0f, 0.25f}) {
      Problem problem(random, rows, dSae, dIn);
      Floats thresholds = random.normals(dSae);
      for (float& threshold : thresholds) threshold = std::fabs(threshold);
      checkAbove(test, problem, thresholds, margin);
      problem.subset = everyNth(test.allocator(), dSae, 3, 1);
      checkAbove(test, problem, thresholds, margin);
      problem.subset = nullptr;
      checkAbove(test, problem, Floats(size_t(dSae), -0.5f), margin);
      checkAbove(test, problem, Floats(size_t(dSae), INFINITY), margin);
      checkAbove(test, problem, Floats(size_t(dSae), -INFINITY), margin);
    }
  Problem onThreshold(random, 20, 90, 2);  // scores that are their threshold are not above it
  for (float& value : onThreshold.x) value = float(random.below(3) - 1);
  for (float& value : onThreshold.encoder) value = float(random.below(3) - 1);
  for (float& value : onThreshold.bias) value = 0;
  checkAbove(test, onThreshold, Floats(90, 1.0f), 0);
  checkAbove(test, onThreshold, Floats(90, 1.0f), 1);
  checkAbove(test, onThreshold, Floats(90, -0.0f), 0);

  const Problem none(random, 0, 20, 8);
  checkAbove(test, none, Floats(20, 1.0f), 0.5f);
  Floats thresholds(90, 1.0f);
  thresholds[71] = NAN;
  Selection selection;
  selection.select = Select::above;
  selection.thresholds = {thresholds.data(), 90};
  test.throws("a threshold of NaN", ErrorCode::nonFinite, [&] { onThreshold.encode(test.kernels(), selection); });
}

}  // namespace
}  // namespace monosem::test
