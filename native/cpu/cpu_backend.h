// The CPU's kernels: one portable source, compiled per instruction set, the best one that this machine has chosen here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/kernels.h"

namespace monosem {

// The instruction sets that this machine and its operating system can run, best first: a subset of "avx512" (F, DQ, BW,
// VL), "avx2" (AVX2, FMA, F16C), "neon" and "baseline", which is always there.
std::vector<std::string> availableInstructionSets();

// Kernels for the best available instruction set, or the one that the environment variable MONOSEM_ISA names. Throws
// EngineError(unsupported) when that one is not available. The allocator must outlive the kernels and their codes.
std::unique_ptr<Kernels> makeCpuKernels(Allocator& allocator, int threads);

// The same for a given instruction set.
std::unique_ptr<Kernels> makeCpuKernels(Allocator& allocator, int threads, const std::string& instructionSet);

}  // namespace monosem
