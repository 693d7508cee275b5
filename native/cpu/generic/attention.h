// Causal attention, for a tile of queries and a block of keys at a time.
//
//   scores[q, k]  = cap(scale * query q . key k)     for the keys that q sees
//   pattern[q, :] = softmax(scores[q, :])
//   out[q, :]     = sum over k of pattern[q, k] * value k
//
// One sequence, head and stretch of queries is an item. Within it the blocks of keys pass by in ascending order; the
// attention proper keeps per query the largest score so far, the sum of exponentials and the sum of values relative to
// it (the online softmax of FlashAttention, Dao et al. 2022, arXiv:2205.14135), so that nothing of size positions^2
// exists. Keys are turned to [dHead][key], so that a vector of scores is a vector of keys.
#pragma once

#include "cpu/generic/softmax.h"
#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

constexpr int64_t queriesPerTile = 6;
constexpr int64_t queriesPerItem = 16 * queriesPerTile;
constexpr int64_t keysPerBlock = 64;
constexpr int attentionVectors = registerBlock > 8 ? 4 : 2;  // times queriesPerTile sums stay in registers

// Where the keys end that query `position` sees.
inline int64_t visibleKeys(const Attention& a, int64_t position) {
  return a.keyPositions - a.queryPositions + position + 1;
}

// The queries of one head of one sequence that belong to one item, and where the head's vectors stand.
struct AttentionItem {
  AttentionItem(const Attention& a, int64_t item) {
    const int64_t stretches = countPerHead(a);
    sequence = item / stretches / a.heads;
    head = item / stretches % a.heads;
    begin = item % stretches * queriesPerItem;
    end = std::min(a.queryPositions, begin + queriesPerItem);
    stride = a.heads * a.dHead;
    keyStride = a.keyHeads * a.dHead;
    firstKey = a.firstKeys ? std::clamp<int64_t>(a.firstKeys[sequence], 0, a.keyPositions) : 0;
    const int64_t keyHead = head / (a.heads / a.keyHeads);
    queries = a.queries + (sequence * a.queryPositions * a.heads + head) * a.dHead;
    keys = a.keys + (sequence * a.keyCapacity * a.keyHeads + keyHead) * a.dHead;
    values = a.values + (sequence * a.keyCapacity * a.keyHeads + keyHead) * a.dHead;
  }
  static int64_t countPerHead(const Attention& a) { return (a.queryPositions + queriesPerItem - 1) / queriesPerItem; }
  static int64_t count(const Attention& a) { return a.batch * a.heads * countPerHead(a); }

  // Where the keys begin that a query sees; not behind their end.
  int64_t firstVisible(const Attention& a, int64_t query) const {
    const int64_t end = visibleKeys(a, query);
    return std::min(end, a.window > 0 ? std::max(firstKey, end - a.window) : firstKey);
  }

  // The offset of a query's row in [batch, heads, queryPositions, keyPositions] and in [batch, queryPositions, heads,
  // dHead].
  int64_t patternOffset(const Attention& a, int64_t query) const {
    return ((sequence * a.heads + head) * a.queryPositions + query) * a.keyPositions;
  }
  int64_t outOffset(const Attention& a, int64_t query) const {
    return ((sequence * a.queryPositions + query) * a.heads + head) * a.dHead;
  }

  int64_t sequence, head;
  int64_t begin, end;         // the queries
  int64_t stride, keyStride;  // from one position to the next, of queries and of keys and values
  int64_t firstKey;           // where the sequence begins
  const float *queries, *keys, *values;
};

// c[r, 0 ... vectors * width) = (add ? c : 0) + sum over k of a[r, k] * b[k, :], for the queriesPerTile rows r.
template <int vectors>
inline void multiplyQueryColumns(const float* a, int64_t aStride, const float* b, int64_t bStride, int64_t depth,
                                 float* c, int64_t cStride, bool add) {
  Floats sums[queriesPerTile][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < queriesPerTile; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[r][v] = add ? load(c + r * cStride + v * width) : zeros();
  for (int64_t k = 0; k < depth; ++k) {
    Floats row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) row[v] = load(b + k * bStride + v * width);
#pragma GCC unroll 8
    for (int r = 0; r < queriesPerTile; ++r) {
      const Floats factor = broadcast(a[r * aStride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = fma(factor, row[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < queriesPerTile; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c + r * cStride + v * width, sums[r][v]);
}

// The same for any number of columns; k ascending.
inline void multiplyQueryTile(const float* a, int64_t aStride, const float* b, int64_t bStride, int64_t depth, float* c,
                              int64_t cStride, int64_t columns, bool add) {
  int64_t column = 0;
  for (; column + attentionVectors * width <= columns; column += attentionVectors * width)
    multiplyQueryColumns<attentionVectors>(a, aStride, b + column, bStride, depth, c + column, cStride, add);
  for (; column + width <= columns; column += width)
    multiplyQueryColumns<1>(a, aStride, b + column, bStride, depth, c + column, cStride, add);
  if (column == columns) return;
  const int lanes = int(columns - column);
  for (int64_t r = 0; r < queriesPerTile; ++r) {
    Floats sums = add ? loadFirst(c + r * cStride + column, lanes) : zeros();
    for (int64_t k = 0; k < depth; ++k)
      sums = fma(broadcast(a[r * aStride + k]), loadFirst(b + k * bStride + column, lanes), sums);
    storeFirst(c + r * cStride + column, sums, lanes);
  }
}

// Scratch of one thread.
class AttentionScratch {
 public:
  AttentionScratch(const Attention& a, Allocator& allocator, int threads)
      : dHead_(a.dHead), stride_(queriesPerItem * (2 * dHead_ + 2) + keysPerBlock * (dHead_ + queriesPerTile)) {
    block_ = allocator.allocateArray<float>(stride_ * threads);
  }
  float* queries(int thread) const { return block_.as<float>() + stride_ * thread; }  // [queriesPerItem][dHead], scaled
  float* sums(int thread) const { return queries(thread) + queriesPerItem * dHead_; }  // [queriesPerItem][dHead]
  float* largest(int thread) const { return sums(thread) + queriesPerItem * dHead_; }  // [queriesPerItem]
  float* totals(int thread) const { return largest(thread) + queriesPerItem; }         // [queriesPerItem]
  float* keys(int thread) const { return totals(thread) + queriesPerItem; }            // [dHead][keysPerBlock]
  float* scores(int thread) const { return keys(thread) + keysPerBlock * dHead_; }     // [queriesPerTile][keysPerBlock]

 private:
  int64_t dHead_, stride_;
  Block block_;
};

// The item's queries times the scale, contiguous, then rows of zeros up to a whole tile.
inline void packQueries(const Attention& a, const AttentionItem& item, float* packed) {
  for (int64_t q = 0; q < queriesPerItem; ++q) {
    const int64_t query = item.begin + q;
    if (query < item.end)
      scaleRow(item.queries + query * item.stride, float(a.scale), a.dHead, packed + q * a.dHead);
    else if (q < (item.end - item.begin + queriesPerTile - 1) / queriesPerTile * queriesPerTile)
      std::memset(packed + q * a.dHead, 0, sizeof(float) * size_t(a.dHead));
  }
}

// Keys [first, first + count) as [dHead][keysPerBlock], then zeros.
inline void packKeys(const Attention& a, const AttentionItem& item, int64_t first, int64_t count, float* packed) {
  if (count < keysPerBlock) std::memset(packed, 0, sizeof(float) * size_t(keysPerBlock * a.dHead));
  const float* rows[keysPerBlock];
  for (int64_t key = 0; key < count; ++key) rows[key] = item.keys + (first + key) * item.keyStride;
  transposeRows(rows, count, a.dHead, packed, keysPerBlock);
}

// Calls body(keys packed, first key, number of keys, first query of the tile relative to the item) for the item's tiles
// and all blocks of keys that one of its queries sees, keys ascending. Blocks begin at multiples of keysPerBlock.
template <class Body>
inline void forEachTile(const Attention& a, const AttentionItem& item, float* packedKeys, const Body& body) {
  const int64_t lastVisible = visibleKeys(a, item.end - 1);
  const int64_t firstBlock = item.firstVisible(a, item.begin) / keysPerBlock * keysPerBlock;
  for (int64_t first = firstBlock; first < lastVisible; first += keysPerBlock) {
    const int64_t count = std::min(keysPerBlock, lastVisible - first);
    packKeys(a, item, first, count, packedKeys);
    for (int64_t tile = 0; item.begin + tile < item.end; tile += queriesPerTile) {
      const int64_t lastQuery = std::min(item.end, item.begin + tile + queriesPerTile) - 1;
      if (first < visibleKeys(a, lastQuery) && first + count > item.firstVisible(a, item.begin + tile))
        body(first, count, tile);
    }
  }
}

// scores[k] = cap * tanh(scores[k] / cap), where there is a cap.
inline void capScores(float* scores, int64_t count, double cap) {
  if (cap == 0) return;
  const Floats factor = broadcast(float(cap)), divisor = broadcast(float(1 / cap));
  forEachVector(count, [&](int64_t k, int lanes) {
    storeLanes(scores + k, factor * tanh(loadLanes(scores + k, lanes) * divisor), lanes);
  });
}

// One query's scores against a block of keys, of which it sees [begin, end), become exponentials relative to the
// largest score so far; what was summed before is rescaled to it.
inline void absorbScores(float* scores, int64_t begin, int64_t end, float& largestSoFar, float& total, float* sums,
                         int64_t dHead) {
  constexpr float hidden = -std::numeric_limits<float>::infinity();
  std::fill(scores, scores + begin, hidden);
  std::fill(scores + end, scores + keysPerBlock, hidden);
  Floats most = broadcast(largestSoFar);
  for (int64_t k = 0; k < keysPerBlock; k += width) most = max(most, load(scores + k));
  const float newLargest = maximum(most);
  const Floats shift = broadcast(newLargest == hidden ? 0.0f : newLargest);
  Floats added = zeros();
  for (int64_t k = 0; k < keysPerBlock; k += width) {
    const Floats power = exp(load(scores + k) - shift);
    added = added + power;
    store(scores + k, power);
  }
  // 0 for the first block that has a score, before which nothing was summed.
  const float rescale = largestSoFar == newLargest ? 1.0f : std::exp(largestSoFar - newLargest);
  total = total * rescale + sum(added);
  if (rescale != 1) scaleRow(sums, rescale, dHead, sums);
  largestSoFar = newLargest;
}

// A few queries against a cache: turning the keys would cost more than it saves, so each score is one dot product.
inline void attentionOfFewQueries(const Attention& a, float* out, Allocator& allocator, ThreadPool& pool) {
  const Block scratch = allocator.allocateArray<float>(a.keyPositions * pool.threads());
  pool.forEach(AttentionItem::count(a), [&](int64_t index, int thread) {
    const AttentionItem item(a, index);
    float* scores = scratch.as<float>() + thread * a.keyPositions;
    for (int64_t query = item.begin; query < item.end; ++query) {
      const int64_t begin = item.firstVisible(a, query), end = visibleKeys(a, query);
      for (int64_t key = begin; key < end; ++key)
        scores[key] =
            float(a.scale) * dotProduct(item.queries + query * item.stride, item.keys + key * item.keyStride, a.dHead);
      capScores(scores + begin, end - begin, a.softCap);
      softmaxRow(scores + begin, end - begin, scores + begin);
      float* mixed = out + item.outOffset(a, query);
      std::memset(mixed, 0, sizeof(float) * size_t(a.dHead));
      for (int64_t key = begin; key < end; ++key) {
        const Floats weight = broadcast(scores[key]);
        const float* value = item.values + key * item.keyStride;
        forEachVector(a.dHead, [&](int64_t c, int lanes) {
          storeLanes(mixed + c, fma(weight, loadLanes(value + c, lanes), loadLanes(mixed + c, lanes)), lanes);
        });
      }
    }
  });
}

inline void attention(const Attention& a, float* out, Allocator& allocator, ThreadPool& pool) {
  if (a.queryPositions < queriesPerTile) return attentionOfFewQueries(a, out, allocator, pool);
  const AttentionScratch scratch(a, allocator, pool.threads());
  pool.forEach(AttentionItem::count(a), [&](int64_t index, int thread) {
    const AttentionItem item(a, index);
    float *sums = scratch.sums(thread), *largest = scratch.largest(thread), *totals = scratch.totals(thread);
    float *queries = scratch.queries(thread), *keys = scratch.keys(thread), *scores = scratch.scores(thread);
    packQueries(a, item, queries);
    std::memset(sums, 0, sizeof(float) * size_t(queriesPerItem * a.dHead));
    std::fill(largest, largest + queriesPerItem, -std::numeric_limits<float>::infinity());
    std::fill(totals, totals + queriesPerItem, 0.0f);
    forEachTile(a, item, keys, [&](int64_t first, int64_t count, int64_t tile) {
      multiplyQueryTile(queries + tile * a.dHead, a.dHead, keys, keysPerBlock, a.dHead, scores, keysPerBlock,
                        keysPerBlock, false);
      for (int64_t q = 0; q < queriesPerTile; ++q) {
        // A row of padding sees what the last query sees: its scores are 0, and its sums are not used.
        const int64_t query = std::min(item.end - 1, item.begin + tile + q);
        capScores(scores + q * keysPerBlock, keysPerBlock, a.softCap);
        absorbScores(scores + q * keysPerBlock, std::clamp<int64_t>(item.firstVisible(a, query) - first, 0, count),
                     std::clamp<int64_t>(visibleKeys(a, query) - first, 0, count), largest[tile + q], totals[tile + q],
                     sums + (tile + q) * a.dHead, a.dHead);
      }
      multiplyQueryTile(scores, keysPerBlock, item.values + first * item.keyStride, item.keyStride, count,
                        sums + tile * a.dHead, a.dHead, a.dHead, true);
    });
    for (int64_t query = item.begin; query < item.end; ++query)
      scaleRow(sums + (query - item.begin) * a.dHead,
               totals[query - item.begin] == 0 ? 0.0f : 1 / totals[query - item.begin], a.dHead,
               out + item.outOffset(a, query));
  });
}

// scores [batch, heads, queryPositions, keyPositions], masked places -infinity.
inline void attentionScores(const Attention& a, float* out, Allocator& allocator, ThreadPool& pool) {
  const AttentionScratch scratch(a, allocator, pool.threads());
  pool.forEach(AttentionItem::count(a), [&](int64_t index, int thread) {
    const AttentionItem item(a, index);
    float *queries = scratch.queries(thread), *keys = scratch.keys(thread), *scores = scratch.scores(thread);
    packQueries(a, item, queries);
    for (int64_t query = item.begin; query < item.end; ++query) {
      float* row = out + item.patternOffset(a, query);
      std::fill(row, row + item.firstVisible(a, query), -std::numeric_limits<float>::infinity());
      std::fill(row + visibleKeys(a, query), row + a.keyPositions, -std::numeric_limits<float>::infinity());
    }
    forEachTile(a, item, keys, [&](int64_t first, int64_t count, int64_t tile) {
      multiplyQueryTile(queries + tile * a.dHead, a.dHead, keys, keysPerBlock, a.dHead, scores, keysPerBlock,
                        keysPerBlock, false);
      const int64_t end = std::min(item.end, item.begin + tile + queriesPerTile);
      for (int64_t query = item.begin + tile; query < end; ++query) {
        const int64_t begin = std::clamp<int64_t>(item.firstVisible(a, query) - first, 0, count);
        const int64_t visible = std::clamp<int64_t>(visibleKeys(a, query) - first, begin, count);
        float* ofQuery = scores + (query - item.begin - tile) * keysPerBlock;
        capScores(ofQuery + begin, visible - begin, a.softCap);
        std::copy_n(ofQuery + begin, visible - begin, out + item.patternOffset(a, query) + first + begin);
      }
    });
  });
}

// out = pattern . values over all keys: a hook may have written a pattern that looks ahead.
inline void attentionMix(const Attention& a, const float* pattern, float* out, Allocator& allocator, ThreadPool& pool) {
  const AttentionScratch scratch(a, allocator, pool.threads());
  pool.forEach(AttentionItem::count(a), [&](int64_t index, int thread) {
    const AttentionItem item(a, index);
    float *sums = scratch.sums(thread), *weights = scratch.scores(thread);
    std::memset(weights, 0, sizeof(float) * size_t(queriesPerTile * keysPerBlock));
    for (int64_t tile = item.begin; tile < item.end; tile += queriesPerTile) {
      const int64_t end = std::min(item.end, tile + queriesPerTile);
      for (int64_t first = 0; first < a.keyPositions; first += keysPerBlock) {
        const int64_t count = std::min(keysPerBlock, a.keyPositions - first);
        for (int64_t query = tile; query < end; ++query)
          std::copy_n(pattern + item.patternOffset(a, query) + first, count, weights + (query - tile) * keysPerBlock);
        multiplyQueryTile(weights, keysPerBlock, item.values + first * item.keyStride, item.keyStride, count, sums,
                          a.dHead, a.dHead, first > 0);
      }
      for (int64_t query = tile; query < end; ++query)
        std::copy_n(sums + (query - tile) * a.dHead, a.dHead, out + item.outOffset(a, query));
    }
  });
}

// Rows [batch, positions, width] into a cache [batch, capacity, width] at position `first`.
inline void appendPositions(const float* rows, int64_t batch, int64_t positions, int64_t rowWidth, int64_t capacity,
                            int64_t first, float* cache) {
  for (int64_t sequence = 0; sequence < batch; ++sequence)
    std::memcpy(cache + (sequence * capacity + first) * rowWidth, rows + sequence * positions * rowWidth,
                sizeof(float) * size_t(positions * rowWidth));
}

}  // namespace monosem::MONOSEM_ISA
