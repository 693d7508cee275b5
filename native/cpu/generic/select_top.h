// Narrows codes to the k entries of each row with the largest pre-activations.
#pragma once

#include "cpu/generic/top_k.h"

namespace monosem::MONOSEM_ISA {

// Reads and writes 12 bytes per entry; rows are independent. Ties: the lower feature wins.
inline Codes selectTop(const Codes& codes, int64_t k, Allocator& allocator, ThreadPool& pool) {
  Codes out;
  out.rows = codes.rows;
  out.dSae = codes.dSae;
  out.subset = codes.subset;
  out.rowOffsets = allocator.allocateArray<uint64_t>(codes.rows + 1);
  uint64_t* rowOffsets = out.rowOffsets.as<uint64_t>();
  const auto entriesOf = [&](int64_t row) { return int64_t(codes.offsets()[row + 1] - codes.offsets()[row]); };
  int64_t most = 0;
  rowOffsets[0] = 0;
  for (int64_t row = 0; row < codes.rows; ++row) {
    rowOffsets[row + 1] = rowOffsets[row] + uint64_t(std::min(entriesOf(row), k));
    most = std::max(most, entriesOf(row));
  }
  out.entries = int64_t(rowOffsets[codes.rows]);
  out.features = allocator.allocateArray<uint32_t>(out.entries);
  out.preActivations = allocator.allocateArray<float>(out.entries);
  if (codes.values) out.values = allocator.allocateArray<float>(out.entries);

  FirstFound notFinite;
  const Block scratch = allocator.allocateArray<uint64_t>(pool.threads() * (most + width));
  pool.forEachRange(codes.rows, 16, [&](int64_t begin, int64_t end, int thread) {
    float* scores = reinterpret_cast<float*>(scratch.as<uint64_t>() + thread * (most + width));
    uint32_t* entries = reinterpret_cast<uint32_t*>(scores + most + width);
    for (int64_t row = begin; row < end; ++row) {
      const uint64_t first = codes.offsets()[row];
      const int64_t count = entriesOf(row);
      const float* preActivations = codes.preActivation() + first;
      if (!allFinite(preActivations, count)) {
        notFinite.offer(row);
        continue;
      }
      for (int64_t i = 0; i < count; ++i) entries[i] = uint32_t(i);
      if (count > k && k > 0) {
        std::copy(preActivations, preActivations + count, scores);
        keepLargest(scores, entries, count, k);
      }
      for (uint64_t to = rowOffsets[row], i = 0; to < rowOffsets[row + 1]; ++to, ++i) {
        const uint64_t from = first + entries[i];
        out.features.as<uint32_t>()[to] = codes.feature()[from];
        out.preActivations.as<float>()[to] = codes.preActivation()[from];
        if (codes.values) out.values.as<float>()[to] = codes.value()[from];
      }
    }
  });
  if (notFinite.found()) throwNonFinite("The pre-activations of the codes", notFinite.row());
  return out;
}

}  // namespace monosem::MONOSEM_ISA
