// Codes: the selected entries of a batch, a ragged [rows, dSae] matrix.
//
// An entry is (feature, pre-activation, value). Entries are ordered by row and, within a row, by ascending feature.
// An entry can be selected without being active: its value is then 0 (a negative pre-activation among the top k, or
// JumpReLU's window around the threshold). Kernels after the encoder cost O(entries x dIn), or, while the codes are
// still dense, use blocked dense products over the same entries.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/allocator.h"
#include "engine/views.h"

namespace monosem {

// A subset of the features, ascending: for example the dead ones.
struct FeatureSet {
  int64_t dSae = 0;
  int64_t count = 0;
  Block indices;   // uint32 [count], ascending
  Block position;  // uint32 [dSae]: where a feature stands in `indices`; UINT32_MAX where it does not

  Vector<const uint32_t> view() const { return {indices.as<const uint32_t>(), count}; }
};

struct Codes {
  int64_t rows = 0;
  int64_t dSae = 0;
  int64_t entries = 0;
  Block rowOffsets;      // uint64 [rows + 1]
  Block features;        // uint32 [entries]
  Block preActivations;  // float  [entries]
  Block values;          // float  [entries]; empty when equal to preActivations (all entries are positive)
  std::shared_ptr<const FeatureSet> subset;  // the features that were eligible; null: all

  // Feature-ordered view, built by the kernels that need it on first use: entries sorted by (feature, row).
  Block featureOffsets;  // uint64 [dSae + 1]
  Block featureEntries;  // uint32 [entries]: index of the entry in row order
  Block featureRows;     // uint32 [entries]: its row

  const uint64_t* offsets() const { return rowOffsets.as<const uint64_t>(); }
  const uint32_t* feature() const { return features.as<const uint32_t>(); }
  const float* preActivation() const { return preActivations.as<const float>(); }
  const float* value() const { return (values ? values : preActivations).as<const float>(); }
  bool hasFeatureOrder() const { return bool(featureOffsets); }

  // Entries over the places an entry could stand.
  double density() const {
    const double places = double(rows) * double(subset ? subset->count : dSae);
    return places > 0 ? double(entries) / places : 0;
  }
};

}  // namespace monosem
