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
};

std::vector<Backend> backends();

}  // namespace monosem::test
