// The entries of every row whose pre-activation is above their feature's bound: z > bound[f].
#pragma once

#include "cpu/generic/encode_operands.h"
#include "cpu/generic/found_entries.h"
#if defined(MONOSEM_SCREEN_HEADER)  // this instruction set may have a faster way to the same entries
#include MONOSEM_SCREEN_HEADER
#endif

namespace monosem::MONOSEM_ISA {

constexpr int64_t rowsPerChunkAbove = 2048;

// Bounds by position, readable up to the end of the last vector.
template <class BoundOf>
Block boundsFor(const Eligible& eligible, const BoundOf& boundOf, Allocator& allocator) {
  Block bounds = allocator.allocateArray<float>(eligible.count() + width);
  float* bound = bounds.as<float>();
  for (int64_t i = 0; i < eligible.count(); ++i) bound[i] = boundOf(eligible.feature(uint32_t(i)));
  std::fill_n(bound + eligible.count(), width, infinity);
  return bounds;
}

struct AboveConsumer {
  const float* bounds;
  FoundEntries& found;
  FirstFound overflow;

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      if (!allFinite(scores.row(i), scores.columns)) overflow.offer(row);
      Segment segment = found.begin(scores.thread, scores.columns);
      for (int j = 0; j < scores.columns; j += width) {
        const Floats score = load(scores.row(i) + j);
        const Mask above = score > load(bounds + scores.firstColumn + j);
        compressStore(segment.scores + segment.count, score, above);
        segment.count += compressStore(segment.positions + segment.count,
                                       laneIndices() + broadcastInt(int32_t(scores.firstColumn + j)), above);
      }
      found.advance(scores.thread, segment.count);
      found.add(row, segment);
    }
  }
};

// Finds the entries of the rows [first, first + rows) of x; `found` has the place of the first of them at 0.
inline void findAboveByProduct(Matrix<const float> x, int64_t first, int64_t rows, const Eligible& eligible,
                               const float* bounds, FoundEntries& found, Allocator& allocator, ThreadPool& pool) {
  const PackedRows packed(x, first, rows, "x", allocator, pool);
  AboveConsumer consumer{bounds, found, {}};
  multiplyByBlocks(packed, eligible.rows(), eligible.bias(), "encoder", allocator, pool, consumer);
  if (consumer.overflow.found()) throwOverflow(first + consumer.overflow.row());
}

// Makes room for `entries` in the codes' arrays, keeping the first `kept`.
inline void growEntries(Codes& codes, int64_t kept, int64_t entries, Allocator& allocator) {
  const Block features = allocator.allocateArray<uint32_t>(entries);
  const Block preActivations = allocator.allocateArray<float>(entries);
  if (kept > 0) {
    std::memcpy(features.as<uint32_t>(), codes.features.as<uint32_t>(), size_t(kept) * sizeof(uint32_t));
    std::memcpy(preActivations.as<float>(), codes.preActivations.as<float>(), size_t(kept) * sizeof(float));
  }
  codes.features = features;
  codes.preActivations = preActivations;
}

// Fills the codes' entries with those whose score is above `bounds`, made by boundsFor().
inline void encodeAbove(Matrix<const float> x, const Eligible& eligible, const float* bounds,
                        [[maybe_unused]] bool screening, Codes& codes, Allocator& allocator, ThreadPool& pool) {
  uint64_t* rowOffsets = codes.rowOffsets.as<uint64_t>();
  int64_t capacity = 0;
  rowOffsets[0] = 0;
  for (int64_t first = 0; first < x.rows; first += rowsPerChunkAbove) {
    const int64_t rows = std::min(rowsPerChunkAbove, x.rows - first);
    FoundEntries found(rows, pool.threads(), allocator);
#if defined(MONOSEM_SCREEN_HEADER)
    if (screening && worthScreeningAbove(rows, eligible.count(), x.columns)) {
      // Where there were too many candidates, the chunks to come will have too many as well.
      screening = screenAbove(x, first, rows, eligible.rows(), eligible.bias(), bounds, found, allocator, pool);
      if (!screening) found.clear();
    } else {
      screening = false;
    }
    if (!screening)
#endif
      findAboveByProduct(x, first, rows, eligible, bounds, found, allocator, pool);

    for (int64_t row = 0; row < rows; ++row) {
      uint64_t count = 0;
      for (const Segment& segment : found.segments(row)) count += uint64_t(segment.count);
      rowOffsets[first + row + 1] = rowOffsets[first + row] + count;
    }
    const int64_t kept = int64_t(rowOffsets[first]), entries = int64_t(rowOffsets[first + rows]);
    if (entries > capacity || first == 0) {
      // Exact for the last chunk; before it, the density so far foretells the rest, with a little to spare.
      const double perRow = double(entries) / double(first + rows);
      capacity = entries + int64_t(1.05 * perRow * double(x.rows - first - rows));
      growEntries(codes, kept, capacity, allocator);
    }
    pool.forEachRange(rows, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        uint64_t at = rowOffsets[first + row];
        for (const Segment& segment : found.segments(row)) {
          std::memcpy(codes.preActivations.as<float>() + at, segment.scores, size_t(segment.count) * sizeof(float));
          uint32_t* features = codes.features.as<uint32_t>() + at;
          if (eligible.all())
            std::memcpy(features, segment.positions, size_t(segment.count) * sizeof(uint32_t));
          else
            for (int64_t i = 0; i < segment.count; ++i) features[i] = eligible.feature(segment.positions[i]);
          at += uint64_t(segment.count);
        }
      }
    });
  }
  codes.entries = int64_t(rowOffsets[x.rows]);
  if (x.rows == 0) growEntries(codes, 0, 0, allocator);
}

// ---- All ----------------------------------------------------------------------------------------

// Writes every score to its place in codes that hold all eligible features of every row.
struct AllConsumer {
  float* preActivations;
  int64_t perRow;
  FirstFound overflow;

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      if (!allFinite(scores.row(i), scores.columns)) overflow.offer(row);
      std::memcpy(preActivations + row * perRow + scores.firstColumn, scores.row(i),
                  size_t(scores.columns) * sizeof(float));
    }
  }
};

// Fills the codes with an entry for every eligible feature of every row.
inline void encodeAll(Matrix<const float> x, const Eligible& eligible, Codes& codes, Allocator& allocator,
                      ThreadPool& pool) {
  const int64_t perRow = eligible.count();
  codes.entries = x.rows * perRow;
  codes.features = allocator.allocateArray<uint32_t>(codes.entries);
  codes.preActivations = allocator.allocateArray<float>(codes.entries);
  for (int64_t row = 0; row <= x.rows; ++row) codes.rowOffsets.as<uint64_t>()[row] = uint64_t(row * perRow);
  pool.forEachRange(x.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < perRow; ++i)
        codes.features.as<uint32_t>()[row * perRow + i] = eligible.feature(uint32_t(i));
  });
  for (int64_t first = 0; first < x.rows; first += rowsPerChunkAbove) {
    const int64_t rows = std::min(rowsPerChunkAbove, x.rows - first);
    const PackedRows packed(x, first, rows, "x", allocator, pool);
    AllConsumer consumer{codes.preActivations.as<float>() + first * perRow, perRow, {}};
    multiplyByBlocks(packed, eligible.rows(), eligible.bias(), "encoder", allocator, pool, consumer);
    if (consumer.overflow.found()) throwOverflow(first + consumer.overflow.row());
  }
}

}  // namespace monosem::MONOSEM_ISA
