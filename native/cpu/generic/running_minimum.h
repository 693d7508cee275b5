// The running mean of the smallest active value: BatchTopK's threshold for inference.
#pragma once

#include "cpu/generic/matrix_product.h"

namespace monosem::MONOSEM_ISA {

// m = the smallest value of an active entry (value != 0). If there is one:
//   state[0] = decay * state[0] + (1 - decay) * m;  state[1] = decay * state[1] + (1 - decay)
//   out[:] = state[0] / state[1]
// Reads 4 bytes per entry, on one thread: a batch has few entries.
inline void updateRunningMinimum(const Codes& codes, double decay, Vector<double> state, Vector<float> out) {
  const float* values = codes.value();
  if (!allFinite(values, codes.entries))
    throw EngineError(ErrorCode::nonFinite,
                      "The values of the codes hold NaN or infinity; all of them must be finite.");
  Floats negatedSmallest = broadcast(-infinity);
  forEachVector(codes.entries, [&](int64_t i, int lanes) {  // lanes beyond the last entry hold 0: inactive
    const Floats value = loadLanes(values + i, lanes), negated = zeros() - value;
    const Floats ofNegative = select(zeros() > value, negated, broadcast(-infinity));
    negatedSmallest = max(negatedSmallest, select(value > zeros(), negated, ofNegative));
  });
  const float smallest = -maximum(negatedSmallest);
  if (smallest == infinity) return;
  state[0] = decay * state[0] + (1 - decay) * double(smallest);
  state[1] = decay * state[1] + (1 - decay);
  std::fill(out.data, out.data + out.size, float(state[0] / state[1]));
}

}  // namespace monosem::MONOSEM_ISA
