// Drawing the features of synthetic data: which of them fire in a sample, and how strongly.
//
// Sample s, with g [rank] and e [features] independent standard normal numbers, p a feature's probability, U its row of
// the correlation factors, t = the (1 - p) quantile of the standard normal distribution:
//
//   f fires  iff  U_f . g + sqrt(1 - |U_f|^2) e_f > t_f   and its parent, if it has one, is active
//   m_f      =    max(0, mean_f + deviation_f N(0, 1))
//   value_f  =    m_f, times value / mean of its parent if it has one; f is active if m_f > 0
//
// and of the active children of one parent a random one stays. Features are numbered breadth first: the roots, their
// children in order of the parents, and so on down `depth` levels; those left over have no parent.
//
// Given g the features fire independently, with probability erfc((t_f - U_f . g) / sqrt(2 (1 - |U_f|^2))) / 2, which
// is compared with a uniform number: no normal number per feature is needed, and none at all for the children of
// inactive parents. All random numbers come from counters (sample, index, purpose), so that a sample depends on the
// seed and its own number alone. Reads the packed factors (4 rank bytes a feature) once per sample, mostly from cache;
// writes 8 bytes per entry. Rows are independent: parallel over ranges of them, put together in order.
#pragma once

#include "cpu/generic/normal_quantile.h"
#include "cpu/generic/philox.h"
#include "cpu/generic/simd_math.h"

namespace monosem::MONOSEM_ISA {

// What the words of a counter are for; never 0, which is what randomUniform and its like have in this place.
enum class Purpose : uint32_t { correlation = 1, firing = 2, magnitude = 3, sibling = 4 };

// Counter (sample, index, purpose) under key `seed`.
inline std::array<uint32_t, 4> sampleWords(uint64_t seed, uint64_t sample, uint32_t index, Purpose purpose) {
  return philox({uint32_t(sample), uint32_t(sample >> 32), index, uint32_t(purpose)},
                {uint32_t(seed), uint32_t(seed >> 32)});
}

// The same for 16 neighbouring indices at once. Number i of a block is word i / 16 of index 16 * block + i % 16.
constexpr int indicesPerBlock = 16;
constexpr int wordsPerBlock = 4 * indicesPerBlock;

inline void sampleWordBlock(uint64_t seed, uint64_t sample, uint32_t block, Purpose purpose, uint32_t* words) {
  constexpr int vectors = indicesPerBlock / width;
  static_assert(indicesPerBlock % width == 0, "a block is a number of whole vectors");
  Ints a[vectors], b[vectors], c[vectors], d[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    a[v] = broadcastInt(int32_t(uint32_t(sample)));
    b[v] = broadcastInt(int32_t(uint32_t(sample >> 32)));
    c[v] = broadcastInt(int32_t(block * indicesPerBlock + uint32_t(v * width))) + laneIndices();
    d[v] = broadcastInt(int32_t(purpose));
  }
  const Ints firstFactor = broadcastInt(int32_t(0xD2511F53u)), secondFactor = broadcastInt(int32_t(0xCD9E8D57u));
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      Ints firstHigh, firstLow, secondHigh, secondLow;
      multiplyWide(a[v], firstFactor, firstHigh, firstLow);
      multiplyWide(c[v], secondFactor, secondHigh, secondLow);
      a[v] = secondHigh ^ b[v] ^ broadcastInt(int32_t(key0));
      b[v] = secondLow;
      c[v] = firstHigh ^ d[v] ^ broadcastInt(int32_t(key1));
      d[v] = firstLow;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    int32_t* out = reinterpret_cast<int32_t*>(words) + v * width;
    storeInts(out, a[v]);
    storeInts(out + indicesPerBlock, b[v]);
    storeInts(out + 2 * indicesPerBlock, c[v]);
    storeInts(out + 3 * indicesPerBlock, d[v]);
  }
}

// A normal number from 32 random bits, by inversion.
inline float normalFromWord(uint32_t word) {
  return float(normalQuantile((double(word) + 0.5) * 0x1p-32));
}

// The distribution in the form that is compared with: feature f fires with probability
// erfc(offsets[f] + sum over k of g[k] * slopes[k, f]) / 2.
class FiringLaw {
 public:
  explicit FiringLaw(const FeatureDistribution& features, Allocator& allocator)
      : rank_(features.factors ? features.factors.columns : 0),
        stride_((features.probabilities.size + width - 1) / width * width),
        packed_(allocator.allocateArray<float>((rank_ + 1) * stride_ + width)) {
    float* packed = packed_.as<float>();
    std::fill(packed, packed + (rank_ + 1) * stride_ + width, 0.0f);
    for (int64_t f = 0; f < features.probabilities.size; ++f) {
      const double threshold = -normalQuantile(double(features.probabilities[f]));
      if (std::isnan(threshold)) refuse(f, "probability", features.probabilities[f], "in [0, 1]");
      double explained = 0;
      for (int64_t k = 0; k < rank_; ++k)
        explained += double(features.factors.row(f)[k]) * double(features.factors.row(f)[k]);
      if (!(explained < 1)) refuse(f, "squared norm of correlation factors", float(explained), "below 1");
      if (!(features.means[f] > 0 && std::isfinite(features.means[f])))
        refuse(f, "mean", features.means[f], "above 0 and finite");
      if (!(features.deviations[f] >= 0 && std::isfinite(features.deviations[f])))
        refuse(f, "deviation", features.deviations[f], "at least 0 and finite");
      const double scale = 1 / std::sqrt(2 * (1 - explained));
      packed[f] = float(std::clamp(threshold * scale, -1e30, 1e30));  // beyond it: never, or always
      for (int64_t k = 0; k < rank_; ++k)
        packed[(1 + k) * stride_ + f] = float(-scale * double(features.factors.row(f)[k]));
    }
  }

  int64_t rank() const { return rank_; }

  // Bit i of fired[v] tells whether feature begin + v * width + i < end fires.
  void fire(const float* g, const float* uniforms, int64_t begin, int64_t end, uint32_t* fired) const {
    constexpr int together = 4;  // chains of dependent additions in flight
    int64_t f = begin;
    for (; f + together * width <= end; f += together * width, fired += together)
      fireVectors<together>(g, uniforms, f, fired);
    for (; f < end; f += width, ++fired) {
      const int lanes = int(std::min<int64_t>(width, end - f));
      fireVectors<1>(g, uniforms, f, fired);
      *fired &= uint32_t((uint64_t(1) << lanes) - 1);
    }
  }

 private:
  static constexpr float certain = 12;  // erfc(12) is 0 and erfc(-12) 2 in float

  // The vectors from f on. What is packed, and the uniform numbers, go on for a vector behind the last feature.
  template <int vectors>
  void fireVectors(const float* g, const float* uniforms, int64_t f, uint32_t* fired) const {
    const float* packed = packed_.as<const float>() + f;
    Floats argument[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) argument[v] = load(packed + v * width);
    for (int64_t k = 0; k < rank_; ++k) {
      packed += stride_;
      const Floats factor = broadcast(g[k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) argument[v] = fma(factor, load(packed + v * width), argument[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const Floats bounded = max(broadcast(-certain), min(broadcast(certain), argument[v]));
      fired[v] = maskBits(broadcast(0.5f) * erfc(bounded) > load(uniforms + f + v * width));
    }
  }

  [[noreturn]] static void refuse(int64_t feature, const char* what, float found, const char* expected) {
    throw EngineError(ErrorCode::invalidArgument, "The " + std::string(what) + " of feature " +
                                                      std::to_string(feature) + " must be " + expected + ", but is " +
                                                      std::to_string(found) + ".");
  }

  int64_t rank_;
  int64_t stride_;
  Block packed_;  // [1 + rank, stride]: offsets, then slopes
};

// The breadth-first numbering: level l has the features [begin(l), end(l)), the children of a parent are neighbours.
class Levels {
 public:
  explicit Levels(const FeatureDistribution& features)
      : children_(features.children), features_(features.probabilities.size) {
    int64_t size = std::min(features.roots, features_);
    for (int64_t level = 0; level <= features.depth && size > 0 && ends_.back() < features_; ++level) {
      ends_.push_back(ends_.back() + std::min(size, features_ - ends_.back()));
      if (children_ == 0) break;
      size = std::min(size, features_ / children_ + 1) * children_;
    }
  }

  int64_t count() const { return int64_t(ends_.size()) - 1; }
  int64_t begin(int64_t level) const { return ends_[size_t(level)]; }
  int64_t end(int64_t level) const { return ends_[size_t(level) + 1]; }
  int64_t firstFree() const { return ends_.back(); }
  // The children, of level `level`, of a parent of the level before.
  std::pair<int64_t, int64_t> childrenOf(int64_t parent, int64_t level) const {
    const int64_t first = std::min(begin(level) + (parent - begin(level - 1)) * children_, end(level));
    return {first, std::min(first + children_, end(level))};
  }

 private:
  int64_t children_;
  int64_t features_;
  std::vector<int64_t> ends_{0};
};

// Draws samples one after another and keeps their entries.
class FeatureSampler {
 public:
  FeatureSampler(const FeatureDistribution& features, const FiringLaw& law, const Levels& levels, uint64_t seed)
      : distribution_(features),
        law_(law),
        levels_(levels),
        seed_(seed),
        factors_(size_t(blocksFor(law.rank()) * wordsPerBlock)),
        uniforms_(size_t(blocksFor(features.probabilities.size) * wordsPerBlock + width)),
        drawn_(size_t(blocksFor(features.probabilities.size)), 0),
        fired_(size_t(features.probabilities.size / width + 2)) {}

  // Appends the entries of a sample; returns their number.
  int64_t draw(uint64_t sample) {
    sample_ = sample;
    ++draws_;
    drawFactors();
    const size_t before = features.size();
    if (levels_.count() > 0) fire(levels_.begin(0), levels_.end(0), [&](int64_t f) { activate(f, magnitude(f)); });
    size_t parent = before;
    for (int64_t level = 1; level < levels_.count(); ++level)
      for (const size_t end = features.size(); parent < end; ++parent) drawChildren(parent, level);
    fire(levels_.firstFree(), distribution_.probabilities.size, [&](int64_t f) { activate(f, magnitude(f)); });
    return int64_t(features.size() - before);
  }

  std::vector<uint32_t> features;
  std::vector<float> values;

 private:
  static int64_t blocksFor(int64_t numbers) { return (numbers + wordsPerBlock - 1) / wordsPerBlock; }

  void drawFactors() {
    uint32_t words[wordsPerBlock];
    for (int64_t k = 0; k < law_.rank(); ++k) {
      if (k % wordsPerBlock == 0)
        sampleWordBlock(seed_, sample_, uint32_t(k / wordsPerBlock), Purpose::correlation, words);
      factors_[size_t(k)] = normalFromWord(words[k % wordsPerBlock]);
    }
  }

  // Uniform numbers for the features [begin, end): multiples of 2^-31 in [0, 1), none of which rounds to 1.
  void drawUniforms(int64_t begin, int64_t end) {
    for (int64_t block = begin / wordsPerBlock; block * wordsPerBlock < end; ++block) {
      if (drawn_[size_t(block)] == draws_) continue;
      drawn_[size_t(block)] = draws_;
      alignas(64) uint32_t words[wordsPerBlock];
      sampleWordBlock(seed_, sample_, uint32_t(block), Purpose::firing, words);
      float* uniforms = uniforms_.data() + block * wordsPerBlock;
      for (int i = 0; i < wordsPerBlock; ++i)
        uniforms[i] = std::min(float(int32_t(words[i] >> 1)) * 0x1p-31f, 0x1.fffffep-1f);
    }
  }

  // Calls use(f) for the features of [begin, end) that fire, whatever their parents do.
  template <class Use>
  void fire(int64_t begin, int64_t end, const Use& use) {
    if (begin >= end) return;
    drawUniforms(begin, end);
    law_.fire(factors_.data(), uniforms_.data(), begin, end, fired_.data());
    const uint32_t* fired = fired_.data();
    for (int64_t f = begin; f < end; f += width, ++fired)
      for (uint32_t bits = *fired; bits != 0; bits &= bits - 1) use(f + __builtin_ctz(bits));
  }

  float magnitude(int64_t f) const {
    const std::array<uint32_t, 4> words = sampleWords(seed_, sample_, uint32_t(f), Purpose::magnitude);
    return std::max(0.0f, distribution_.means[f] + distribution_.deviations[f] * normalFromWord(words[0]));
  }

  void activate(int64_t f, float value) {
    if (!(value > 0)) return;
    features.push_back(uint32_t(f));
    values.push_back(value);
  }

  void drawChildren(size_t parent, int64_t level) {
    const auto [begin, end] = levels_.childrenOf(features[parent], level);
    siblings_.clear();
    fire(begin, end, [&](int64_t f) {
      if (const float value = magnitude(f); value > 0) siblings_.push_back({f, value});
    });
    if (siblings_.empty()) return;
    const uint32_t word =
        siblings_.size() == 1 ? 0 : sampleWords(seed_, sample_, features[parent], Purpose::sibling)[0];
    const auto [child, value] = siblings_[size_t((uint64_t(word) * siblings_.size()) >> 32)];
    activate(child, value * (values[parent] / distribution_.means[features[parent]]));
  }

  const FeatureDistribution& distribution_;
  const FiringLaw& law_;
  const Levels& levels_;
  const uint64_t seed_;
  uint64_t sample_ = 0;
  uint64_t draws_ = 0;
  std::vector<float> factors_;
  std::vector<float> uniforms_;
  std::vector<uint64_t> drawn_;  // for each block of uniforms_, the draw that it is of
  std::vector<uint32_t> fired_;
  std::vector<std::pair<int64_t, float>> siblings_;
};

inline Codes drawFeatures(const FeatureDistribution& features, int64_t rows, uint64_t seed, uint64_t offset,
                          Allocator& allocator, ThreadPool& pool) {
  const FiringLaw law(features, allocator);
  const Levels levels(features);
  Codes codes;
  codes.rows = rows;
  codes.dSae = features.probabilities.size;
  codes.rowOffsets = allocator.allocateArray<uint64_t>(rows + 1);
  uint64_t* rowOffsets = codes.rowOffsets.as<uint64_t>();
  rowOffsets[0] = 0;

  constexpr int64_t rowsPerRange = 128;
  struct Entries {
    std::vector<uint32_t> features;
    std::vector<float> values;
  };
  std::vector<Entries> ranges(size_t((rows + rowsPerRange - 1) / rowsPerRange));
  pool.forEachRange(rows, rowsPerRange, [&](int64_t begin, int64_t end, int) {
    FeatureSampler sampler(features, law, levels, seed);
    for (int64_t row = begin; row < end; ++row) rowOffsets[row + 1] = uint64_t(sampler.draw(offset + uint64_t(row)));
    ranges[size_t(begin / rowsPerRange)] = {std::move(sampler.features), std::move(sampler.values)};
  });
  for (int64_t row = 0; row < rows; ++row) rowOffsets[row + 1] += rowOffsets[row];
  codes.entries = int64_t(rowOffsets[rows]);
  codes.features = allocator.allocateArray<uint32_t>(codes.entries);
  codes.preActivations = allocator.allocateArray<float>(codes.entries);
  pool.forEach(int64_t(ranges.size()), [&](int64_t range, int) {
    const Entries& entries = ranges[size_t(range)];
    const uint64_t at = rowOffsets[range * rowsPerRange];
    std::copy(entries.features.begin(), entries.features.end(), codes.features.as<uint32_t>() + at);
    std::copy(entries.values.begin(), entries.values.end(), codes.preActivations.as<float>() + at);
  });
  return codes;
}

}  // namespace monosem::MONOSEM_ISA
