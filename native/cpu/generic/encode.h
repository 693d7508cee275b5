// The fused encoder: matrix product, bias and selection in one pass.
//
//   z[r, f] = bias[f] + sum over k of x[r, k] * encoder[f, k]              (k ascending; see matrix_product.h)
//
// x [rows, dIn] is packed once, the encoder [features, dIn] block by block; a tile of z is judged while it is in cache,
// and only what is selected is ever written: [rows, features] never exists unless all of it is selected. With a feature
// subset, only those rows of the encoder take part. Reads x and the encoder once per chunk of rows; writes 8 bytes per
// entry, and 4 more where values differ from pre-activations.
#pragma once

#include "cpu/generic/encode_above.h"
#include "cpu/generic/encode_batch_top_k.h"
#include "cpu/generic/encode_top_k.h"

namespace monosem::MONOSEM_ISA {

// values[e] = valueOf(e); none are kept where they all equal the pre-activations.
template <class ValueOf>
void fillValues(Codes& codes, const ValueOf& valueOf, Allocator& allocator, ThreadPool& pool) {
  codes.values = allocator.allocateArray<float>(codes.entries);
  std::atomic<bool> differ{false};
  pool.forEachRange(codes.entries, 1 << 16, [&](int64_t begin, int64_t end, int) {
    bool same = true;
    for (int64_t e = begin; e < end; ++e) {
      const float value = valueOf(e);
      codes.values.as<float>()[e] = value;
      same = same && value == codes.preActivation()[e];
    }
    if (!same) differ.store(true);
  });
  if (!differ.load()) codes.values = Block();
}

inline void rectifyValues(Codes& codes, Allocator& allocator, ThreadPool& pool) {
  fillValues(
      codes, [&](int64_t e) { return std::max(codes.preActivation()[e], 0.0f); }, allocator, pool);
}

// `screening`: whether the selection may take the short way of MONOSEM_SCREEN_HEADER, which gives the same bits.
inline Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
                    const Selection& selection, bool screening, Allocator& allocator, ThreadPool& pool) {
  Codes codes;
  codes.rows = x.rows;
  codes.dSae = encoder.rows;
  codes.subset = selection.subset;
  codes.rowOffsets = allocator.allocateArray<uint64_t>(x.rows + 1);
  const Eligible eligible(encoder, bias, selection.subset.get(), allocator);

  switch (selection.select) {
    case Select::positive: {
      const Block bounds = boundsFor(
          eligible, [](uint32_t) { return 0.0f; }, allocator);
      encodeAbove(x, eligible, bounds.as<const float>(), screening, codes, allocator, pool);
      break;
    }
    case Select::topk:
      if (selection.byMagnitude) {
        encodeTopK<ByMagnitude>(x, eligible, selection.k, screening, codes, allocator, pool);
      } else {
        encodeTopK<ByValue>(x, eligible, selection.k, screening, codes, allocator, pool);
        rectifyValues(codes, allocator, pool);
      }
      break;
    case Select::batchtopk:
      encodeBatchTopK(x, eligible, selection.k, screening, codes, allocator, pool);
      break;
    case Select::above: {
      const Vector<const float> thresholds = selection.thresholds;
      for (int64_t f = 0; f < thresholds.size; ++f)
        if (std::isnan(thresholds[f]))
          throw EngineError(ErrorCode::nonFinite, "The threshold of feature " + std::to_string(f) + " is NaN.");
      const float margin = float(selection.margin);
      const Block bounds = boundsFor(
          eligible, [&](uint32_t f) { return thresholds[f] - margin; }, allocator);
      encodeAbove(x, eligible, bounds.as<const float>(), screening, codes, allocator, pool);
      const auto valueOf = [&](int64_t e) {
        const float z = codes.preActivation()[e];
        return z > thresholds[codes.feature()[e]] ? std::max(z, 0.0f) : 0.0f;
      };
      fillValues(codes, valueOf, allocator, pool);
      break;
    }
    case Select::all:
      encodeAll(x, eligible, codes, allocator, pool);
      rectifyValues(codes, allocator, pool);
      break;
  }
  return codes;
}

}  // namespace monosem::MONOSEM_ISA
