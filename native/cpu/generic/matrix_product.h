// The packed matrix product under everything dense: scores[r, f] = start[f] + sum over k of x[r, k] * w[f, k].
//
// Both operands are copied into panels in the order in which the innermost loop reads them: a row panel holds
// `tile.rows` rows as [k][row], a column panel `tile.columns` features as [k][feature]. The innermost loop keeps
// rows * columns sums in registers and runs over at most `tile.depth` of k, so that a slice of the row panel stays in
// the first-level cache while column panels stream past it from the second-level one. A block of column panels that
// fills about half of the second-level cache is shared by all threads, which share out the row panels among themselves.
//
// Order of summation: a score begins with start[f] and adds its products by k ascending, one fused multiply-add after
// the other, in one chain. It therefore depends on no block size, no position in a panel and no number of threads, and
// is the same on every instruction set that has a fused multiply-add.
//
// Scores are handed to a consumer tile by tile while they are in cache; no [rows, features] matrix is written.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// ---- Tunables, one line per instruction set -----------------------------------------------------

struct Tile {
  int rows;     // rows of a row panel
  int vectors;  // vectors of features in a column panel; rows * vectors sums are held in registers
  int depth;    // k per pass over a tile
  constexpr int columns() const { return vectors * width; }
};

namespace tiles {
constexpr Tile avx512{8, 3, 384};  // 24 sums of 32 registers
constexpr Tile avx2{6, 2, 256};    // 12 of 16
constexpr Tile neon{8, 3, 256};    // 24 of 32
constexpr Tile baseline{4, 2, 256};
}  // namespace tiles

constexpr Tile tile = tiles::MONOSEM_ISA;
constexpr int64_t stripColumns = 384;      // scores that a consumer gets at once, per row
constexpr double blockShareOfCache = 0.5;  // of the second-level cache, for a block of column panels
static_assert(stripColumns % tile.columns() == 0);

constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr int64_t panelsFor(int64_t count, int64_t perPanel) {
  return (count + perPanel - 1) / perPanel;
}

// ---- The innermost loop -------------------------------------------------------------------------

// sums[i, j] = (start ? start[j] : sums[i, j]) + sum over k < depth of rowPanel[k, i] * columnPanel[k, j], for a tile
// of rows x columns; rows of `sums` are `stride` apart. `start` holds tile.columns() floats.
__attribute__((noinline)) inline void multiplyTile(const float* rowPanel, const float* columnPanel, int64_t depth,
                                                   const float* start, float* sums, int64_t stride) {
  Floats sum[tile.rows][tile.vectors];
  if (start) {
#pragma GCC unroll 4
    for (int v = 0; v < tile.vectors; ++v) {
      const Floats first = load(start + v * width);
#pragma GCC unroll 16
      for (int i = 0; i < tile.rows; ++i) sum[i][v] = first;
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < tile.rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < tile.vectors; ++v) sum[i][v] = load(sums + i * stride + v * width);
  }
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    Floats columns[tile.vectors];
#pragma GCC unroll 4
    for (int v = 0; v < tile.vectors; ++v) {
      columns[v] = load(columnPanel + v * width);
    }
#pragma GCC unroll 16
    for (int i = 0; i < tile.rows; ++i) {
      const Floats row = broadcast(rowPanel[i]);
#pragma GCC unroll 4
      for (int v = 0; v < tile.vectors; ++v) sum[i][v] = fma(row, columns[v], sum[i][v]);
    }
    rowPanel += tile.rows;
    columnPanel += tile.columns();
  }
#pragma GCC unroll 16
  for (int i = 0; i < tile.rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < tile.vectors; ++v) store(sums + i * stride + v * width, sum[i][v]);
}

// ---- Packing ------------------------------------------------------------------------------------

// Whether all of p[0 ... count) are finite: 0 * x is 0 for those and NaN for the others.
inline bool allFinite(const float* p, int64_t count) {
  Floats zeroOrNan = zeros();
  forEachVector(count, [&](int64_t i, int lanes) { zeroOrNan = fma(loadLanes(p + i, lanes), zeros(), zeroOrNan); });
  return sum(zeroOrNan) == 0;
}

// Row-major rows to be packed: row i is rows.row(indices ? indices[i] : i).
struct RowSource {
  Matrix<const float> rows;
  const uint32_t* indices = nullptr;
  int64_t count = 0;

  const float* row(int64_t i) const { return rows.row(indices ? indices[i] : i); }
};

// Packs `lanes` rows from `first` on as [k][lane]; lanes beyond the last row are zero. Returns the first row that holds
// NaN or infinity, or -1.
template <int lanes>
int64_t packRows(const RowSource& source, int64_t first, float* packed) {
  const int64_t depth = source.rows.columns;
  const int present = int(std::min<int64_t>(lanes, source.count - first));
  const float* row[lanes];
  int64_t notFinite = -1;
  for (int i = 0; i < present; ++i) {
    row[i] = source.row(first + i);
    if (notFinite < 0 && !allFinite(row[i], depth)) notFinite = first + i;
  }
  // Whole squares of a full panel with vectors, the rest one by one. Where a panel is narrower than a vector, a square
  // takes its rows at several k.
  constexpr int squares = lanes % width == 0 ? lanes : 0;
  constexpr int turns = lanes < width && width % lanes == 0 ? width / lanes : 0;
  constexpr int64_t step = turns ? turns * width : width;
  const int64_t square = present == lanes && (squares || turns) ? depth / step * step : 0;
  for (int64_t k = 0; k < square; k += step) {
    for (int i = 0; i < squares; i += width) transposeSquare(row + i, k, packed + k * lanes + i, lanes);
    if constexpr (turns > 0) {
      const float* shifted[width];
      float transposed[width * width];
      for (int i = 0; i < width; ++i) shifted[i] = row[i % lanes] + i / lanes * width;
      transposeSquare(shifted, k, transposed, width);
      for (int turn = 0; turn < turns; ++turn)
        for (int q = 0; q < width; ++q)
          std::memcpy(packed + (k + turn * width + q) * lanes, transposed + q * width + turn * lanes,
                      lanes * sizeof(float));
    }
  }
  for (int64_t k = square; k < depth; k += width) {
    const int64_t end = std::min<int64_t>(depth, k + width);
    for (int i = 0; i < present; ++i)
      for (int64_t q = k; q < end; ++q) packed[q * lanes + i] = row[i][q];
    for (int i = present; i < lanes; ++i)
      for (int64_t q = k; q < end; ++q) packed[q * lanes + i] = 0;
  }
  return notFinite;
}

// The smallest number offered by any thread.
class FirstFound {
 public:
  void offer(int64_t row) {
    int64_t seen = row_.load();
    while (row < seen && !row_.compare_exchange_weak(seen, row)) {
    }
  }
  bool found() const { return row_.load() != none; }
  int64_t row() const { return row_.load(); }

 private:
  static constexpr int64_t none = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> row_{none};
};

[[noreturn]] inline void throwNonFinite(const char* operand, int64_t row) {
  throw EngineError(ErrorCode::nonFinite, std::string(operand) + " holds NaN or infinity, first in row " +
                                              std::to_string(row) + "; all of it must be finite.");
}

// Rows [first, first + count) of a matrix in row panels.
class PackedRows {
 public:
  // NaN or infinity throws nonFinite, naming `operand`; with a null operand, values are taken as they are.
  PackedRows(Matrix<const float> matrix, int64_t first, int64_t count, const char* operand, Allocator& allocator,
             ThreadPool& pool)
      : rows_(count), depth_(matrix.columns) {
    block_ = allocator.allocateArray<float>(panels() * tile.rows * depth_);
    const RowSource source{matrix, nullptr, first + count};
    FirstFound notFinite;
    pool.forEach(panels(), [&](int64_t panel, int) {
      const int64_t row = packRows<tile.rows>(source, first + panel * tile.rows, block_.as<float>() + offset(panel));
      if (row >= 0) notFinite.offer(row);
    });
    if (operand && notFinite.found()) throwNonFinite(operand, notFinite.row());
  }

  int64_t rows() const { return rows_; }
  int64_t depth() const { return depth_; }
  int64_t panels() const { return panelsFor(rows_, tile.rows); }
  const float* panel(int64_t i) const { return block_.as<const float>() + offset(i); }

 private:
  int64_t offset(int64_t panel) const { return panel * tile.rows * depth_; }

  int64_t rows_, depth_;
  Block block_;
};

// ---- The product by blocks ----------------------------------------------------------------------

// A tile of scores: rows [firstRow, firstRow + rows) x columns [firstColumn, firstColumn + columns).
struct ScoreTile {
  int64_t firstRow, firstColumn;
  int rows, columns;
  const float* scores;  // [rows], stripColumns apart; columns up to the next whole vector hold -infinity
  int thread;

  const float* row(int i) const { return scores + i * stripColumns; }
};

// Columns per block, a multiple of tile.columns(), so that a block takes its share of the second-level cache.
inline int64_t columnsPerBlock(int64_t depth) {
  const int64_t fitting =
      int64_t(blockShareOfCache * double(secondLevelCacheBytes())) / (int64_t(sizeof(float)) * depth);
  return std::max<int64_t>(1, fitting / tile.columns()) * tile.columns();
}

// One row panel times `columns` packed columns, KC by KC, into scores (stripColumns apart).
inline void multiplyStrip(const float* rowPanel, const float* columnPanels, int64_t columns, int64_t depth,
                          const float* start, float* scores) {
  for (int64_t k = 0; k < depth; k += tile.depth) {
    const int64_t kCount = std::min<int64_t>(tile.depth, depth - k);
    for (int64_t j = 0; j < columns; j += tile.columns())
      multiplyTile(rowPanel + k * tile.rows, columnPanels + j * depth + k * tile.columns(), kCount,
                   k == 0 ? start + j : nullptr, scores + j, stripColumns);
  }
}

// Calls consumer.take(const ScoreTile&) for all tiles of x . columns^T + start, `start` [columns.count] or null for
// zeros. Every row meets its columns in ascending order; calls for different rows may come from different threads at
// once. Before the tiles of a row panel in a block are computed, consumer.expect(firstRow, rows) announces them, so
// that what the consumer keeps per row can be prefetched meanwhile. NaN or infinity in the columns throws nonFinite
// naming `operand`, if that is given.
template <class Consumer>
void multiplyByBlocks(const PackedRows& x, const RowSource& columns, const float* start, const char* operand,
                      Allocator& allocator, ThreadPool& pool, Consumer& consumer) {
  const int64_t depth = x.depth();
  const int64_t perBlock = std::min(columnsPerBlock(depth), panelsFor(columns.count, tile.columns()) * tile.columns());
  const Block packed = allocator.allocateArray<float>(perBlock * depth);
  const Block starts = allocator.allocateArray<float>(perBlock);
  const int64_t scratchPerThread = tile.rows * stripColumns;
  const Block scratch = allocator.allocateArray<float>(scratchPerThread * pool.threads());

  for (int64_t first = 0; first < columns.count; first += perBlock) {
    const int64_t count = std::min(perBlock, columns.count - first);
    const int64_t padded = panelsFor(count, tile.columns()) * tile.columns();
    for (int64_t j = 0; j < padded; ++j) starts.as<float>()[j] = j >= count ? -infinity : start ? start[first + j] : 0;
    FirstFound notFinite;
    pool.forEach(padded / tile.columns(), [&](int64_t panel, int) {
      const int64_t row = packRows<tile.columns()>(columns, first + panel * tile.columns(),
                                                   packed.as<float>() + panel * tile.columns() * depth);
      if (row >= 0) notFinite.offer(columns.indices ? int64_t(columns.indices[row]) : row);
    });
    if (operand && notFinite.found()) throwNonFinite(operand, notFinite.row());

    pool.forEach(x.panels(), [&](int64_t panel, int thread) {
      float* scores = scratch.as<float>() + thread * scratchPerThread;
      const int rows = int(std::min<int64_t>(tile.rows, x.rows() - panel * tile.rows));
      consumer.expect(panel * tile.rows, rows);
      for (int64_t j = 0; j < count; j += stripColumns) {
        multiplyStrip(x.panel(panel), packed.as<const float>() + j * depth, std::min(stripColumns, padded - j), depth,
                      starts.as<const float>() + j, scores);
        consumer.take(
            ScoreTile{panel * tile.rows, first + j, rows, int(std::min(stripColumns, count - j)), scores, thread});
      }
    });
  }
}

}  // namespace monosem::MONOSEM_ISA
