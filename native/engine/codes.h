// Codes: the selected entries of a batch, a ragged [rows, dSae] matrix.
//
// An entry is (feature, pre-activation, value). Entries are ordered by row and, within a row, by ascending feature.
// An entry is active where its value is not 0; values may be negative. It can be selected without being active (a
// negative pre-activation among the top k, or JumpReLU's window around the threshold). Kernels after the encoder cost
// O(entries x dIn), or, while the codes are still dense, use blocked dense products over the same entries.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

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

// The entries sorted by (feature, row), built by the kernel that needs them so first.
struct FeatureOrder {
  Block offsets;  // uint64 [dSae + 1]
  Block entries;  // uint32 [entries]: index of the entry in row order
  Block rows;     // uint32 [entries]: its row
};

struct Codes {
  int64_t rows = 0;
  int64_t dSae = 0;
  int64_t entries = 0;
  Block rowOffsets;                          // uint64 [rows + 1]
  Block features;                            // uint32 [entries]
  Block preActivations;                      // float  [entries]
  Block values;                              // float  [entries]; empty when equal to preActivations
  std::shared_ptr<const FeatureSet> subset;  // the features that were eligible; null: all
  std::shared_ptr<FeatureOrder> featureOrder = std::make_shared<FeatureOrder>();  // of all codes with these places

  const uint64_t* offsets() const { return rowOffsets.as<const uint64_t>(); }
  const uint32_t* feature() const { return features.as<const uint32_t>(); }
  const float* preActivation() const { return preActivations.as<const float>(); }
  const float* value() const { return (values ? values : preActivations).as<const float>(); }

  // Codes with entries at the same places, whose memory they share.
  Codes withValues(Block newPreActivations, Block newValues) const {
    Codes codes = *this;
    codes.preActivations = std::move(newPreActivations);
    codes.values = std::move(newValues);
    return codes;
  }

  // Entries over the places an entry could stand.
  double density() const {
    const double places = double(rows) * double(subset ? subset->count : dSae);
    return places > 0 ? double(entries) / places : 0;
  }
};

}  // namespace monosem
