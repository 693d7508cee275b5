// Copies of weights, rounded to bfloat16, that are kept from one training step to the next.
//
// In that precision the encoder's product takes rounded weights, and decode and its gradient are bound by the reading
// of decoder rows, of which rounded ones have half the bytes. The step that changes weights writes their copy along
// with them; kernels that read these weights next read the copy instead. So only weights that are trained have one.
//
// A copy is known by the address and shape of its weights, and is theirs as long as nothing else writes to that memory:
// whoever does so says contentGone first, which lets the copy go, and so does the allocator when the weights' block is
// given back, on whichever thread. Blocks are never let go under the lock, because that comes back here.
#pragma once

#include <mutex>
#include <vector>

#include "cuda/abi.h"
#include "engine/allocator.h"

namespace monosem::cuda {

class RoundedCopies final : public MemoryWatcher {
 public:
  // The copy of these weights; empty where there is none. Whoever holds it keeps its memory.
  Block of(Rows weights) const;
  // The memory of their copy, which then is no copy any more; empty where there was none.
  Block take(Rows weights);
  // `rounded` [rows, columns] of bfloat16 is their copy from now on.
  void keep(Rows weights, Block rounded);
  void contentGone(const void* begin, size_t bytes) noexcept override;

 private:
  struct Copy {
    Rows weights;
    Block rounded;
  };

  // The first copy that fulfils the condition, out of the list; empty where none does.
  template <class Condition>
  Block takeWhere(const Condition& condition);

  mutable std::mutex mutex_;
  std::vector<Copy> copies_;
};

}  // namespace monosem::cuda
