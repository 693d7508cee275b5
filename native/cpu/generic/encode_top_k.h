// The k entries of every row with the largest pre-activations, or with those largest in magnitude.
#pragma once

#include "cpu/generic/encode_operands.h"
#include "cpu/generic/top_k.h"
#if defined(MONOSEM_SCREEN_HEADER)  // this instruction set may have a faster way to the same entries
#include MONOSEM_SCREEN_HEADER
#endif

namespace monosem::MONOSEM_ISA {

// Rows that go through the encoder together: few enough that their packed copy and their candidates stay small, enough
// that packing the encoder again for the next chunk costs little.
constexpr int64_t mostRowsPerChunk = 8192;
constexpr int64_t candidateBytesPerChunk = int64_t(64) << 20;

template <class Order>
struct TopKConsumer {
  RunningTopK<Order>& selected;
  FirstFound overflow;

  void expect(int64_t firstRow, int rows) const { selected.expect(firstRow, rows); }
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i)
      if (!selected.offer(scores.firstRow + i, scores.row(i), scores.firstColumn, scores.columns))
        overflow.offer(scores.firstRow + i);
  }
};

// Selects among all scores of the rows [first, first + rows) of x; `selected` has the place of the first of them at 0.
template <class Order>
void selectTopByProduct(Matrix<const float> x, int64_t first, int64_t rows, const Eligible& eligible,
                        RunningTopK<Order>& selected, Allocator& allocator, ThreadPool& pool) {
  const PackedRows packed(x, first, rows, "x", allocator, pool);
  TopKConsumer<Order> consumer{selected, {}};
  multiplyByBlocks(packed, eligible.rows(), eligible.bias(), "encoder", allocator, pool, consumer);
  if (consumer.overflow.found()) throwOverflow(first + consumer.overflow.row());
}

#if defined(MONOSEM_SCREEN_HEADER)
// The same, by screening; rows that cannot be screened go through the product.
inline void selectTopByScreening(Matrix<const float> x, int64_t first, int64_t rows, const Eligible& eligible,
                                 int64_t k, RunningTopK<ByValue>& selected, Allocator& allocator, ThreadPool& pool) {
  const std::vector<int64_t> others =
      screenTopK(x, first, rows, eligible.rows(), eligible.bias(), k, selected, allocator, pool);
  if (others.empty()) return;
  if (int64_t(others.size()) == rows) return selectTopByProduct(x, first, rows, eligible, selected, allocator, pool);
  const int64_t count = int64_t(others.size());
  const Block gathered = allocator.allocateArray<float>(count * x.columns);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(gathered.as<float>() + i * x.columns, x.row(first + others[size_t(i)]),
                sizeof(float) * size_t(x.columns));
  RunningTopK<ByValue> rest(count, k, eligible.count(), allocator);
  selectTopByProduct<ByValue>({gathered.as<const float>(), count, x.columns}, 0, count, eligible, rest, allocator,
                              pool);
  for (int64_t i = 0; i < count; ++i)
    selected.set(others[size_t(i)], rest.scoresOf(i), rest.positionsOf(i), rest.finish(i));
}
#endif

// Fills the codes' entries with the min(k, eligible) largest scores of every row.
template <class Order>
void encodeTopK(Matrix<const float> x, const Eligible& eligible, int64_t k, [[maybe_unused]] bool screening,
                Codes& codes, Allocator& allocator, ThreadPool& pool) {
  k = std::min(k, eligible.count());
  codes.entries = codes.rows * k;
  codes.features = allocator.allocateArray<uint32_t>(codes.entries);
  codes.preActivations = allocator.allocateArray<float>(codes.entries);
  for (int64_t row = 0; row <= codes.rows; ++row) codes.rowOffsets.as<uint64_t>()[row] = uint64_t(row * k);
  if (codes.entries == 0) return;

  const int64_t rowsPerChunk = std::clamp<int64_t>(
      candidateBytesPerChunk / RunningTopK<Order>::bytesPerRow(k, eligible.count()), tile.rows, mostRowsPerChunk);
  for (int64_t first = 0; first < x.rows; first += rowsPerChunk) {
    const int64_t rows = std::min(rowsPerChunk, x.rows - first);
    RunningTopK<Order> selected(rows, k, eligible.count(), allocator);
#if defined(MONOSEM_SCREEN_HEADER)
    if constexpr (std::is_same_v<Order, ByValue>) {
      if (screening && worthScreening(rows, eligible.count(), x.columns, k))
        selectTopByScreening(x, first, rows, eligible, k, selected, allocator, pool);
      else
        selectTopByProduct(x, first, rows, eligible, selected, allocator, pool);
    } else
#endif
      selectTopByProduct(x, first, rows, eligible, selected, allocator, pool);
    pool.forEachRange(rows, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        selected.finish(row);
        const uint32_t* positions = selected.positionsOf(row);
        std::copy(selected.scoresOf(row), selected.scoresOf(row) + k,
                  codes.preActivations.as<float>() + (first + row) * k);
        uint32_t* features = codes.features.as<uint32_t>() + (first + row) * k;
        for (int64_t i = 0; i < k; ++i) features[i] = eligible.feature(positions[i]);
      }
    });
  }
}

}  // namespace monosem::MONOSEM_ISA
