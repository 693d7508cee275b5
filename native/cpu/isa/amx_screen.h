// Screening for the exact top k with the matrix unit of recent Intel processors (AMX, bfloat16).
//
// The full product only serves to find the k largest scores of a row. A product of operands rounded to bfloat16 is many
// times faster and finds them with a provable margin. With x = xb + ex and w = wb + ew (rounding and its error),
//
//   |x . w - xb . wb| <= |ex| |w| + |xb| |ew|          (Cauchy-Schwarz)
//
// and both this product and the float32 one differ from the exact sums by rounding, which `roundingSlack` bounds. So
// every score lies within margin(row) * norm(feature) of its screened value; only features whose upper bound reaches
// the k-th largest lower bound can be selected. Their scores are then computed in float32 in the order of summation of
// matrix_product.h, and the k largest of those are what the unscreened kernel selects, bit for bit. A row with too many
// such features is left to that kernel.
#pragma once

#include <sys/syscall.h>

#include "cpu/generic/top_k.h"

namespace monosem::avx512 {

// ---- The matrix unit ----------------------------------------------------------------------------

constexpr int tileSide = 16;     // rows of x, or features, in a tile
constexpr int tileDepth = 32;    // k in a tile
constexpr int screenPanel = 32;  // rows, or features, that are multiplied at a time: two tiles of each
constexpr int64_t screenStrip = 384;

struct TileConfiguration {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t bytesPerRow[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile"), noinline)) inline void enterTiles(const TileConfiguration& configuration) {
  _tile_loadconfig(&configuration);
}
// A task switch is cheaper while the tiles are empty.
__attribute__((target("amx-tile"), noinline)) inline void leaveTiles() {
  _tile_release();
}

// scores[32, 32] (rows `stride` apart) = rowPanel . columnPanel^T, both packed as in ScreenOperand.
__attribute__((target("amx-tile,amx-bf16"), noinline)) inline void multiplyBrainTiles(const uint16_t* rowPanel,
                                                                                      const uint16_t* columnPanel,
                                                                                      int64_t steps, float* scores,
                                                                                      int64_t stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  constexpr int64_t tileElements = tileSide * tileDepth;
  for (int64_t step = 0; step < steps; ++step) {
    _tile_loadd(4, rowPanel, 64);
    _tile_loadd(5, rowPanel + tileElements, 64);
    _tile_loadd(6, columnPanel, 64);
    _tile_loadd(7, columnPanel + tileElements, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    rowPanel += 2 * tileElements;
    columnPanel += 2 * tileElements;
  }
  _tile_stored(0, scores, stride * 4);
  _tile_stored(1, scores + tileSide, stride * 4);
  _tile_stored(2, scores + tileSide * stride, stride * 4);
  _tile_stored(3, scores + tileSide * stride + tileSide, stride * 4);
}

// ---- Rounding to bfloat16 -----------------------------------------------------------------------

struct BrainNorms {
  float rounded, error, whole;  // |xb|, |x - xb|, |x|; each a little too large rather than too small
};

// Rounds a row to nearest, ties to even; the row continues with zeros up to a multiple of tileDepth.
inline BrainNorms roundToBrain(const float* row, int64_t depth, uint16_t* rounded) {
  Floats ofRounded = zeros(), ofError = zeros(), ofWhole = zeros();
  const int64_t padded = (depth + tileDepth - 1) / tileDepth * tileDepth;
  for (int64_t k = 0; k < padded; k += width) {
    const int lanes = int(std::clamp<int64_t>(depth - k, 0, width));
    const Floats x = loadLanes(row + k, lanes);
    const __m512i bits = _mm512_castps_si512(x.lanes);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i upper =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded + k), _mm512_cvtepi32_epi16(upper));
    const Floats xb{_mm512_castsi512_ps(_mm512_slli_epi32(upper, 16))}, error = x - xb;
    ofRounded = fma(xb, xb, ofRounded);
    ofError = fma(error, error, ofError);
    ofWhole = fma(x, x, ofWhole);
  }
  const auto norm = [](float squared) { return 1.001f * std::sqrt(squared) + 1e-18f; };
  return {norm(sum(ofRounded)), norm(sum(ofError)), norm(sum(ofWhole))};
}

// ---- Candidates ---------------------------------------------------------------------------------

// The features of a number of rows that may be among the k largest, by bounds on their scores.
class ScreenedRows {
 public:
  // Bounds are `slack` / 2 wider than margin * norm.
  ScreenedRows(int64_t rows, int64_t k, float slack, Allocator& allocator)
      : k_(k), capacity_(4 * k + 256), slack_(slack), states_(size_t(rows)) {
    upper_ = allocator.allocateArray<float>(rows * (capacity_ + width));
    positions_ = allocator.allocateArray<uint32_t>(rows * (capacity_ + width));
  }

  // Screened scores of consecutive positions with their biases and norms. Returns whether they are finite.
  bool offer(int64_t row, float margin, const float* scores, const float* biases, const float* norms,
             int64_t firstPosition, int count) {
    State& state = states_[size_t(row)];
    if (state.tooMany) return true;
    Floats zeroOrNan = zeros();
    for (int i = 0; i < count; i += width) {
      const Floats upper = fma(broadcast(margin), load(norms + i), load(scores + i) + load(biases + i));
      zeroOrNan = fma(zeros(), upper, zeroOrNan);
      Mask reaching = upper >= broadcast(state.threshold);
      if (i + width > count) reaching.lanes &= firstLanes(count - i);
      if (maskBits(reaching) == 0) continue;
      compressStore(upperOf(row) + state.count, upper, reaching);
      state.count += compressStore(positionsOf(row) + state.count,
                                   laneIndices() + broadcastInt(int32_t(firstPosition + i)), reaching);
      if (state.count + width <= capacity_) continue;
      tighten(row, margin, norms - firstPosition);
      if (state.count + width <= capacity_) continue;
      state.tooMany = true;
      return true;
    }
    return sum(zeroOrNan) == 0;
  }

  // Raises the row's threshold to the k-th largest lower bound and drops what does not reach it. `norms` are indexed by
  // position.
  void tighten(int64_t row, float margin, const float* norms) {
    State& state = states_[size_t(row)];
    if (state.count <= k_) return;
    float* upper = upperOf(row);
    uint32_t* positions = positionsOf(row);
    std::vector<float> lower(size_t(state.count + width));
    std::vector<uint32_t> places(size_t(state.count + width));
    for (int64_t i = 0; i < state.count; ++i) lower[size_t(i)] = upper[i] - 2 * margin * norms[positions[i]];
    state.threshold = std::max(state.threshold, keepLargest(lower.data(), places.data(), state.count, k_) - slack_);
    int64_t kept = 0;
    for (int64_t i = 0; i < state.count; ++i) {
      upper[kept] = upper[i];
      positions[kept] = positions[i];
      kept += upper[i] >= state.threshold;
    }
    state.count = kept;
  }

  int64_t count(int64_t row) const { return states_[size_t(row)].count; }
  bool tooMany(int64_t row) const { return states_[size_t(row)].tooMany; }
  float* upperOf(int64_t row) { return upper_.as<float>() + row * (capacity_ + width); }
  uint32_t* positionsOf(int64_t row) { return positions_.as<uint32_t>() + row * (capacity_ + width); }

 private:
  struct State {
    float threshold = -infinity;
    bool tooMany = false;
    int64_t count = 0;
  };
  int64_t k_, capacity_;
  float slack_;
  std::vector<State> states_;
  Block upper_, positions_;
};

// scores[i] = bias[i] + x . row i, for sixteen rows, in the order of summation of matrix_product.h.
inline void exactScores(const float* x, const float* const* rows, int64_t depth, const float* bias, float* scores) {
  Floats sums = load(bias);
  float square[width * width];
  int64_t k = 0;
  for (; k + width <= depth; k += width) {
    transposeSquare(rows, k, square, width);
    for (int q = 0; q < width; ++q) sums = fma(broadcast(x[k + q]), load(square + q * width), sums);
  }
  for (; k < depth; ++k) {
    for (int lane = 0; lane < width; ++lane) square[lane] = rows[lane][k];
    sums = fma(broadcast(x[k]), load(square), sums);
  }
  store(scores, sums);
}

// ---- The screened selection ---------------------------------------------------------------------

// Whether the processor has the unit and the operating system lets this process use it (asked once).
inline bool canScreen() {
  static const bool granted = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    constexpr unsigned brain = 1u << 22, tiles = 1u << 24;
    if ((edx & (brain | tiles)) != (brain | tiles)) return false;
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr unsigned tileState = 0x60000;
    if ((low & tileState) != tileState) return false;
    constexpr long requestPermission = 0x1023, tileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return syscall(SYS_arch_prctl, requestPermission, tileData) == 0;
  }();
  return granted;
}

// Whether screening pays: the bounds must part few features from many, and the candidates must not take much memory.
inline bool worthScreening(int64_t rows, int64_t features, int64_t depth, int64_t k) {
  return rows >= 64 && depth >= 64 && features >= 2048 && k <= 256 && k * 24 <= features;
}

// Fills `selected` for all rows of the chunk [first, first + rows) of x that could be screened, and returns the others,
// which are untouched. Where scores overflow, that is all rows.
inline std::vector<int64_t> screenTopK(Matrix<const float> x, int64_t first, int64_t rows, const RowSource& columns,
                                       const float* bias, int64_t k, RunningTopK<ByValue>& selected,
                                       Allocator& allocator, ThreadPool& pool) {
  const int64_t depth = x.columns, steps = panelsFor(depth, tileDepth), padded = steps * tileDepth;
  const int64_t rowPanels = panelsFor(rows, screenPanel), panelElements = screenPanel * padded;
  const TileConfiguration configuration;

  const Block packedX = allocator.allocateArray<uint16_t>(rowPanels * panelElements);
  std::vector<BrainNorms> rowNorms(static_cast<size_t>(rows));
  FirstFound notFinite;
  pool.forEach(rowPanels, [&](int64_t panel, int) {
    std::vector<uint16_t> rounded(static_cast<size_t>(padded));
    for (int64_t i = 0; i < screenPanel; ++i) {
      const int64_t row = panel * screenPanel + i;
      std::fill(rounded.begin(), rounded.end(), uint16_t(0));
      if (row < rows) {
        if (!allFinite(x.row(first + row), depth)) notFinite.offer(first + row);
        rowNorms[size_t(row)] = roundToBrain(x.row(first + row), depth, rounded.data());
      }
      for (int64_t step = 0; step < steps; ++step)
        std::memcpy(packedX.as<uint16_t>() + panel * panelElements + (step * screenPanel + i) * tileDepth,
                    rounded.data() + step * tileDepth, tileDepth * sizeof(uint16_t));
    }
  });
  if (notFinite.found()) throwNonFinite("x", notFinite.row());

  const int64_t fitting = int64_t(blockShareOfCache * double(secondLevelCacheBytes())) / (2 * padded);
  const int64_t perBlock =
      std::clamp<int64_t>(fitting / screenPanel, 1, panelsFor(columns.count, screenPanel)) * screenPanel;
  const Block packedColumns = allocator.allocateArray<uint16_t>(perBlock * padded);
  const int64_t featuresPadded = panelsFor(columns.count, screenPanel) * screenPanel;
  std::vector<float> norms(size_t(featuresPadded), 0.0f), biases(size_t(featuresPadded), 0.0f);
  std::copy(bias, bias + columns.count, biases.begin());
  float largestBias = 0;
  for (const float b : biases) largestBias = std::max(largestBias, std::fabs(b));
  const Block scratch = allocator.allocateArray<float>(pool.threads() * screenPanel * screenStrip);
  std::atomic<bool> overflow{false};
  // Rounding of a sum of `depth` products and a bias, in both kernels, relative to the sum of the magnitudes; generous.
  const float roundingSlack = 4 * float(depth + 8) * 0x1p-24f;
  ScreenedRows screened(rows, k, 2 * roundingSlack * largestBias, allocator);
  // A feature's norm is max(|w|, 2^9 |ew|), so that margin * norm covers |ex| |w| + |xb| |ew| and the rounding.
  constexpr float brainRounding = 0x1p-9f;
  const auto margin = [&](int64_t row) {
    const BrainNorms& n = rowNorms[size_t(row)];
    return n.error + brainRounding * n.rounded + roundingSlack * n.whole;
  };

  for (int64_t begin = 0; begin < columns.count; begin += perBlock) {
    const int64_t count = std::min(perBlock, columns.count - begin);
    pool.forEach(panelsFor(count, screenPanel), [&](int64_t panel, int) {
      std::vector<uint16_t> rounded(static_cast<size_t>(tileSide * padded));
      for (int half = 0; half < 2; ++half) {
        const float* rows16[tileSide];
        std::fill(rounded.begin(), rounded.end(), uint16_t(0));
        for (int i = 0; i < tileSide; ++i) {
          const int64_t column = begin + panel * screenPanel + half * tileSide + i;
          uint16_t* to = rounded.data() + i * padded;
          rows16[i] = reinterpret_cast<const float*>(to);
          if (column >= columns.count) continue;
          const float* row = columns.row(column);
          if (!allFinite(row, depth)) notFinite.offer(columns.indices ? int64_t(columns.indices[column]) : column);
          const BrainNorms n = roundToBrain(row, depth, to);
          norms[size_t(column)] = std::max(n.whole, n.error / brainRounding);
        }
        for (int64_t step = 0; step < steps; ++step)
          transposeSquare(rows16, step * tileSide,
                          reinterpret_cast<float*>(packedColumns.as<uint16_t>() + panel * panelElements +
                                                   (2 * step + half) * tileSide * tileDepth),
                          tileSide);
      }
    });
    if (notFinite.found()) throwNonFinite("encoder", notFinite.row());

    pool.forEach(rowPanels, [&](int64_t panel, int thread) {
      float* scores = scratch.as<float>() + thread * screenPanel * screenStrip;
      enterTiles(configuration);
      for (int64_t strip = 0; strip < count; strip += screenStrip) {
        const int64_t present = std::min(screenStrip, count - strip);
        for (int64_t j = 0; j < present; j += screenPanel)
          multiplyBrainTiles(packedX.as<const uint16_t>() + panel * panelElements,
                             packedColumns.as<const uint16_t>() + (strip + j) * padded, steps, scores + j, screenStrip);
        const int64_t position = begin + strip;
        for (int64_t i = 0; i < std::min<int64_t>(screenPanel, rows - panel * screenPanel); ++i)
          if (!screened.offer(panel * screenPanel + i, margin(panel * screenPanel + i), scores + i * screenStrip,
                              biases.data() + position, norms.data() + position, position, int(present)))
            overflow.store(true);
      }
      leaveTiles();
    });
  }

  std::vector<char> left(size_t(rows), 0);
  pool.forEachRange(rows, 16, [&](int64_t beginRow, int64_t endRow, int) {
    const float* candidates[tileSide];
    float candidateBias[tileSide];
    for (int64_t row = beginRow; row < endRow; ++row) {
      if (screened.tooMany(row) || overflow.load()) {
        left[size_t(row)] = 1;
        continue;
      }
      screened.tighten(row, margin(row), norms.data());
      const int64_t count = screened.count(row);
      float* scores = screened.upperOf(row);
      uint32_t* positions = screened.positionsOf(row);
      for (int64_t i = 0; i < count; i += tileSide) {
        for (int lane = 0; lane < tileSide; ++lane) {
          const uint32_t position = positions[std::min(i + lane, count - 1)];
          candidates[lane] = columns.row(position);
          candidateBias[lane] = bias[position];
        }
        exactScores(x.row(first + row), candidates, depth, candidateBias, scores + i);
      }
      if (count > k) keepLargest(scores, positions, count, k);
      selected.set(row, scores, positions, std::min(count, k));
    }
  });
  std::vector<int64_t> others;
  for (int64_t row = 0; row < rows; ++row)
    if (left[size_t(row)]) others.push_back(row);
  return others;
}

}  // namespace monosem::avx512
