// The algebra of entries: one float for each entry of codes, in row order, computed from others at the same places; and
// codes made of a part of others.
#pragma once

#include "cpu/generic/feature_order.h"
#include "cpu/generic/simd_math.h"

namespace monosem::MONOSEM_ISA {

constexpr int64_t entriesPerItem = 16384;

// out[e] = scale * perFeature[feature(e)] * a[e] * b[e] + plus[e], multiplied from left to right.
//
// Reads and writes four bytes per entry and operand, plus the feature where perFeature is given (which itself stays in
// cache). Entries are independent.
inline void entryProduct(const Codes& codes, const EntryProduct& product, float* out, ThreadPool& pool) {
  const Floats scale = broadcast(float(product.scale));
  pool.forEachRange(codes.entries, entriesPerItem, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t entry = begin + offset;
      Floats result = scale;
      if (product.perFeature) {
        float factors[width];
        for (int lane = 0; lane < lanes; ++lane) factors[lane] = product.perFeature[codes.feature()[entry + lane]];
        result = result * loadLanes(factors, lanes);
      }
      if (product.a) result = result * loadLanes(product.a + entry, lanes);
      if (product.b) result = result * loadLanes(product.b + entry, lanes);
      if (product.plus) result = result + loadLanes(product.plus + entry, lanes);
      storeLanes(out + entry, result, lanes);
    });
  });
}

// out = x^exponent where x > 0, 0 where x <= 0; NaN stays.
inline void power(Vector<const float> x, double exponent, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, entriesPerItem, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out[i] = x[i] <= 0 ? 0.0f : std::pow(x[i], float(exponent));
  });
}

// The entries with from <= feature < to: in every row a stretch, since its features ascend. Two passes over the rows:
// where the stretches are, then their copies. What was eligible is kept as it was: a superset.
inline Codes featureRange(const Codes& codes, int64_t from, int64_t to, Allocator& allocator, ThreadPool& pool) {
  Codes range;
  range.rows = codes.rows;
  range.dSae = codes.dSae;
  range.subset = codes.subset;
  range.rowOffsets = allocator.allocateArray<uint64_t>(codes.rows + 1);
  const Block firsts = allocator.allocateArray<uint64_t>(codes.rows);  // of each row: its first entry in the range
  uint64_t* offsets = range.rowOffsets.as<uint64_t>();
  pool.forEachRange(codes.rows, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const uint32_t *first = codes.feature() + codes.offsets()[row],
                     *last = codes.feature() + codes.offsets()[row + 1];
      const uint32_t* start = std::lower_bound(first, last, from);
      firsts.as<uint64_t>()[row] = uint64_t(start - codes.feature());
      offsets[row + 1] = uint64_t(std::lower_bound(start, last, to) - start);
    }
  });
  offsets[0] = 0;
  for (int64_t row = 0; row < codes.rows; ++row) offsets[row + 1] += offsets[row];
  range.entries = int64_t(offsets[codes.rows]);

  const auto copyStretches = [&](const Block& source, Block& copy) {
    copy = allocator.allocate(4 * size_t(range.entries));
    pool.forEachRange(codes.rows, 256, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row)
        std::memcpy(copy.as<uint32_t>() + offsets[row], source.as<const uint32_t>() + firsts.as<const uint64_t>()[row],
                    4 * size_t(offsets[row + 1] - offsets[row]));
    });
  };
  copyStretches(codes.features, range.features);
  copyStretches(codes.preActivations, range.preActivations);
  if (codes.values) copyStretches(codes.values, range.values);
  return range;
}

// out[f] = scale * sum over the entries of f with |preActivation - thresholds[f]| < bandwidth / 2: coefficients[e], or
// 1 where there are none. The distance is taken in double; the sum runs as in sumPerFeature.
inline void windowSums(const Codes& codes, Vector<const float> thresholds, double bandwidth, const float* coefficients,
                       double scale, Vector<float> out, Allocator& allocator, ThreadPool& pool) {
  const double reach = bandwidth / 2;
  sumPerFeature(
      codes,
      [&](uint64_t entry) {
        const double distance = double(codes.preActivation()[entry]) - double(thresholds[codes.feature()[entry]]);
        return !(std::fabs(distance) < reach) ? 0.0 : coefficients ? double(coefficients[entry]) : 1.0;
      },
      [&](int64_t feature, double sum) { out[feature] = float(scale * sum); }, allocator, pool);
}

}  // namespace monosem::MONOSEM_ISA
