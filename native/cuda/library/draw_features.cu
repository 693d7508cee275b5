// Drawing the features of synthetic data, as cpu/generic/draw_features.h says: from the same random numbers, those of
// counters (sample, index, purpose).
//
// Whether a feature fires, whatever its parent does, takes a dot product with the sample's correlations: fireKernel
// decides it for all features and a tile of samples at a time, and keeps one bit. Which features are active, and how
// strongly, follows from the bits level by level: resolveKernel, which computes the magnitudes of those alone that fire
// under an active parent. It runs twice, to count the entries and, when their number is known, to write them.
//
// The bits are of a chunk of samples. Where one chunk is not all of them, they are made again for the second run.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cuda/library/kernels.h"
#include "cuda/library/normal_quantile.h"
#include "cuda/library/pack.h"
#include "cuda/library/philox.h"
#include "cuda/library/scan.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

constexpr int64_t bitsPerWord = 32;
constexpr int64_t samplesPerTile = 8;
// The uniform numbers of a block of 64 features come from 16 counters, four from each: number i of a block is word
// i / 16 of index 16 * block + i % 16. A lane takes the features of a counter, a warp two blocks.
constexpr int64_t indicesPerBlock = 16, numbersPerBlock = 4 * indicesPerBlock;
constexpr int featuresPerLane = 4;
constexpr int64_t featuresPerWarp = featuresPerLane * int64_t(warpSize_);

// What the words of a counter are for; never 0, which is what randomUniform and its like have in this place.
enum class Purpose : uint32_t { correlation = 1, firing = 2, magnitude = 3, sibling = 4 };

// Counter (sample, index, purpose) under key `seed`.
__device__ inline RandomWords sampleWords(uint64_t seed, uint64_t sample, int64_t index, Purpose purpose) {
  return philox({{uint32_t(sample), uint32_t(sample >> 32), uint32_t(index), uint32_t(purpose)}}, seed);
}

// A normal number from 32 random bits, by inversion.
__device__ inline float normalFromWord(uint32_t word) {
  return float(normalQuantile((double(word) + 0.5) * 0x1p-32));
}

// ---- The distribution

// The distribution in the form that is compared with: feature f fires with probability
// erfc(packed[0, f] + sum over k of g[k] * packed[1 + k, f]) / 2. There are whole warps of features; those beyond the
// last one never fire.
struct FiringLaw {
  float* packed;  // [1 + rank, stride]: offsets, then slopes
  int64_t rank;
  int64_t stride;

  int64_t words() const { return stride / bitsPerWord; }  // of a sample's bits
};

// Packs the law, a thread per feature. *refused becomes features - f for the first feature f that makes no
// distribution.
__global__ void packLawKernel(FeatureDistribution features, FiringLaw law, unsigned long long* refused) {
  const int64_t count = features.probabilities.size;
  FOR_EACH_ELEMENT(f, law.stride) {
    constexpr double never = 1e30;
    float* packed = law.packed + f;
    if (f >= count) {
      packed[0] = float(never);
      for (int64_t k = 0; k < law.rank; ++k) packed[(1 + k) * law.stride] = 0;
      continue;
    }
    const float* factors = features.factors.data + f * law.rank;
    const float probability = features.probabilities.data[f], mean = features.means.data[f],
                deviation = features.deviations.data[f];
    double explained = 0;
    for (int64_t k = 0; k < law.rank; ++k) explained += double(factors[k]) * double(factors[k]);
    if (!(probability >= 0 && probability <= 1 && explained < 1 && mean > 0 && isFinite(mean) && deviation >= 0 &&
          isFinite(deviation)))
      atomicMax(refused, static_cast<unsigned long long>(count - f));
    const double scale = 1 / sqrt(2 * (1 - explained));
    const double threshold = -normalQuantile(double(probability)) * scale;
    packed[0] = float(threshold > never ? never : threshold < -never ? -never : threshold);
    for (int64_t k = 0; k < law.rank; ++k) packed[(1 + k) * law.stride] = float(-scale * double(factors[k]));
  }
}

// What is wrong with feature f: the first of these that is.
EngineError refusalOf(Context& gpu, const FeatureDistribution& features, int64_t rank, int64_t f) {
  const auto refusal = [&](const char* what, float found, const char* expected) {
    return EngineError(ErrorCode::invalidArgument, "The " + std::string(what) + " of feature " + std::to_string(f) +
                                                       " must be " + expected + ", but is " + std::to_string(found) +
                                                       ".");
  };
  const float probability = gpu.read(features.probabilities.data + f);
  if (!(probability >= 0 && probability <= 1)) return refusal("probability", probability, "in [0, 1]");
  std::vector<float> factors(static_cast<size_t>(rank));
  gpu.download(features.factors.data + f * rank, factors.data(), sizeof(float) * factors.size());
  double explained = 0;
  for (const float factor : factors) explained += double(factor) * double(factor);
  if (!(explained < 1)) return refusal("squared norm of correlation factors", float(explained), "below 1");
  const float mean = gpu.read(features.means.data + f);
  if (!(mean > 0 && std::isfinite(mean))) return refusal("mean", mean, "above 0 and finite");
  return refusal("deviation", gpu.read(features.deviations.data + f), "at least 0 and finite");
}

// The features that have parents, numbered breadth first: level l is [ends[l], ends[l + 1]), the first level the
// roots', and the children of a parent are neighbours. Features from the last end on have no parent either.
struct Trees {
  const int64_t* ends;  // [levels + 1], on the device; the first is 0
  int64_t levels;
  int64_t children;   // of a feature, at most all features
  int64_t firstFree;  // the last end
};

Trees treesOf(Context& gpu, const FeatureDistribution& features) {
  const int64_t count = features.probabilities.size, children = std::min(features.children, count);
  std::vector<int64_t> ends{0};
  int64_t size = std::min(features.roots, count);
  for (int64_t level = 0; level <= features.depth && size > 0 && ends.back() < count; ++level) {
    ends.push_back(ends.back() + std::min(size, count - ends.back()));
    if (children == 0) break;
    size = std::min(size, count / children + 1) * children;
  }
  return {gpu.uploaded(ends.data(), int64_t(ends.size())), int64_t(ends.size()) - 1, children, ends.back()};
}

// ---- Firing

// A chunk of the samples: rows [first, first + count) of the codes.
struct Samples {
  uint64_t seed;
  uint64_t offset;  // the number of row 0's sample
  int64_t first;
  int64_t count;

  int64_t tiles() const { return (count + samplesPerTile - 1) / samplesPerTile; }
  __device__ uint64_t number(int64_t inChunk) const { return offset + uint64_t(first + inChunk); }
};

// g[tile, k, s] = normal number k of sample s of the tile, also of samples beyond the last.
__global__ void drawCorrelationsKernel(Samples samples, int64_t rank, int64_t count, float* g) {
  FOR_EACH_ELEMENT(i, count) {
    const int64_t inTile = i % samplesPerTile, k = i / samplesPerTile % rank, tile = i / samplesPerTile / rank;
    const int64_t block = k / numbersPerBlock, inBlock = k % numbersPerBlock;
    const RandomWords words = sampleWords(samples.seed, samples.number(tile * samplesPerTile + inTile),
                                          block * indicesPerBlock + inBlock % indicesPerBlock, Purpose::correlation);
    g[i] = normalFromWord(words.word[inBlock / indicesPerBlock]);
  }
}

constexpr unsigned fireThreads = 128;

// Bit f % 32 of fired[s, f / 32] tells whether feature f fires in sample s: whether its probability, given the sample's
// correlations, is above its uniform number, a multiple of 2^-31 in [0, 1), none of which rounds to 1.
//
// A warp decides 128 features of a tile of samples, so that the law, which stays in the second-level cache, is read
// once per tile. blockIdx.x counts the block's features first, `widthInBlocks` blocks wide, then the tiles. Per feature
// and sample: rank additions in ascending order, a quarter of a counter, one erfc.
__global__ void __launch_bounds__(fireThreads)
    fireKernel(FiringLaw law, Samples samples, const float* g, int64_t widthInBlocks, uint32_t* fired) {
  const int64_t tile = blockIdx.x / widthInBlocks;
  const int64_t warp = blockIdx.x % widthInBlocks * (blockDim.x / warpSize_) + warpOf();
  const int64_t firstFeature = warp * featuresPerWarp;
  if (firstFeature >= law.stride) return;  // the whole warp
  const int64_t block = laneOf() / indicesPerBlock, index = laneOf() % indicesPerBlock;
  const float* packed = law.packed + firstFeature + block * numbersPerBlock + index;

  float arguments[samplesPerTile][featuresPerLane];
  for (int i = 0; i < featuresPerLane; ++i)
    for (int s = 0; s < samplesPerTile; ++s) arguments[s][i] = packed[i * indicesPerBlock];
  g += tile * law.rank * samplesPerTile;
  for (int64_t k = 0; k < law.rank; ++k, g += samplesPerTile) {
    packed += law.stride;
    const Pack<float, 4> first = loadPack<4>(g), second = loadPack<4>(g + 4);
    for (int i = 0; i < featuresPerLane; ++i) {
      const float slope = packed[i * indicesPerBlock];
      for (int s = 0; s < 4; ++s) {
        arguments[s][i] = fmaf(first.at[s], slope, arguments[s][i]);
        arguments[4 + s][i] = fmaf(second.at[s], slope, arguments[4 + s][i]);
      }
    }
  }

  const int64_t counter = warp * (2 * indicesPerBlock) + laneOf();  // its index
  for (int s = 0; s < samplesPerTile; ++s) {
    const int64_t sample = tile * samplesPerTile + s;
    const RandomWords words = sampleWords(samples.seed, samples.number(sample), counter, Purpose::firing);
    uint32_t votes[featuresPerLane];  // of the first block's 16 features in the lower half, the second's in the upper
    for (int i = 0; i < featuresPerLane; ++i) {
      constexpr float belowOne = 0x1.fffffep-1f;
      const float uniform = fminf(float(words.word[i] >> 1) * 0x1p-31f, belowOne);
      votes[i] = __ballot_sync(allLanes, 0.5f * erfcf(arguments[s][i]) > uniform);
    }
    if (laneOf() != 0 || sample >= samples.count) continue;
    constexpr uint32_t lower = 0xffff;
    const Pack<uint32_t, 4> bits = {{(votes[0] & lower) | votes[1] << 16, (votes[2] & lower) | votes[3] << 16,
                                     votes[0] >> 16 | (votes[1] & ~lower), votes[2] >> 16 | (votes[3] & ~lower)}};
    storePack(fired + sample * (law.stride / bitsPerWord) + firstFeature / bitsPerWord, bits);
  }
}

// ---- Resolving

// The bits of the features [begin, end) in word `word`.
__device__ inline uint32_t bitsWithin(int64_t word, int64_t begin, int64_t end) {
  const int64_t first = max(begin - word * bitsPerWord, int64_t(0)),
                last = min(end - word * bitsPerWord, int64_t(bitsPerWord));
  if (first >= last) return 0;
  return (last == bitsPerWord ? ~0u : (1u << last) - 1) & ~((1u << first) - 1);
}

// How many of the features [begin, end) have their bit set.
__device__ inline uint32_t countWithin(const uint32_t* bits, int64_t begin, int64_t end) {
  uint32_t count = 0;
  for (int64_t word = begin / bitsPerWord; word * bitsPerWord < end; ++word)
    count += __popc(bits[word] & bitsWithin(word, begin, end));
  return count;
}

// Calls use(feature, bit) for the bits of a word.
template <class Use>
__device__ inline void forEachBit(int64_t word, uint32_t bits, const Use& use) {
  for (; bits != 0; bits &= bits - 1) use(word * bitsPerWord + __ffs(int(bits)) - 1, bits & (0u - bits));
}

// What a block of resolveKernel works with: room for a sample at a time, which it goes through together, thread t
// taking the words t, t + blockDim, ... and their features.
struct SampleResolver {
  FeatureDistribution features;
  Trees trees;
  uint64_t seed;
  uint64_t sample;
  int64_t words;
  uint32_t* fired;       // [words]: afterwards the active features
  uint32_t* candidates;  // [words] of scratch
  float* values;         // [features], of those that are active

  __device__ float magnitude(int64_t f) const {
    const RandomWords words = sampleWords(seed, sample, f, Purpose::magnitude);
    const float drawn = fmaf(features.deviations.data[f], normalFromWord(words.word[0]), features.means.data[f]);
    return drawn > 0 ? drawn : 0;
  }

  // Of the given features of a word those with a magnitude above 0, which become their values.
  template <class Eligible>
  __device__ uint32_t drawMagnitudes(int64_t word, uint32_t bits, const Eligible& eligible) const {
    uint32_t drawn = 0;
    forEachBit(word, bits, [&](int64_t f, uint32_t bit) {
      if (!eligible(f)) return;
      values[f] = magnitude(f);
      if (values[f] > 0) drawn |= bit;
    });
    return drawn;
  }

  __device__ void resolve() const {
    const int64_t roots = trees.levels > 0 ? trees.ends[1] : 0, count = features.probabilities.size;
    for (int64_t word = threadIdx.x; word < words; word += blockDim.x) {
      const uint32_t parentless = bitsWithin(word, 0, roots) | bitsWithin(word, trees.firstFree, count);
      const uint32_t bits = fired[word];
      fired[word] = (bits & ~parentless) | drawMagnitudes(word, bits & parentless, [](int64_t) { return true; });
    }
    __syncthreads();
    for (int64_t level = 1; level < trees.levels; ++level) resolveLevel(level);
  }

  // Once the level before is resolved.
  __device__ void resolveLevel(int64_t level) const {
    const int64_t parents = trees.ends[level - 1], begin = trees.ends[level], end = trees.ends[level + 1];
    const auto parentOf = [&](int64_t f) { return parents + int64_t(uint32_t(f - begin) / uint32_t(trees.children)); };
    const int64_t first = begin / bitsPerWord + threadIdx.x;
    for (int64_t word = first; word * bitsPerWord < end; word += blockDim.x)
      candidates[word] = drawMagnitudes(word, fired[word] & bitsWithin(word, begin, end), [&](int64_t f) {
        const int64_t parent = parentOf(f);
        return (fired[parent / bitsPerWord] >> (parent % bitsPerWord) & 1u) != 0;
      });
    __syncthreads();
    // Of the candidates of one parent a random one stays.
    for (int64_t word = first; word * bitsPerWord < end; word += blockDim.x) {
      uint32_t active = 0;
      forEachBit(word, candidates[word], [&](int64_t f, uint32_t bit) {
        const int64_t parent = parentOf(f), firstSibling = begin + (parent - parents) * trees.children;
        const uint32_t siblings = countWithin(candidates, firstSibling, min(firstSibling + trees.children, end));
        const uint32_t chosen =
            siblings == 1 ? 0 : __umulhi(sampleWords(seed, sample, parent, Purpose::sibling).word[0], siblings);
        if (countWithin(candidates, firstSibling, f) != chosen) return;
        values[f] *= values[parent] / features.means.data[parent];
        if (values[f] > 0) active |= bit;
      });
      fired[word] = (fired[word] & ~bitsWithin(word, begin, end)) | active;
    }
    __syncthreads();
  }
};

constexpr unsigned mostResolveThreads = 128;

// What the blocks of resolveKernel have for themselves.
struct Scratch {
  uint32_t* candidates;  // [blocks, words]
  float* values;         // [blocks, features]
};

// Resolves the samples of a chunk, a block each in turn: fired [samples, words] become the active features. With
// `write` their entries are written from offsets[row] on, in ascending order; else their number is added to
// counts[row].
template <bool write>
__global__ void __launch_bounds__(mostResolveThreads, 8)
    resolveKernel(FeatureDistribution features, Trees trees, Samples samples, int64_t words, uint32_t* fired,
                  Scratch scratch, uint32_t* counts, MadeCodes made) {
  __shared__ uint32_t sums[33];
  const int64_t count = features.probabilities.size;
  for (int64_t sample = blockIdx.x; sample < samples.count; sample += gridDim.x) {
    const SampleResolver resolver{features,
                                  trees,
                                  samples.seed,
                                  samples.number(sample),
                                  words,
                                  fired + sample * words,
                                  scratch.candidates + blockIdx.x * words,
                                  scratch.values + blockIdx.x * count};
    resolver.resolve();
    const int64_t row = samples.first + sample;
    if constexpr (write) {
      uint64_t place = made.rowOffsets[row];
      for (int64_t first = 0; first < words; first += blockDim.x) {
        const int64_t word = first + threadIdx.x;
        const uint32_t active = word < words ? resolver.fired[word] : 0;
        uint32_t total;
        uint64_t own = place + blockExclusiveSum(uint32_t(__popc(active)), sums, &total);
        forEachBit(word, active, [&](int64_t f, uint32_t) {
          made.features[own] = uint32_t(f);
          made.preActivations[own] = resolver.values[f];
          ++own;
        });
        place += total;
      }
    } else {
      uint32_t own = 0;
      for (int64_t word = threadIdx.x; word < words; word += blockDim.x) own += __popc(resolver.fired[word]);
      if (own > 0) atomicAdd(counts + row, own);
    }
  }
}

}  // namespace

void drawFeatures(Context& gpu, FeatureDistribution features, int64_t rows, uint64_t seed, uint64_t offset,
                  MadeCodes* made) {
  const int64_t count = features.probabilities.size;
  FiringLaw law;
  law.rank = features.factors ? features.factors.columns : 0;
  law.stride = std::max<int64_t>((count + featuresPerWarp - 1) / featuresPerWarp, 1) * featuresPerWarp;
  law.packed = gpu.allocate<float>((1 + law.rank) * law.stride);
  unsigned long long* refused = gpu.allocate<unsigned long long>(1);
  gpu.clear(refused, sizeof *refused);
  launch(gpu, packLawKernel, elementwise(gpu, law.stride), features, law, refused);
  const Trees trees = treesOf(gpu, features);

  // Scratch of at most 64 MB each, or of one tile of samples and of one sample.
  constexpr int64_t mostWords = int64_t(1) << 24;
  const int64_t tiles = std::max<int64_t>(mostWords / samplesPerTile / std::max(law.words(), law.rank), 1);
  const int64_t chunkRows = std::max<int64_t>(std::min(tiles * samplesPerTile, rows), 1);
  const int64_t chunkTiles = (chunkRows + samplesPerTile - 1) / samplesPerTile;
  float* g = gpu.allocate<float>(chunkTiles * law.rank * samplesPerTile);
  uint32_t* fired = gpu.allocate<uint32_t>(chunkRows * law.words());
  const int64_t blocks = std::max<int64_t>(std::min(mostWords / law.stride, chunkRows), 1);
  const Scratch scratch{gpu.allocate<uint32_t>(blocks * law.words()), gpu.allocate<float>(blocks * count)};
  uint32_t* counts = gpu.allocate<uint32_t>(rows);
  gpu.clear(counts, sizeof(uint32_t) * size_t(rows));

  const auto fire = [&](const Samples& samples) {
    const int64_t numbers = samples.tiles() * law.rank * samplesPerTile;
    launch(gpu, drawCorrelationsKernel, elementwise(gpu, numbers), samples, law.rank, numbers, g);
    const int64_t warps = law.stride / featuresPerWarp;
    const int64_t warpsPerBlock = std::min<int64_t>(warps, fireThreads / warpSize_);
    const int64_t widthInBlocks = (warps + warpsPerBlock - 1) / warpsPerBlock;
    launch(gpu, fireKernel, Launch{unsigned(widthInBlocks * samples.tiles()), unsigned(warpsPerBlock) * warpSize_}, law,
           samples, g, widthInBlocks, fired);
  };
  const auto resolve = [&](auto kernel, const Samples& samples) {
    const int64_t warps = (law.words() + warpSize_ - 1) / warpSize_;
    const unsigned threads = unsigned(std::min<int64_t>(warps * warpSize_, mostResolveThreads));
    launch(gpu, kernel, Launch{unsigned(std::min(blocks, samples.count)), threads}, features, trees, samples,
           law.words(), fired, scratch, counts, *made);
  };
  const auto forEachChunk = [&](const auto& use) {
    for (int64_t first = 0; first < rows; first += chunkRows)
      use(Samples{seed, offset, first, std::min(chunkRows, rows - first)});
  };

  forEachChunk([&](const Samples& samples) {
    fire(samples);
    resolve(resolveKernel<false>, samples);
  });
  made->rowOffsets = gpu.allocate<uint64_t>(rows + 1);
  exclusiveScan(gpu, counts, rows, made->rowOffsets);
  if (const auto fromEnd = int64_t(gpu.read(refused))) throw refusalOf(gpu, features, law.rank, count - fromEnd);
  made->entries = int64_t(gpu.read(made->rowOffsets + rows));
  made->features = gpu.allocate<uint32_t>(made->entries);
  made->preActivations = gpu.allocate<float>(made->entries);
  forEachChunk([&](const Samples& samples) {
    if (chunkRows < rows) fire(samples);
    resolve(resolveKernel<true>, samples);
  });
}

}  // namespace monosem::cuda
