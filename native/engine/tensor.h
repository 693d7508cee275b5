// What handles stand for: tensors, codes, entry values, feature sets, kept gradients.
//
// Each is a small shared record whose memory comes into being when the kernel that produces it runs, not when that
// kernel is queued: a caller may run many steps ahead of the device without holding their memory. The record goes when
// the last handle and the last queued work that uses it are gone. Once queued work knows a record, its fields belong to
// the queue's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "engine/allocator.h"
#include "engine/codes.h"
#include "engine/dtype.h"
#include "engine/shape.h"

namespace monosem {

class Result {
 public:
  virtual ~Result() = default;
  // Makes room for the kernel that is about to write it; nothing to do where the kernel allocates by itself.
  virtual void allocate(Allocator&) {}
  // The same for a kernel that writes only a part of it: what it does not write is 0.
  virtual void allocateCleared(Allocator& allocator) { allocate(allocator); }

  bool computed = false;  // some kernel has written it
};

// The memory of a tensor, shared by its reshapes.
class Storage : public Result {
 public:
  explicit Storage(size_t bytes) : bytes(bytes) {}
  void allocate(Allocator& allocator) override {
    if (!block) block = allocator.allocate(bytes);
  }
  void allocateCleared(Allocator& allocator) override {
    if (computed) return;
    allocate(allocator);  // or what a kernel that failed left
    allocator.clear(block, bytes);
  }

  const size_t bytes;
  Block block;
};

struct Tensor {
  DType dtype = DType::f32;
  Shape shape;
  std::shared_ptr<Storage> storage;

  size_t bytes() const { return bytesPerElement(dtype) * size_t(shape.elements()); }
};

// The codes of a batch. Its sizes are known when `encode` is queued, its entries when it has run.
class CodesResult : public Result {
 public:
  CodesResult(int64_t rows, int64_t dSae) : rows(rows), dSae(dSae) {}

  const int64_t rows;
  const int64_t dSae;
  Codes codes;
};

// One float for each entry of `codes`, in row order.
class EntryValuesResult : public Result {
 public:
  explicit EntryValuesResult(std::shared_ptr<CodesResult> codes) : codes(std::move(codes)) {}
  void allocate(Allocator& allocator) override {
    if (!block) block = allocator.allocateArray<float>(codes->codes.entries);
  }

  const std::shared_ptr<CodesResult> codes;
  Block block;
};

class FeatureSetResult : public Result {
 public:
  explicit FeatureSetResult(int64_t dSae) : dSae(dSae) {}

  const int64_t dSae;
  std::shared_ptr<const FeatureSet> set;
};

// What Kernels::rowGradientSquaredNorm kept for Kernels::stepRows: the gradient's rows, or nothing.
class KeptGradientResult : public Result {
 public:
  Block rows;
};

}  // namespace monosem
