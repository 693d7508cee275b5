// The codes' entries sorted by (feature, row), and what is counted and summed per feature.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// Fills featureOffsets, featureEntries and featureRows by a counting sort, which is stable: entries come ordered by
// row.
inline void buildFeatureOrder(Codes& codes, Allocator& allocator) {
  if (codes.hasFeatureOrder()) return;
  if (uint64_t(codes.entries) > std::numeric_limits<uint32_t>::max())
    throw EngineError(ErrorCode::unsupported, "A batch of codes holds " + std::to_string(codes.entries) +
                                                  " entries; at most 4294967295 can be ordered by feature. Use a "
                                                  "smaller batch.");
  Block offsets = allocator.allocateArray<uint64_t>(codes.dSae + 1);
  Block entries = allocator.allocateArray<uint32_t>(codes.entries);
  Block rows = allocator.allocateArray<uint32_t>(codes.entries);
  uint64_t* next = offsets.as<uint64_t>();  // of feature f: where its next entry goes, kept at next[f + 1]
  std::fill(next, next + codes.dSae + 1, 0);
  for (int64_t entry = 0; entry < codes.entries; ++entry) ++next[codes.feature()[entry] + 1];
  uint64_t before = 0;
  for (int64_t feature = 0; feature < codes.dSae; ++feature) before += std::exchange(next[feature + 1], before);
  for (int64_t row = 0; row < codes.rows; ++row)
    for (uint64_t entry = codes.offsets()[row]; entry < codes.offsets()[row + 1]; ++entry) {
      const uint64_t place = next[codes.feature()[entry] + 1]++;
      entries.as<uint32_t>()[place] = uint32_t(entry);
      rows.as<uint32_t>()[place] = uint32_t(row);
    }
  codes.featureOffsets = std::move(offsets);
  codes.featureEntries = std::move(entries);
  codes.featureRows = std::move(rows);
}

// out[f] = scale * sum over the entries of f, rows ascending, of coefficients[e]; summed in double.
inline void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out,
                        Allocator& allocator) {
  if (!coefficients) coefficients = codes.value();
  const Block sums = allocator.allocateArray<double>(out.size);
  double* sum = sums.as<double>();
  std::fill(sum, sum + out.size, 0.0);
  for (int64_t entry = 0; entry < codes.entries; ++entry) sum[codes.feature()[entry]] += double(coefficients[entry]);
  for (int64_t feature = 0; feature < out.size; ++feature) out[feature] = float(scale * sum[feature]);
}

// out[f] = number of entries of f with value > 0.
inline void featureCounts(const Codes& codes, Vector<float> out, Allocator& allocator) {
  const Block counts = allocator.allocateArray<uint64_t>(out.size);
  uint64_t* count = counts.as<uint64_t>();
  std::fill(count, count + out.size, uint64_t(0));
  for (int64_t entry = 0; entry < codes.entries; ++entry) count[codes.feature()[entry]] += codes.value()[entry] > 0;
  for (int64_t feature = 0; feature < out.size; ++feature) out[feature] = float(count[feature]);
}

// tokensSinceFired[f] = 0 where f has an entry with value > 0, else + tokens.
inline void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired) {
  for (int64_t feature = 0; feature < tokensSinceFired.size; ++feature) tokensSinceFired[feature] += double(tokens);
  for (int64_t entry = 0; entry < codes.entries; ++entry)
    if (codes.value()[entry] > 0) tokensSinceFired[codes.feature()[entry]] = 0;
}

// The features with tokensSinceFired >= threshold.
inline std::shared_ptr<const FeatureSet> featuresNotFiredFor(Vector<const double> tokensSinceFired, double threshold,
                                                             Allocator& allocator) {
  auto set = std::make_shared<FeatureSet>();
  set->dSae = tokensSinceFired.size;
  set->position = allocator.allocateArray<uint32_t>(set->dSae);
  for (int64_t feature = 0; feature < set->dSae; ++feature)
    set->position.as<uint32_t>()[feature] =
        tokensSinceFired[feature] >= threshold ? uint32_t(set->count++) : std::numeric_limits<uint32_t>::max();
  set->indices = allocator.allocateArray<uint32_t>(set->count);
  for (int64_t feature = 0; feature < set->dSae; ++feature)
    if (tokensSinceFired[feature] >= threshold)
      set->indices.as<uint32_t>()[set->position.as<uint32_t>()[feature]] = uint32_t(feature);
  return set;
}

}  // namespace monosem::MONOSEM_ISA
