// The codes' entries sorted by (feature, row), and what is counted and summed per feature.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// The codes' feature order, built by a counting sort, which is stable: entries come ordered by row.
inline const FeatureOrder& featureOrderOf(const Codes& codes, Allocator& allocator) {
  FeatureOrder& order = *codes.featureOrder;
  if (order.offsets) return order;
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
  order = {std::move(offsets), std::move(entries), std::move(rows)};
  return order;
}

// Calls finish(f, sum over the entries of f, rows ascending: addend(entry)); the sums run in double.
//
// The rows are cut into stretches, the more the denser the codes are, which have their own sums and run side by side.
template <class Addend, class Finish>
inline void sumPerFeature(const Codes& codes, const Addend& addend, const Finish& finish, Allocator& allocator,
                          ThreadPool& pool) {
  constexpr int64_t mostStretches = 16;
  const int64_t stretches = std::clamp<int64_t>(codes.entries / (16 * codes.dSae + 1), 1, mostStretches);
  const int64_t rowsPerStretch = (codes.rows + stretches - 1) / stretches;
  const Block sums = allocator.allocateArray<double>(stretches * codes.dSae);
  pool.forEach(stretches, [&](int64_t stretch, int) {
    double* sum = sums.as<double>() + stretch * codes.dSae;
    std::fill(sum, sum + codes.dSae, 0.0);
    const uint64_t end = codes.offsets()[std::min(codes.rows, (stretch + 1) * rowsPerStretch)];
    for (uint64_t entry = codes.offsets()[std::min(codes.rows, stretch * rowsPerStretch)]; entry < end; ++entry)
      sum[codes.feature()[entry]] += addend(entry);
  });
  for (int64_t feature = 0; feature < codes.dSae; ++feature) {
    double total = 0;
    for (int64_t stretch = 0; stretch < stretches; ++stretch)
      total += sums.as<double>()[stretch * codes.dSae + feature];
    finish(feature, total);
  }
}

// out[f] = scale * sum over the entries of f of coefficients[e].
inline void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out,
                        Allocator& allocator, ThreadPool& pool) {
  if (!coefficients) coefficients = codes.value();
  sumPerFeature(
      codes, [&](uint64_t entry) { return double(coefficients[entry]); },
      [&](int64_t feature, double sum) { out[feature] = float(scale * sum); }, allocator, pool);
}

// out[f] = number of active entries of f.
inline void featureCounts(const Codes& codes, Vector<float> out, Allocator& allocator, ThreadPool& pool) {
  const float* values = codes.value();
  sumPerFeature(
      codes, [&](uint64_t entry) { return values[entry] != 0 ? 1.0 : 0.0; },
      [&](int64_t feature, double count) { out[feature] = float(count); }, allocator, pool);
}

// tokensSinceFired[f] = 0 where f has an active entry, else + tokens.
inline void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired,
                                   Allocator& allocator, ThreadPool& pool) {
  const float* values = codes.value();
  sumPerFeature(
      codes, [&](uint64_t entry) { return values[entry] != 0 ? 1.0 : 0.0; },
      [&](int64_t feature, double count) {
        tokensSinceFired[feature] = count > 0 ? 0 : tokensSinceFired[feature] + double(tokens);
      },
      allocator, pool);
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
