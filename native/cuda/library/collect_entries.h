// The entries that are above a bound, of which nobody knows before how many there are.
#pragma once

#include "cuda/library/one_pass_scores.h"

namespace monosem::cuda {

// Entries in the order in which blocks happened to reserve their places, which is not always the same. What a piece of
// a row has stands together, positions ascending, and the pieces of a row are listed in order: that is what
// compactEntries goes by.
struct EntryPool {
  int64_t capacity;
  float* scores;        // [capacity]
  uint32_t* positions;  // [capacity]

  int64_t pieces;                   // of a row
  unsigned long long* piecePlaces;  // [rows, pieces]
  uint32_t* pieceCounts;            // [rows, pieces]
};

// Entries in a pool, or where they were collected in one pass, in its lists.
struct CollectedEntries {
  bool inLists;
  EntryPool pool;
  LaneLists lists;
  uint32_t* rowCounts;  // [rows]
  int64_t count;
  float bound;        // of collectAbove
  bool valuesDiffer;  // of those above thresholds whether any may; otherwise false
};

// The entries with a score above the outcome's bound. `expected`: about how many there will be; where there are more,
// the scores are computed once more. Reads the outcome, which throws.
CollectedEntries collectAbove(Context& gpu, const EncodeOperands& operands, int64_t expected);
// The same for scores above thresholds[position] - margin.
CollectedEntries collectAboveThresholds(Context& gpu, const EncodeOperands& operands, const float* thresholds,
                                        float margin, int64_t expected);
// Gives their memory back, where they are not to be compacted.
void release(Context& gpu, const CollectedEntries& collected);
// How many entries to expect where nothing is known: 64 per row or 4 % of all.
int64_t expectedOfSparseCodes(const EncodeOperands& operands);

// The entries in the order of codes; made->values stay null.
void compactEntries(Context& gpu, const EncodeOperands& operands, const CollectedEntries& collected, MadeCodes* made);

// The value of an entry of Select::above.
__device__ inline float valueAbove(float score, float threshold) {
  return score > threshold && score > 0 ? score : 0;
}

}  // namespace monosem::cuda
