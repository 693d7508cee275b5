// Copies of matrices, rounded to bfloat16, that are kept for the kernels that read these matrices next.
//
// In that precision the encoder's product takes rounded weights, and decode, its gradient and the weighted sum of the
// encoder's rows are bound by the reading of rows, of which rounded ones have half the bytes. The step that changes
// weights writes their copy along with them; kernels that read these weights next read the copy instead. So only
// weights that are trained have one.
//
// Activations are rounded by every kernel that multiplies or gathers them, which a training step does with x three
// times (to encode, for the encoder's gradient's norm, and for the step), and with the residual twice. The first of
// these makes a copy that the others read. It is kept no longer than the activations themselves, takes half their size,
// and there are only the last few: outside training, where an x may live long and is perhaps never encoded again, not
// each one has a copy.
//
// A copy is known by the address and shape of its matrix, and is that one's as long as nothing else writes to that
// memory: whoever does so says contentGone first, which lets the copy go, and so does the allocator when the matrix's
// block is given back, on whichever thread. Where memory is short, all of them are let go. Blocks are never let go
// under the lock, because that comes back here.
#pragma once

#include <mutex>
#include <vector>

#include "cuda/abi.h"
#include "engine/allocator.h"

namespace monosem::cuda {

class RoundedCopies final : public MemoryWatcher {
 public:
  // As many as a step has: x, the residual, AuxK's residual, and one to spare.
  static constexpr int64_t mostOfActivations = 4;

  // The copy of this matrix; empty where there is none. Whoever holds it keeps its memory.
  Block of(Rows matrix) const;
  // The memory of its copy, which then is no copy any more; empty where there was none.
  Block take(Rows matrix);
  // `rounded` [rows, columns] of bfloat16 is the matrix's copy from now on.
  void keep(Rows weights, Block rounded);
  // The same, in the place of the oldest such copy where there are mostOfActivations.
  void keepForNow(Rows activations, Block rounded);
  void contentGone(const void* begin, size_t bytes) noexcept override;
  bool makeRoom() noexcept override;

 private:
  struct Copy {
    Rows matrix;
    Block rounded;
    bool ofActivations;
  };

  // The first copy that fulfils the condition, out of the list; empty where none does.
  template <class Condition>
  Block takeWhere(const Condition& condition);

  mutable std::mutex mutex_;
  std::vector<Copy> copies_;  // the oldest first
};

}  // namespace monosem::cuda
