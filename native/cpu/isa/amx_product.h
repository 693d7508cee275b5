// Approximate scores with a provable margin, many times faster than exact ones: the product of operands rounded to
// bfloat16, by the matrix unit.
//
// With x = xb + ex and w = wb + ew (rounding and its error),
//
//   |x . w - xb . wb| <= |ex| |w| + |xb| |ew|          (Cauchy-Schwarz)
//
// and both this product and the float32 one differ from the exact sums by rounding, which `roundingSlack` bounds. So
// every score without its bias lies within margin(row) * norm(column) of its approximation. A selection dismisses what
// cannot be selected by these bounds, and computes the scores of the rest in float32 in the order of summation of
// matrix_product.h: what it then selects is what the float32 product selects, bit for bit.
#pragma once

#include "cpu/generic/matrix_product.h"
#include "cpu/isa/amx_tiles.h"

namespace monosem::avx512 {

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
  const auto norm = [](float squared) { return 1.001f * std::sqrt(squared) + 1e-17f; };
  return {norm(sum(ofRounded)), norm(sum(ofError)), norm(sum(ofWhole))};
}

// Rounding of a sum of `depth` products and a bias, in both products, relative to the sum of the magnitudes; generous.
inline float roundingSlack(int64_t depth) {
  return 4 * float(depth + 8) * 0x1p-24f;
}
constexpr float brainRounding = 0x1p-9f;

// Rows [first, first + count) of x in row panels: per step of tileDepth of k, two tiles of [16 rows, 32 k].
class BrainRows {
 public:
  // NaN or infinity throws nonFinite, naming `operand`; with a null operand, what becomes of them is undetermined.
  BrainRows(Matrix<const float> x, int64_t first, int64_t count, const char* operand, Allocator& allocator,
            ThreadPool& pool)
      : rows_(count), depth_(x.columns), norms_(size_t(count)) {
    packed_ = allocator.allocateArray<uint16_t>(panels() * panelElements());
    FirstFound notFinite;
    pool.forEach(panels(), [&](int64_t panel, int) {
      std::vector<uint16_t> rounded(static_cast<size_t>(paddedDepth()));
      for (int64_t i = 0; i < screenPanel; ++i) {
        const int64_t row = panel * screenPanel + i;
        std::fill(rounded.begin(), rounded.end(), uint16_t(0));
        if (row < count) {
          if (!allFinite(x.row(first + row), depth_)) notFinite.offer(first + row);
          norms_[size_t(row)] = roundToBrain(x.row(first + row), depth_, rounded.data());
        }
        for (int64_t step = 0; step < steps(); ++step)
          std::memcpy(packed_.as<uint16_t>() + panel * panelElements() + (step * screenPanel + i) * tileDepth,
                      rounded.data() + step * tileDepth, tileDepth * sizeof(uint16_t));
      }
    });
    if (operand && notFinite.found()) throwNonFinite(operand, notFinite.row());
  }

  int64_t rows() const { return rows_; }
  int64_t depth() const { return depth_; }
  int64_t steps() const { return panelsFor(depth_, tileDepth); }
  int64_t paddedDepth() const { return steps() * tileDepth; }
  int64_t panelElements() const { return screenPanel * paddedDepth(); }
  int64_t panels() const { return panelsFor(rows_, screenPanel); }
  const uint16_t* panel(int64_t i) const { return packed_.as<const uint16_t>() + i * panelElements(); }

  // A column's norm is max(|w|, 2^9 |ew|), so that margin * norm covers |ex| |w| + |xb| |ew| and the rounding.
  float margin(int64_t row) const {
    const BrainNorms& n = norms_[size_t(row)];
    return n.error + brainRounding * n.rounded + roundingSlack(depth_) * n.whole;
  }

 private:
  int64_t rows_, depth_;
  std::vector<BrainNorms> norms_;
  Block packed_;
};

// ---- The product by blocks ----------------------------------------------------------------------

// Approximate scores of rows [firstRow, firstRow + rows) and columns [firstColumn, firstColumn + columns), without
// biases. Up to the next multiple of screenPanel columns follow scores of rows of zeros.
struct ScreenTile {
  int64_t firstRow, firstColumn, strip;  // strips of columns are numbered
  int rows, columns;
  const float* scores;  // [rows], stripColumns apart
  const float* norms;   // of the columns; 0 behind the last one
  int thread;

  const float* row(int i) const { return scores + i * stripColumns; }
};

inline int64_t screenColumnsPerBlock(int64_t paddedDepth) {
  const int64_t fitting =
      int64_t(blockShareOfCache * double(secondLevelCacheBytes())) / (int64_t(sizeof(uint16_t)) * paddedDepth);
  return std::max<int64_t>(fitting / screenPanel, 1) * screenPanel;
}
// How many strips screenByBlocks() makes of `columns` columns.
inline int64_t screenStrips(int64_t columns, int64_t paddedDepth) {
  const int64_t perBlock = screenColumnsPerBlock(paddedDepth), whole = columns / perBlock;
  return whole * panelsFor(perBlock, stripColumns) + panelsFor(columns - whole * perBlock, stripColumns);
}

// Calls consumer.take(const ScreenTile&) for all tiles of x . columns^T, for a row with its columns in ascending order;
// calls for different rows may come from different threads at once. Ends early when consumer.enough(). NaN or infinity
// in the columns throws nonFinite naming `operand`, if that is given. Fills `norms` of the columns, whose number is
// rounded up to a multiple of screenPanel.
template <class Consumer>
void screenByBlocks(const BrainRows& x, const RowSource& columns, const char* operand, std::vector<float>& norms,
                    Allocator& allocator, ThreadPool& pool, Consumer& consumer) {
  const TileConfiguration configuration;
  const int64_t depth = x.depth(), steps = x.steps(), padded = x.paddedDepth(), panelElements = x.panelElements();
  const int64_t columnPanels = panelsFor(columns.count, screenPanel);
  const int64_t perBlock = std::min(screenColumnsPerBlock(padded), columnPanels * screenPanel);
  const Block packedColumns = allocator.allocateArray<uint16_t>(perBlock * padded);
  const Block scratch = allocator.allocateArray<float>(pool.threads() * screenPanel * stripColumns);
  norms.assign(size_t(columnPanels * screenPanel), 0.0f);
  int64_t firstStrip = 0;

  for (int64_t begin = 0; begin < columns.count && !consumer.enough(); begin += perBlock) {
    const int64_t count = std::min(perBlock, columns.count - begin);
    FirstFound notFinite;
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
    if (operand && notFinite.found()) throwNonFinite(operand, notFinite.row());

    pool.forEach(x.panels(), [&](int64_t panel, int thread) {
      float* scores = scratch.as<float>() + thread * screenPanel * stripColumns;
      const int64_t firstRow = panel * screenPanel;
      const int rows = int(std::min<int64_t>(screenPanel, x.rows() - firstRow));
      enterTiles(configuration);
      for (int64_t strip = 0; strip < count && !consumer.enough(); strip += stripColumns) {
        const int64_t present = std::min(stripColumns, count - strip);
        for (int64_t j = 0; j < present; j += screenPanel)
          multiplyBrainTiles(x.panel(panel), packedColumns.as<const uint16_t>() + (strip + j) * padded, steps,
                             scores + j, stripColumns);
        consumer.take(ScreenTile{firstRow, begin + strip, firstStrip + strip / stripColumns, rows, int(present), scores,
                                 norms.data() + begin + strip, thread});
      }
      leaveTiles();
    });
    firstStrip += panelsFor(count, stripColumns);
  }
}

// ---- Exact scores -------------------------------------------------------------------------------

// scores[lane] = bias[lane] + x . column[lane] in the order of summation of matrix_product.h, for sixteen columns; a
// lane's x is the last of x[0 ... rowCount) whose mask has it.
template <int rowCount>
__attribute__((noinline)) void exactScores(const float* const* x, const uint16_t* lanesOf, const float* const* columns,
                                           int64_t depth, const float* bias, float* scores) {
  Floats sums = load(bias);
  float square[width * width];
  const auto rowsAt = [&](int64_t k) {
    __m512 row = _mm512_set1_ps(x[0][k]);
#pragma GCC unroll 8
    for (int i = 1; i < rowCount; ++i) row = _mm512_mask_broadcastss_ps(row, lanesOf[i], _mm_load_ss(x[i] + k));
    return Floats{row};
  };
  int64_t k = 0;
  for (; k + width <= depth; k += width) {
    transposeSquare(columns, k, square, width);
#pragma GCC unroll 4
    for (int q = 0; q < width; ++q) sums = fma(rowsAt(k + q), load(square + q * width), sums);
  }
  for (; k < depth; ++k) {
    for (int lane = 0; lane < width; ++lane) square[lane] = columns[lane][k];
    sums = fma(rowsAt(k), load(square), sums);
  }
  store(scores, sums);
}

// Gathers pairs of a row and a column until their exact scores fill a vector.
class ExactScores {
 public:
  explicit ExactScores(int64_t depth) : depth_(depth) {}

  // Puts the score at *to, at the latest when finish() is called. Pairs with the same row should come together.
  void add(const float* x, const float* column, float bias, float* to) {
    if (rows_ == 0 || x_[rows_ - 1] != x) {
      if (rows_ == mostRows) finish();
      x_[rows_] = x;
      lanesOf_[rows_++] = 0;
    }
    lanesOf_[rows_ - 1] = uint16_t(lanesOf_[rows_ - 1] | 1u << lanes_);
    columns_[lanes_] = column;
    biases_[lanes_] = bias;
    to_[lanes_++] = to;
    if (lanes_ == width) finish();
  }

  void finish() {
    if (lanes_ == 0) return;
    for (int lane = lanes_; lane < width; ++lane) columns_[lane] = columns_[0];
    const int rows = rows_ <= 2 ? rows_ : rows_ <= 4 ? 4 : mostRows;
    for (int i = rows_; i < rows; ++i) {
      x_[i] = x_[0];
      lanesOf_[i] = 0;
    }
    float scores[width];
    (rows == 1   ? exactScores<1>
     : rows == 2 ? exactScores<2>
     : rows == 4 ? exactScores<4>
                 : exactScores<mostRows>)(x_, lanesOf_, columns_, depth_, biases_, scores);
    for (int lane = 0; lane < lanes_; ++lane) *to_[lane] = scores[lane];
    rows_ = lanes_ = 0;
  }

 private:
  static constexpr int mostRows = 8;  // with more, choosing each lane's x costs more than lanes left empty

  int64_t depth_;
  int rows_ = 0, lanes_ = 0;
  const float* x_[mostRows];
  uint16_t lanesOf_[mostRows];
  const float* columns_[width];
  float biases_[width] = {};
  float* to_[width];
};

}  // namespace monosem::avx512
