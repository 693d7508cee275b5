// What the kernel tests run on. A test program has one of the two sources beside this file.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/kernels.h"

namespace monosem::test {

// Kernels that must give the same bits: all of them on the memory of one allocator.
struct Backend {
  std::string name;
  std::function<std::vector<std::unique_ptr<Kernels>>(Allocator&)> make;
  // How far sums of products may be from the exact ones: the norm of all errors over that of the sums of the terms'
  // absolute values, and half of what a single one may be off. float32: its own rounding. Where factors are rounded, by
  // a unit u each, it is at most 2 u + u^2, which is 9.8e-4 for TF32 (10 bits) and 7.9e-3 for bfloat16 (7 bits); if
  // they are truncated, twice that for a single one.
  double productError = 1e-5;

  bool coarseProducts() const { return productError > 1e-5; }
};

std::vector<Backend> backends();

}  // namespace monosem::test
