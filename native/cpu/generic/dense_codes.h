// Products with codes that are still dense: blocked matrix products over the entries.
//
// An L1 model begins with half of its latents active, and the dead latents of an auxiliary loss are few but all in use.
// Then gathering a row of a matrix for every entry costs more than multiplying with the zeros between them. These
// kernels compute what their sparse twins do, with the tiles of matrix_product.h:
//
//   decode              out = values . decoder                       [rows, columns]
//   decode gradient     dOutput . decoder^T, kept at the entries      [entries]
//   row gradients       coefficients^T . dense                       [features, width], a block of features at a time
//
// No dense matrix of the codes exists: the entries of a panel of rows (or features) and a block of features (or rows)
// are scattered into a zeroed panel in cache. With a feature subset, columns are positions in the subset.
#pragma once

#include "cpu/generic/matrix_product.h"

namespace monosem::MONOSEM_ISA {

// Above this density the blocked products are faster: an entry of the sparse kernels costs as much as about sixteen
// places.
constexpr double denseFrom = 0.06;

inline bool worthDense(const Codes& codes) {
  return codes.entries > 0 && codes.density() >= denseFrom;
}

// The columns of codes: the features that could be selected, ascending.
class CodeColumns {
 public:
  explicit CodeColumns(const Codes& codes)
      : indices_(codes.subset ? codes.subset->indices.as<const uint32_t>() : nullptr),
        positions_(codes.subset ? codes.subset->position.as<const uint32_t>() : nullptr),
        count_(codes.subset ? codes.subset->count : codes.dSae) {}

  int64_t count() const { return count_; }
  const uint32_t* indices() const { return indices_; }
  int64_t ofFeature(uint32_t feature) const { return positions_ ? positions_[feature] : feature; }
  // The first column whose feature is not below `feature`.
  int64_t firstFrom(int64_t feature) const {
    return indices_ ? std::lower_bound(indices_, indices_ + count_, uint32_t(feature)) - indices_ : feature;
  }

 private:
  const uint32_t* indices_;
  const uint32_t* positions_;
  int64_t count_;
};

// The first of the ascending features [first, end) that is >= bound: a search in growing steps, for bounds nearby.
inline uint64_t firstFeatureFrom(const uint32_t* features, uint64_t first, uint64_t end, int64_t bound) {
  uint64_t step = 16;
  while (first + step < end && features[first + step] < bound) {
    first += step;
    step *= 2;
  }
  const uint32_t* last = features + std::min(end, first + step);
  return uint64_t(std::lower_bound(features + first, last, bound) - features);
}

// A matrix in column panels for products in which its rows are summed over: [panel][row][column in panel], zero beyond
// the last column. Rows [0, count) are matrix.row(indices ? indices[i] : i).
inline void packColumnPanel(const RowSource& source, int64_t firstRow, int64_t rows, int64_t panel, float* packed) {
  const int64_t first = panel * tile.columns();
  const int64_t columns = std::min<int64_t>(tile.columns(), source.rows.columns - first);
  for (int64_t row = 0; row < rows; ++row) {
    float* to = packed + row * tile.columns();
    std::memcpy(to, source.row(firstRow + row) + first, sizeof(float) * size_t(columns));
    if (columns < tile.columns()) std::memset(to + columns, 0, sizeof(float) * size_t(tile.columns() - columns));
  }
}

// ---- Decode -------------------------------------------------------------------------------------

// out[t, :] = bias + sum over the entries of row t, features ascending: value * decoder[feature, :].
//
// Features go by in blocks of tile.depth; a block of the decoder is packed by all threads and then meets every panel of
// rows, whose sums stay in out in between.
inline void decodeDense(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias, Matrix<float> out,
                        Allocator& allocator, ThreadPool& pool) {
  const CodeColumns columns(codes);
  const RowSource source{decoder, columns.indices(), columns.count()};
  const int64_t widthPanels = panelsFor(out.columns, tile.columns());
  const int64_t rowPanels = panelsFor(codes.rows, tile.rows);
  const int64_t panelSize = tile.depth * tile.columns();
  const Block decoderPanels = allocator.allocateArray<float>(widthPanels * panelSize);
  const Block starts = allocator.allocateArray<float>(widthPanels * tile.columns());
  for (int64_t c = 0; c < widthPanels * tile.columns(); ++c)
    starts.as<float>()[c] = bias && c < out.columns ? bias[c] : 0;
  const int64_t scratchSize = tile.rows * (tile.depth + tile.columns());
  const Block scratch = allocator.allocateArray<float>(scratchSize * pool.threads());
  std::vector<uint64_t> next(codes.offsets(), codes.offsets() + codes.rows);  // each row's first entry not yet used

  for (int64_t first = 0; first < columns.count(); first += tile.depth) {
    const int64_t depth = std::min<int64_t>(tile.depth, columns.count() - first);
    pool.forEach(widthPanels, [&](int64_t panel, int) {
      packColumnPanel(source, first, depth, panel, decoderPanels.as<float>() + panel * panelSize);
    });
    pool.forEach(rowPanels, [&](int64_t panel, int thread) {
      float* values = scratch.as<float>() + thread * scratchSize;
      float* edge = values + tile.rows * tile.depth;
      std::memset(values, 0, sizeof(float) * size_t(tile.rows * depth));
      const int64_t firstRow = panel * tile.rows;
      const int64_t rows = std::min<int64_t>(tile.rows, codes.rows - firstRow);
      for (int64_t i = 0; i < rows; ++i) {
        uint64_t entry = next[size_t(firstRow + i)];
        const uint64_t end = codes.offsets()[firstRow + i + 1];
        for (; entry < end; ++entry) {
          const int64_t column = columns.ofFeature(codes.feature()[entry]) - first;
          if (column >= depth) break;
          values[column * tile.rows + i] = codes.value()[entry];
        }
        next[size_t(firstRow + i)] = entry;
      }
      for (int64_t j = 0; j < widthPanels; ++j) {
        const float* decoderPanel = decoderPanels.as<const float>() + j * panelSize;
        const float* start = first == 0 ? starts.as<const float>() + j * tile.columns() : nullptr;
        const int64_t column = j * tile.columns(), present = std::min<int64_t>(tile.columns(), out.columns - column);
        if (rows == tile.rows && present == tile.columns()) {
          multiplyTile(values, decoderPanel, depth, start, out.row(firstRow) + column, out.columns);
          continue;
        }
        for (int64_t i = 0; i < rows; ++i)
          std::memcpy(edge + i * tile.columns(), out.row(firstRow + i) + column, sizeof(float) * size_t(present));
        multiplyTile(values, decoderPanel, depth, start, edge, tile.columns());
        for (int64_t i = 0; i < rows; ++i)
          std::memcpy(out.row(firstRow + i) + column, edge + i * tile.columns(), sizeof(float) * size_t(present));
      }
    });
  }
}

// ---- Decode gradient ----------------------------------------------------------------------------

// Of the scores dOutput . decoder^T, keeps those where an active entry (or any, with `every`) stands; see
// decodeGradient.
struct EntryConsumer {
  const Codes& codes;
  CodeColumns columns;
  float scale;
  const float* perFeature;
  float featureScale;
  bool every;
  float* out;
  std::vector<uint64_t> next;  // each row's first entry not yet written

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      const float* score = scores.row(i);
      uint64_t entry = next[size_t(row)];
      for (const uint64_t end = codes.offsets()[row + 1]; entry < end; ++entry) {
        const uint32_t feature = codes.feature()[entry];
        const int64_t column = columns.ofFeature(feature) - scores.firstColumn;
        if (column >= scores.columns) break;
        const float penalty = perFeature ? featureScale * perFeature[feature] : 0;
        out[entry] = every || codes.value()[entry] != 0 ? scale * score[column] + penalty : 0;
      }
      next[size_t(row)] = entry;
    }
  }
};

inline void decodeGradientDense(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput,
                                double scale, Vector<const float> perFeature, double featureScale, bool every,
                                float* out, Allocator& allocator, ThreadPool& pool) {
  const CodeColumns columns(codes);
  const PackedRows packed(dOutput, 0, codes.rows, nullptr, allocator, pool);
  EntryConsumer consumer{codes,
                         columns,
                         float(scale),
                         perFeature.data,
                         float(featureScale),
                         every,
                         out,
                         std::vector<uint64_t>(codes.offsets(), codes.offsets() + codes.rows)};
  multiplyByBlocks(packed, {decoder, columns.indices(), columns.count()}, nullptr, nullptr, allocator, pool, consumer);
}

// ---- Row gradients ------------------------------------------------------------------------------

// One entry term of a row gradient (see EntryTerm), a block of features at a time: for consecutive blocks of `perBlock`
// features of [0, dSae), compute(block, thread) makes the rows
//     scale * sum over the entries of the feature, rows ascending: coefficient * dense[row, :],
// which row(feature, thread) then gives while they are in the second-level cache. A row is one chain of fused
// multiply-adds over all rows of the codes.
class DenseEntryTerm {
 public:
  // How many features a block may hold so that the gradient of its columns stays in cache.
  static int64_t featuresPerBlock(const Codes& codes) {
    const double density = double(CodeColumns(codes).count()) / double(codes.dSae);
    return std::max<int64_t>(1, int64_t(double(columnsPerGradientBlock) / density));
  }

  DenseEntryTerm(const EntryTerm& term, int64_t perBlock, Allocator& allocator, ThreadPool& pool)
      : codes_(*term.codes),
        columns_(codes_),
        coefficients_(term.coefficients ? term.coefficients : codes_.value()),
        scale_(float(term.scale)),
        perBlock_(perBlock),
        blocks_(panelsFor(codes_.dSae, perBlock)),
        rows_(codes_.rows),
        widthPanels_(panelsFor(term.dense.columns, tile.columns())) {
    for (int64_t block = 0; block <= blocks_; ++block)
      firstColumns_.push_back(columns_.firstFrom(std::min(block * perBlock, codes_.dSae)));
    int64_t most = 0;
    for (int64_t block = 0; block < blocks_; ++block)
      most = std::max(most, firstColumns_[size_t(block) + 1] - firstColumns_[size_t(block)]);
    mostPanels_ = panelsFor(most, tile.rows);

    dense_ = allocator.allocateArray<float>(widthPanels_ * rows_ * tile.columns());
    pool.forEach(widthPanels_, [&](int64_t panel, int) {
      packColumnPanel({term.dense, nullptr, rows_}, 0, rows_, panel,
                      dense_.as<float>() + panel * rows_ * tile.columns());
    });
    findBlockStarts(allocator, pool);
    panels_ = allocator.allocateArray<float>(pool.threads() * panelsSize());
    gradients_ = allocator.allocateArray<float>(pool.threads() * gradientsSize());
    zeros_.assign(size_t(tile.columns()), 0.0f);
  }

  void compute(int64_t block, int thread) const {
    const int64_t firstColumn = firstColumns_[size_t(block)];
    const int64_t panels = panelsFor(firstColumns_[size_t(block) + 1] - firstColumn, tile.rows);
    float* coefficients = panels_.as<float>() + thread * panelsSize();
    float* gradients = gradients_.as<float>() + thread * gradientsSize();
    for (int64_t first = 0; first < rows_ && panels > 0; first += tile.depth) {
      const int64_t depth = std::min<int64_t>(tile.depth, rows_ - first);
      std::memset(coefficients, 0, sizeof(float) * size_t(panels * panelStride));
      for (int64_t t = 0; t < depth; ++t) {
        prefetchEntries(block, first + t + prefetchRows);
        const auto [begin, end] = entries(block, first + t);
        for (uint64_t entry = begin; entry < end; ++entry) {
          const uint32_t column = uint32_t(columns_.ofFeature(codes_.feature()[entry]) - firstColumn);
          constexpr uint32_t perPanel = uint32_t(tile.rows);
          coefficients[column / perPanel * panelStride + t * perPanel + column % perPanel] =
              scale_ * coefficients_[entry];
        }
      }
      for (int64_t i = 0; i < panels; ++i)
        for (int64_t j = 0; j < widthPanels_; ++j)
          multiplyTile(coefficients + i * panelStride, dense_.as<const float>() + (j * rows_ + first) * tile.columns(),
                       depth, first == 0 ? zeros_.data() : nullptr,
                       gradients + i * tile.rows * stride() + j * tile.columns(), stride());
    }
  }

  // The feature's row of the block that the thread computed last; null when the feature has no entries.
  const float* row(int64_t feature, int thread) const {
    const int64_t column = columns_.ofFeature(uint32_t(feature)), first = firstColumns_[size_t(feature / perBlock_)];
    if (column >= columns_.count()) return nullptr;
    return gradients_.as<const float>() + thread * gradientsSize() + (column - first) * stride();
  }

 private:
  static constexpr int64_t columnsPerGradientBlock = 192;
  static constexpr int64_t prefetchRows = 8;
  // Panels of coefficients start a little more than a power of two apart: a row's coefficients, one in each of them,
  // would otherwise all fall into the same lines of the first-level cache.
  static constexpr int64_t panelStride = tile.depth * tile.rows + 16;

  // The range of a row's entries that belong to a block.
  std::pair<uint64_t, uint64_t> entries(int64_t block, int64_t row) const {
    const uint32_t* starts = starts_.as<const uint32_t>() + block * rows_ + row;
    return {codes_.offsets()[row] + starts[0], codes_.offsets()[row] + starts[rows_]};
  }
  // A row's entries of a block are too few for the processor to notice that they are read in sequence.
  void prefetchEntries(int64_t block, int64_t row) const {
    if (row >= rows_) return;
    const auto [begin, end] = entries(block, row);
    for (uint64_t entry = begin; entry < end; entry += 16) {
      prefetch(codes_.feature() + entry);
      prefetch(coefficients_ + entry);
    }
  }

  // starts_[block, row]: the row's first entry of the block, counted from the row's first entry.
  void findBlockStarts(Allocator& allocator, ThreadPool& pool) {
    starts_ = allocator.allocateArray<uint32_t>((blocks_ + 1) * rows_);
    pool.forEachRange(rows_, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const uint64_t first = codes_.offsets()[row], last = codes_.offsets()[row + 1];
        uint64_t entry = first;
        for (int64_t block = 0; block <= blocks_; ++block) {
          entry = firstFeatureFrom(codes_.feature(), entry, last, block * perBlock_);
          starts_.as<uint32_t>()[block * rows_ + row] = uint32_t(entry - first);
        }
      }
    });
  }

  int64_t stride() const { return widthPanels_ * tile.columns(); }
  int64_t panelsSize() const { return mostPanels_ * panelStride; }
  int64_t gradientsSize() const { return mostPanels_ * tile.rows * stride(); }

  const Codes& codes_;
  CodeColumns columns_;
  const float* coefficients_;
  float scale_;
  int64_t perBlock_, blocks_, rows_, widthPanels_;
  int64_t mostPanels_ = 0;
  std::vector<int64_t> firstColumns_;  // of every block, and the end
  Block dense_;                        // [width panels, rows, tile.columns()]
  Block starts_;
  Block panels_;     // per thread: [panels, depth, tile.rows]
  Block gradients_;  // per thread: [panels * tile.rows, stride]
  std::vector<float> zeros_;
};

}  // namespace monosem::MONOSEM_ISA
