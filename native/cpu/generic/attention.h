// Causal attention.
#pragma once

#include "cpu/generic/softmax.h"
#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

// Where the vectors of one head of one sequence stand.
struct AttentionHead {
  AttentionHead(const Attention& a, int64_t sequence, int64_t head)
      : queries(a.queries + (sequence * a.queryPositions * a.heads + head) * a.dHead),
        keys(a.keys + (sequence * a.keyCapacity * a.heads + head) * a.dHead),
        values(a.values + (sequence * a.keyCapacity * a.heads + head) * a.dHead),
        stride(a.heads * a.dHead) {}
  const float *queries, *keys, *values;
  int64_t stride;  // from one position to the next
};

// How many keys query `position` sees.
inline int64_t visibleKeys(const Attention& a, int64_t position) {
  return a.keyPositions - a.queryPositions + position + 1;
}

// scores[k] = scale * query . key k, for k in [0, count)
inline void scoreKeys(const AttentionHead& head, const Attention& a, int64_t position, int64_t count, float* scores) {
  for (int64_t key = 0; key < count; ++key)
    scores[key] =
        float(a.scale) * dotProduct(head.queries + position * head.stride, head.keys + key * head.stride, a.dHead);
}

// out = sum over k in [0, count) of pattern[k] * value k
inline void mixValues(const AttentionHead& head, const Attention& a, const float* pattern, int64_t count, float* out) {
  forEachVector(a.dHead, [&](int64_t c, int lanes) {
    Floats mixed = zeros();
    for (int64_t key = 0; key < count; ++key)
      mixed = fma(broadcast(pattern[key]), loadLanes(head.values + key * head.stride + c, lanes), mixed);
    storeLanes(out + c, mixed, lanes);
  });
}

// Calls body(sequence, head, query position, thread) for all.
template <class Body>
inline void forEachQuery(const Attention& a, ThreadPool& pool, const Body& body) {
  pool.forEach(a.batch * a.heads, [&](int64_t item, int thread) {
    for (int64_t position = 0; position < a.queryPositions; ++position)
      body(item / a.heads, item % a.heads, position, thread);
  });
}

inline void attention(const Attention& a, float* out, Allocator& allocator, ThreadPool& pool) {
  const Block scratch = allocator.allocateArray<float>(a.keyPositions * pool.threads());
  forEachQuery(a, pool, [&](int64_t sequence, int64_t headIndex, int64_t position, int thread) {
    float* scores = scratch.as<float>() + thread * a.keyPositions;
    const AttentionHead head(a, sequence, headIndex);
    const int64_t count = visibleKeys(a, position);
    scoreKeys(head, a, position, count, scores);
    softmaxRow(scores, count, scores);
    mixValues(head, a, scores, count, out + ((sequence * a.queryPositions + position) * a.heads + headIndex) * a.dHead);
  });
}

// scores [batch, heads, queryPositions, keyPositions], masked places -infinity.
inline void attentionScores(const Attention& a, float* scores, ThreadPool& pool) {
  forEachQuery(a, pool, [&](int64_t sequence, int64_t headIndex, int64_t position, int) {
    float* row = scores + ((sequence * a.heads + headIndex) * a.queryPositions + position) * a.keyPositions;
    const int64_t count = visibleKeys(a, position);
    scoreKeys(AttentionHead(a, sequence, headIndex), a, position, count, row);
    std::fill(row + count, row + a.keyPositions, -std::numeric_limits<float>::infinity());
  });
}

// out = pattern . values, over all keys: a hook may have written a pattern that looks ahead.
inline void attentionMix(const Attention& a, const float* pattern, float* out, ThreadPool& pool) {
  forEachQuery(a, pool, [&](int64_t sequence, int64_t headIndex, int64_t position, int) {
    const float* row = pattern + ((sequence * a.heads + headIndex) * a.queryPositions + position) * a.keyPositions;
    mixValues(AttentionHead(a, sequence, headIndex), a, row, a.keyPositions,
              out + ((sequence * a.queryPositions + position) * a.heads + headIndex) * a.dHead);
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
