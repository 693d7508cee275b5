// Dense row gradients kept from the norm to the step.
//
// Clipping needs the norm of a gradient before its step, so a gradient is made twice. From sparse codes that is cheap;
// from dense ones it is a whole matrix product, and the norm keeps its matrix for the step. A kept gradient is used
// only when every byte that it was made from is the same again, which a fingerprint of the operands tells; a new encode
// drops them.
#pragma once

#include "cpu/generic/dense_codes.h"

namespace monosem::MONOSEM_ISA {

// Mixes arrays into 64 bits. Each piece of an array is mixed by itself (with xxHash64's round, in four chains), the
// pieces in order: the result does not depend on the number of threads.
class Fingerprint {
 public:
  explicit Fingerprint(Allocator& allocator, ThreadPool& pool) : allocator_(allocator), pool_(pool) {}

  void add(uint64_t number) { state_ = mixed(state_, number); }
  void add(double number) {
    uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    add(bits);
  }
  template <class T>
  void addArray(const T* data, int64_t count) {
    constexpr int64_t pieceBytes = 1 << 18;
    const int64_t bytes = count * int64_t(sizeof(T)), pieces = (bytes + pieceBytes - 1) / pieceBytes;
    const Block results = allocator_.allocateArray<uint64_t>(pieces);
    pool_.forEachRange(bytes, pieceBytes, [&](int64_t begin, int64_t end, int) {
      results.as<uint64_t>()[begin / pieceBytes] =
          ofBytes(reinterpret_cast<const unsigned char*>(data) + begin, end - begin);
    });
    add(uint64_t(bytes));
    for (int64_t piece = 0; piece < pieces; ++piece) add(results.as<uint64_t>()[piece]);
  }
  uint64_t value() const { return state_; }

 private:
  static uint64_t mixed(uint64_t state, uint64_t number) {
    state += number * 0xC2B2AE3D27D4EB4Fu;
    return (state << 31 | state >> 33) * 0x9E3779B185EBCA87u;
  }
  static uint64_t ofBytes(const unsigned char* bytes, int64_t count) {
    uint64_t chains[4] = {1, 2, 3, 4};
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
      uint64_t words[4];
      std::memcpy(words, bytes + i, 32);
      for (int chain = 0; chain < 4; ++chain) chains[chain] = mixed(chains[chain], words[chain]);
    }
    uint64_t rest[4] = {};
    std::memcpy(rest, bytes + i, size_t(count - i));
    uint64_t state = 0;
    for (int chain = 0; chain < 4; ++chain) state = mixed(mixed(state, chains[chain]), rest[chain]);
    return state;
  }

  Allocator& allocator_;
  ThreadPool& pool_;
  uint64_t state_ = 0;
};

inline bool anyTermDense(const RowGradient& gradient) {
  return std::any_of(gradient.terms.begin(), gradient.terms.end(),
                     [](const EntryTerm& term) { return worthDense(*term.codes); });
}

inline uint64_t fingerprintOf(const RowGradient& gradient, Matrix<const float> weights, Allocator& allocator,
                              ThreadPool& pool) {
  Fingerprint fingerprint(allocator, pool);
  fingerprint.addArray(weights.data, weights.rows * weights.columns);
  for (const EntryTerm& term : gradient.terms) {
    fingerprint.addArray(term.codes->offsets(), term.codes->rows + 1);
    fingerprint.addArray(term.codes->feature(), term.codes->entries);
    fingerprint.addArray(term.coefficients ? term.coefficients : term.codes->value(), term.codes->entries);
    fingerprint.addArray(term.dense.data, term.dense.rows * term.dense.columns);
    fingerprint.add(term.scale);
  }
  if (gradient.rowCoefficients) fingerprint.addArray(gradient.rowCoefficients.data, gradient.rowCoefficients.size);
  fingerprint.add(gradient.rowScale);
  fingerprint.add(uint64_t(gradient.projectOutRow));
  return fingerprint.value();
}

class KeptGradients {
 public:
  // Of one matrix of weights only the latest gradient is kept.
  void keep(const float* weights, uint64_t fingerprint, Block rows) {
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [&](const Kept& one) { return one.weights == weights; }),
                kept_.end());
    kept_.push_back({weights, fingerprint, std::move(rows)});
  }
  // The gradient with this fingerprint, which is kept no longer; an empty block when there is none.
  Block take(uint64_t fingerprint) {
    for (size_t i = 0; i < kept_.size(); ++i)
      if (kept_[i].fingerprint == fingerprint) {
        Block rows = std::move(kept_[i].rows);
        kept_.erase(kept_.begin() + int64_t(i));
        return rows;
      }
    return {};
  }
  bool empty() const { return kept_.empty(); }
  void drop() { kept_.clear(); }

 private:
  struct Kept {
    const float* weights;
    uint64_t fingerprint;
    Block rows;  // float [rows of the weights, columns]
  };
  std::vector<Kept> kept_;
};

}  // namespace monosem::MONOSEM_ISA
