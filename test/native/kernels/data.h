// Random operands.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "engine/allocator.h"
#include "engine/codes.h"
#include "engine/views.h"

namespace monosem::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline Vector<const float> view(const Floats& v) {
  return {v.data(), int64_t(v.size())};
}
inline Vector<float> view(Floats& v) {
  return {v.data(), int64_t(v.size())};
}
inline Matrix<const float> matrix(const Floats& v, int64_t rows) {
  return {v.data(), rows, rows ? int64_t(v.size()) / rows : 0};
}
inline Matrix<float> matrix(Floats& v, int64_t rows) {
  return {v.data(), rows, rows ? int64_t(v.size()) / rows : 0};
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float normal() { return normal_(engine_); }
  double uniform() { return uniform_(engine_); }
  int64_t below(int64_t bound) { return int64_t(engine_() % uint64_t(bound)); }
  Floats normals(int64_t count, float factor = 1) {
    Floats values(static_cast<size_t>(count));
    for (float& value : values) value = factor * normal();
    return values;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
  std::uniform_real_distribution<double> uniform_{0, 1};
};

// The same codes as plain arrays.
struct PlainCodes {
  int64_t rows = 0, dSae = 0;
  std::vector<uint64_t> offsets{0};
  std::vector<uint32_t> features;
  Floats preActivations, values;

  int64_t entries() const { return int64_t(features.size()); }
  int64_t rowOf(int64_t entry) const {
    return std::upper_bound(offsets.begin(), offsets.end(), uint64_t(entry)) - offsets.begin() - 1;
  }

  Codes onDevice(Allocator& allocator) const {
    Codes codes;
    codes.rows = rows;
    codes.dSae = dSae;
    codes.entries = entries();
    codes.rowOffsets = copy(allocator, offsets);
    codes.features = copy(allocator, features);
    codes.preActivations = copy(allocator, preActivations);
    if (values != preActivations) codes.values = copy(allocator, values);
    return codes;
  }

  template <class T>
  static Block copy(Allocator& allocator, const std::vector<T>& from) {
    Block block = allocator.allocateArray<T>(int64_t(from.size()));
    std::copy(from.begin(), from.end(), block.template as<T>());
    return block;
  }
};

// The codes with some numbers turned around: values of both signs, and zeros of both signs where they were inactive.
inline PlainCodes withSigns(Random& random, PlainCodes codes) {
  for (size_t e = 0; e < codes.features.size(); ++e) {
    if (random.uniform() < 0.6) continue;
    codes.values[e] = -codes.values[e];
    if (codes.values[e] != 0) codes.preActivations[e] = codes.values[e];
  }
  return codes;
}

// Every place is an entry with probability `density`; every fifth row is empty; with `inactive`, a fifth of the entries
// have a negative pre-activation and the value 0.
inline PlainCodes randomCodes(Random& random, int64_t rows, int64_t dSae, double density, bool inactive) {
  PlainCodes codes;
  codes.rows = rows;
  codes.dSae = dSae;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t feature = 0; feature < dSae; ++feature) {
      if (row % 5 == 3 || random.uniform() >= density) continue;
      const float magnitude = std::fabs(random.normal()) + 0.01f;
      const bool active = !inactive || random.uniform() < 0.8;
      codes.features.push_back(uint32_t(feature));
      codes.preActivations.push_back(active ? magnitude : -magnitude);
      codes.values.push_back(active ? magnitude : 0);
    }
    codes.offsets.push_back(codes.features.size());
  }
  return codes;
}

// Sparse but for a few features, which fire in most rows.
inline PlainCodes codesWithBusyFeatures(Random& random, int64_t rows, int64_t dSae, double density) {
  PlainCodes codes;
  codes.rows = rows;
  codes.dSae = dSae;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t feature = 0; feature < dSae; ++feature) {
      const bool busy = feature == 1 || feature == 2 || feature == dSae - 1;
      if (random.uniform() >= (busy ? 0.95 : density)) continue;
      codes.features.push_back(uint32_t(feature));
      codes.preActivations.push_back(std::fabs(random.normal()) + 0.01f);
      codes.values.push_back(codes.preActivations.back());
    }
    codes.offsets.push_back(codes.features.size());
  }
  return codes;
}

}  // namespace monosem::test
