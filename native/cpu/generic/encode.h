// The fused encoder: matrix product, bias and selection in one pass.
//
//   z[r, f] = bias[f] + sum over k of x[r, k] * encoder[f, k]              (k ascending; see matrix_product.h)
//   positive: the entries with z > 0; top k: the k largest of every row, ties by (z descending, feature ascending)
//
// x [rows, dIn] is packed once, the encoder [features, dIn] block by block; a tile of z is judged while it is in cache,
// and only what is selected is ever written: [rows, features] never exists. With a feature subset, only those rows of
// the encoder take part. Reads x and the encoder once per chunk of rows; writes 8 bytes per entry.
#pragma once

#include "cpu/generic/matrix_product.h"
#include "cpu/generic/top_k.h"
#if defined(MONOSEM_SCREEN_HEADER)  // this instruction set may have a faster way to the exact top k
#include MONOSEM_SCREEN_HEADER
#endif

namespace monosem::MONOSEM_ISA {

// Rows that go through the encoder together: few enough that their packed copy and their candidates stay small, enough
// that packing the encoder again for the next chunk costs little.
constexpr int64_t mostRowsPerChunk = 8192;
constexpr int64_t candidateBytesPerChunk = int64_t(64) << 20;
constexpr int64_t positiveRowsPerChunk = 2048;

// The features that an encode may select from, by position: ascending, all or those of a subset.
struct Eligible {
  Matrix<const float> encoder;
  const FeatureSet* subset;

  int64_t count() const { return subset ? subset->count : encoder.rows; }
  RowSource rows() const { return {encoder, subset ? subset->view().data : nullptr, count()}; }
  uint32_t feature(uint32_t position) const { return subset ? subset->view()[position] : position; }
};

[[noreturn]] inline void throwOverflow(int64_t row) {
  throw EngineError(ErrorCode::nonFinite, "The pre-activations of row " + std::to_string(row) +
                                              " are too large for float32: x or the encoder holds huge values.");
}

// ---- Top k --------------------------------------------------------------------------------------

struct TopKConsumer {
  RunningTopK& selected;
  FirstFound overflow;

  void expect(int64_t firstRow, int rows) const { selected.expect(firstRow, rows); }
  void take(const ScoreTile& scores) {
    for (int i = 0; i < scores.rows; ++i)
      if (!selected.offer(scores.firstRow + i, scores.row(i), scores.firstColumn, scores.columns))
        overflow.offer(scores.firstRow + i);
  }
};

// Selects among all scores of the rows [first, first + rows) of x; `selected` has the place of the first of them at 0.
inline void selectByProduct(Matrix<const float> x, int64_t first, int64_t rows, const Eligible& eligible,
                            const float* bias, RunningTopK& selected, Allocator& allocator, ThreadPool& pool) {
  const PackedRows packed(x, first, rows, "x", allocator, pool);
  TopKConsumer consumer{selected, {}};
  multiplyByBlocks(packed, eligible.rows(), bias, "encoder", allocator, pool, consumer);
  if (consumer.overflow.found()) throwOverflow(first + consumer.overflow.row());
}

#if defined(MONOSEM_SCREEN_HEADER)
// The same, by screening; rows that cannot be screened go through the product.
inline void selectByScreening(Matrix<const float> x, int64_t first, int64_t rows, const Eligible& eligible,
                              const float* bias, int64_t k, RunningTopK& selected, Allocator& allocator,
                              ThreadPool& pool) {
  const std::vector<int64_t> others = screenTopK(x, first, rows, eligible.rows(), bias, k, selected, allocator, pool);
  if (others.empty()) return;
  if (int64_t(others.size()) == rows) return selectByProduct(x, first, rows, eligible, bias, selected, allocator, pool);
  const int64_t count = int64_t(others.size());
  const Block gathered = allocator.allocateArray<float>(count * x.columns);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(gathered.as<float>() + i * x.columns, x.row(first + others[size_t(i)]),
                sizeof(float) * size_t(x.columns));
  RunningTopK rest(count, k, eligible.count(), allocator);
  selectByProduct({gathered.as<const float>(), count, x.columns}, 0, count, eligible, bias, rest, allocator, pool);
  for (int64_t i = 0; i < count; ++i)
    selected.set(others[size_t(i)], rest.scoresOf(i), rest.positionsOf(i), rest.finish(i));
}
#endif

inline void encodeTopK(Matrix<const float> x, const Eligible& eligible, const float* bias, int64_t k,
                       [[maybe_unused]] bool screening, Codes& codes, Allocator& allocator, ThreadPool& pool) {
  codes.entries = codes.rows * k;
  codes.features = allocator.allocateArray<uint32_t>(codes.entries);
  codes.preActivations = allocator.allocateArray<float>(codes.entries);
  for (int64_t row = 0; row <= codes.rows; ++row) codes.rowOffsets.as<uint64_t>()[row] = uint64_t(row * k);
  if (codes.entries == 0) return;

  const int64_t rowsPerChunk = std::clamp<int64_t>(
      candidateBytesPerChunk / RunningTopK::bytesPerRow(k, eligible.count()), tile.rows, mostRowsPerChunk);
  std::atomic<bool> allPositive{true};
  for (int64_t first = 0; first < x.rows; first += rowsPerChunk) {
    const int64_t rows = std::min(rowsPerChunk, x.rows - first);
    RunningTopK selected(rows, k, eligible.count(), allocator);
#if defined(MONOSEM_SCREEN_HEADER)
    if (screening && worthScreening(rows, eligible.count(), x.columns, k))
      selectByScreening(x, first, rows, eligible, bias, k, selected, allocator, pool);
    else
#endif
      selectByProduct(x, first, rows, eligible, bias, selected, allocator, pool);
    pool.forEachRange(rows, 64, [&](int64_t begin, int64_t end, int) {
      bool positive = true;
      for (int64_t row = begin; row < end; ++row) {
        selected.finish(row);
        const float* scores = selected.scoresOf(row);
        const uint32_t* positions = selected.positionsOf(row);
        float* preActivations = codes.preActivations.as<float>() + (first + row) * k;
        uint32_t* features = codes.features.as<uint32_t>() + (first + row) * k;
        for (int64_t i = 0; i < k; ++i) {
          positive = positive && scores[i] > 0;
          preActivations[i] = scores[i];
          features[i] = eligible.feature(positions[i]);
        }
      }
      if (!positive) allPositive.store(false);
    });
  }
  if (allPositive.load()) return;
  codes.values = allocator.allocateArray<float>(codes.entries);
  pool.forEachRange(codes.entries, 1 << 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) codes.values.as<float>()[i] = std::max(codes.preActivation()[i], 0.0f);
  });
}

// ---- Positive -----------------------------------------------------------------------------------

// Entries in the order in which one thread finds them, in slabs, so that nothing moves when there are more than
// expected.
class EntryLog {
 public:
  // Room for `count` more entries, all in one slab.
  void reserve(int64_t count, Allocator& allocator) {
    if (used_ + count <= capacity_) return;
    capacity_ = std::max(count, slabEntries);
    used_ = 0;
    slabs_.push_back({allocator.allocateArray<float>(capacity_), allocator.allocateArray<uint32_t>(capacity_)});
  }
  float* scores() { return slabs_.back().scores.as<float>() + used_; }
  uint32_t* positions() { return slabs_.back().positions.as<uint32_t>() + used_; }
  void advance(int64_t count) { used_ += count; }

 private:
  struct Slab {
    Block scores, positions;
  };
  static constexpr int64_t slabEntries = 1 << 16;
  std::vector<Slab> slabs_;
  int64_t used_ = 0, capacity_ = 0;
};

// The entries of one row in one strip of columns.
struct Segment {
  const float* scores = nullptr;
  const uint32_t* positions = nullptr;
  int64_t count = 0;
};

class PositiveConsumer {
 public:
  PositiveConsumer(int64_t rows, int threads, Allocator& allocator)
      : allocator_(allocator), logs_(size_t(threads)), segments_(size_t(rows)) {}

  void expect(int64_t, int) const {}
  void take(const ScoreTile& scores) {
    EntryLog& log = logs_[size_t(scores.thread)];
    for (int i = 0; i < scores.rows; ++i) {
      const int64_t row = scores.firstRow + i;
      log.reserve(scores.columns + width, allocator_);
      Segment segment{log.scores(), log.positions(), 0};
      if (!allFinite(scores.row(i), scores.columns)) overflow.offer(row);
      for (int j = 0; j < scores.columns; j += width) {
        const Floats score = load(scores.row(i) + j);
        const Mask positive = score > zeros();
        compressStore(log.scores() + segment.count, score, positive);
        segment.count += compressStore(log.positions() + segment.count,
                                       laneIndices() + broadcastInt(int32_t(scores.firstColumn + j)), positive);
      }
      log.advance(segment.count);
      if (segment.count > 0) segments_[size_t(row)].push_back(segment);
    }
  }
  FirstFound overflow;
  const std::vector<Segment>& segments(int64_t row) const { return segments_[size_t(row)]; }

 private:
  Allocator& allocator_;
  std::vector<EntryLog> logs_;                  // one per thread
  std::vector<std::vector<Segment>> segments_;  // one per row, features ascending
};

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

inline void encodePositive(Matrix<const float> x, const Eligible& eligible, const float* bias, Codes& codes,
                           Allocator& allocator, ThreadPool& pool) {
  uint64_t* rowOffsets = codes.rowOffsets.as<uint64_t>();
  int64_t capacity = 0;
  rowOffsets[0] = 0;
  for (int64_t first = 0; first < x.rows; first += positiveRowsPerChunk) {
    const int64_t rows = std::min(positiveRowsPerChunk, x.rows - first);
    const PackedRows packed(x, first, rows, "x", allocator, pool);
    PositiveConsumer found(rows, pool.threads(), allocator);
    multiplyByBlocks(packed, eligible.rows(), bias, "encoder", allocator, pool, found);
    if (found.overflow.found()) throwOverflow(first + found.overflow.row());

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
          if (eligible.subset)
            for (int64_t i = 0; i < segment.count; ++i) features[i] = eligible.feature(segment.positions[i]);
          else
            std::memcpy(features, segment.positions, size_t(segment.count) * sizeof(uint32_t));
          at += uint64_t(segment.count);
        }
      }
    });
  }
  codes.entries = int64_t(rowOffsets[x.rows]);
  if (x.rows == 0) growEntries(codes, 0, 0, allocator);
}

// ---- Both ---------------------------------------------------------------------------------------

// `screening`: whether top k may take the short way of MONOSEM_SCREEN_HEADER, which gives the same bits.
inline Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
                    const Selection& selection, bool screening, Allocator& allocator, ThreadPool& pool) {
  Codes codes;
  codes.rows = x.rows;
  codes.dSae = encoder.rows;
  codes.subset = selection.subset;
  codes.rowOffsets = allocator.allocateArray<uint64_t>(x.rows + 1);

  const Eligible eligible{encoder, selection.subset.get()};
  if (!allFinite(bias.data, bias.size)) {
    int64_t first = 0;
    while (std::isfinite(bias[first])) ++first;
    throwNonFinite("bias", first);
  }
  Block gathered;
  const float* eligibleBias = bias.data;
  if (eligible.subset) {
    gathered = allocator.allocateArray<float>(eligible.count());
    for (int64_t i = 0; i < eligible.count(); ++i) gathered.as<float>()[i] = bias[eligible.feature(uint32_t(i))];
    eligibleBias = gathered.as<const float>();
  }
  if (selection.select == Select::topk)
    encodeTopK(x, eligible, eligibleBias, std::min(selection.k, eligible.count()), screening, codes, allocator, pool);
  else
    encodePositive(x, eligible, eligibleBias, codes, allocator, pool);
  return codes;
}

}  // namespace monosem::MONOSEM_ISA
