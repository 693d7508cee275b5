// What each file of this folder exports.
#pragma once

#include <memory>

#include "engine/allocator.h"
#include "engine/kernels.h"

namespace monosem {

namespace avx512 {
std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads);
// With the matrix unit (AMX), where hasMatrixUnit(), which itself needs AVX-512.
bool hasMatrixUnit();
std::unique_ptr<Kernels> makeKernelsWithMatrixUnit(Allocator& allocator, int threads);
}  // namespace avx512
namespace avx2 {
std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads);
}
namespace neon {
std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads);
}
namespace baseline {
std::unique_ptr<Kernels> makeKernels(Allocator& allocator, int threads);
}

}  // namespace monosem
