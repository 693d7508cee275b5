// An encoder with its input, and what holds for the codes of any selection.
#pragma once

#include "check.h"
#include "data.h"
#include "reference.h"

namespace monosem::test {

struct Problem {
  int64_t rows, dSae, dIn;
  Floats x, encoder, bias;
  std::shared_ptr<const FeatureSet> subset;

  Problem(Random& random, int64_t rows, int64_t dSae, int64_t dIn)
      : rows(rows),
        dSae(dSae),
        dIn(dIn),
        x(random.normals(rows * dIn)),
        encoder(random.normals(dSae * dIn)),
        bias(random.normals(dSae)) {}

  Codes encode(Kernels& kernels, Selection selection) const {
    selection.subset = subset;
    return kernels.encode({x.data(), rows, dIn}, {encoder.data(), dSae, dIn}, view(bias), selection);
  }
  Codes encode(Kernels& kernels, Select select, int64_t k = 0) const {
    Selection selection;
    selection.select = select;
    selection.k = k;
    return encode(kernels, selection);
  }
  std::string name(const char* what, int64_t k = 0) const {
    return std::string(what) + " " + std::to_string(rows) + "x" + std::to_string(dIn) + "->" + std::to_string(dSae) +
           (k ? " k " + std::to_string(k) : "") + (subset ? " of " + std::to_string(subset->count) : "");
  }
  bool eligible(int64_t feature) const {
    return !subset || subset->position.as<const uint32_t>()[feature] != UINT32_MAX;
  }
  int64_t eligibleCount() const { return subset ? subset->count : dSae; }
  double preActivation(int64_t row, int64_t feature) const {
    return double(bias[size_t(feature)]) + reference::dot(&x[size_t(row * dIn)], &encoder[size_t(feature * dIn)], dIn);
  }
  // The sum of the absolute values of its terms.
  double preActivationTerms(int64_t row, int64_t feature) const {
    double sum = std::fabs(double(bias[size_t(feature)]));
    for (int64_t i = 0; i < dIn; ++i)
      sum += std::fabs(double(x[size_t(row * dIn + i)]) * double(encoder[size_t(feature * dIn + i)]));
    return sum;
  }
};

inline std::shared_ptr<const FeatureSet> everyNth(Allocator& allocator, int64_t dSae, int64_t n, int64_t first) {
  auto set = std::make_shared<FeatureSet>();
  set->dSae = dSae;
  std::vector<uint32_t> indices, positions(size_t(dSae), UINT32_MAX);
  for (int64_t feature = first; feature < dSae; feature += n) {
    positions[size_t(feature)] = uint32_t(indices.size());
    indices.push_back(uint32_t(feature));
  }
  set->count = int64_t(indices.size());
  set->indices = PlainCodes::copy(allocator, indices);
  set->position = PlainCodes::copy(allocator, positions);
  return set;
}

template <class T>
std::vector<T> elements(const T* data, int64_t count) {
  return std::vector<T>(data, data + count);
}

// Everything that codes say, in one list of bits.
inline std::vector<uint32_t> bits(const Codes& codes) {
  std::vector<uint32_t> all;
  for (int64_t row = 0; row <= codes.rows; ++row) all.push_back(uint32_t(codes.offsets()[row]));
  for (int64_t e = 0; e < codes.entries; ++e) {
    uint32_t preActivation, value;
    std::memcpy(&preActivation, codes.preActivation() + e, sizeof preActivation);
    std::memcpy(&value, codes.value() + e, sizeof value);
    all.insert(all.end(), {codes.feature()[e], preActivation, value});
  }
  return all;
}

inline Codes encodeOnAll(Test& test, const Problem& problem, const std::string& name, const Selection& selection) {
  test.run<uint32_t>(name, [&](Kernels& kernels) { return bits(problem.encode(kernels, selection)); });
  return problem.encode(test.kernels(), selection);
}
inline Codes encodeOnAll(Test& test, const Problem& problem, const std::string& name, Select select, int64_t k = 0) {
  Selection selection;
  selection.select = select;
  selection.k = k;
  return encodeOnAll(test, problem, name, selection);
}

// Features ascend within a row, are eligible, and carry the right pre-activation and value: by default the rectified
// pre-activation.
inline void checkEntries(
    Test& test, const Problem& problem, const Codes& codes, const std::string& name,
    const std::function<float(uint32_t, float)>& valueOf = [](uint32_t, float z) { return std::max(z, 0.0f); }) {
  bool ordered = true, eligible = true, valued = true;
  Doubles expected, terms;
  for (int64_t row = 0; row < problem.rows; ++row)
    for (uint64_t e = codes.offsets()[row]; e < codes.offsets()[row + 1]; ++e) {
      const uint32_t feature = codes.feature()[e];
      ordered = ordered && (e == codes.offsets()[row] || codes.feature()[e - 1] < feature);
      eligible = eligible && feature < uint32_t(problem.dSae) && problem.eligible(feature);
      valued = valued && codes.value()[e] == valueOf(feature, codes.preActivation()[e]);
      expected.push_back(eligible ? problem.preActivation(row, feature) : 0);
      terms.push_back(eligible ? problem.preActivationTerms(row, feature) : 0);
    }
  test.check(ordered, name + ": features ascend");
  test.check(eligible, name + ": only eligible features");
  test.check(valued, name + ": values");
  test.products(name + ": pre-activations", elements(codes.preActivation(), codes.entries), expected, terms, 3e-4);
}

inline constexpr int64_t encodeShapes[][3] = {{1, 1, 1},      {1, 50, 3},    {7, 33, 17},    {13, 385, 129},
                                              {25, 1000, 64}, {9, 97, 800},  {110, 2500, 5}, {64, 384, 100},
                                              {3, 4097, 33},  {130, 48, 385}};

}  // namespace monosem::test
