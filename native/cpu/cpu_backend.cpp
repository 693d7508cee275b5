#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cstdlib>

#include "cpu/isa/factories.h"
#include "engine/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace monosem {
namespace {

struct InstructionSet {
  const char* name;
  bool available;
  std::unique_ptr<Kernels> (*makeKernels)(Allocator& allocator, int threads);
};

#if defined(__x86_64__)

// Decided by feature bits and by what the operating system saves on a task switch, never by the processor's model: new
// models are unknown to every table.
struct X86Features {
  bool avx2 = false;
  bool avx512 = false;

  X86Features() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return;
    constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((ecx & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return;
    unsigned savedLow = 0, savedHigh = 0;
    asm volatile("xgetbv" : "=a"(savedLow), "=d"(savedHigh) : "c"(0));
    constexpr unsigned ymmState = 0x06, zmmState = 0xe6;
    if ((savedLow & ymmState) != ymmState) return;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return;
    constexpr unsigned avx2Bit = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    avx2 = (ebx & avx2Bit) != 0;
    avx512 = avx2 && (savedLow & zmmState) == zmmState && (ebx & (f | dq | bw | vl)) == (f | dq | bw | vl);
  }
};

#endif

// Best first.
std::vector<InstructionSet> instructionSets() {
  std::vector<InstructionSet> sets;
#if defined(__x86_64__)
  const X86Features features;
  sets.push_back({"avx512-amx", features.avx512 && avx512::hasMatrixUnit(), avx512::makeKernelsWithMatrixUnit});
  sets.push_back({"avx512", features.avx512, avx512::makeKernels});
  sets.push_back({"avx2", features.avx2, avx2::makeKernels});
#elif defined(__aarch64__)
  sets.push_back({"neon", true, neon::makeKernels});  // part of the architecture
#endif
  sets.push_back({"baseline", true, baseline::makeKernels});
  return sets;
}

}  // namespace

std::vector<std::string> availableInstructionSets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : instructionSets())
    if (set.available) names.push_back(set.name);
  return names;
}

std::unique_ptr<Kernels> makeCpuKernels(Allocator& allocator, int threads) {
  const char* wanted = std::getenv("MONOSEM_ISA");
  return makeCpuKernels(allocator, threads,
                        wanted && *wanted ? std::string(wanted) : availableInstructionSets().front());
}

std::unique_ptr<Kernels> makeCpuKernels(Allocator& allocator, int threads, const std::string& instructionSet) {
  std::string available;
  for (const InstructionSet& set : instructionSets()) {
    if (!set.available) continue;
    if (set.name == instructionSet) return set.makeKernels(allocator, threads);
    available += (available.empty() ? "" : ", ") + std::string(set.name);
  }
  throw EngineError(ErrorCode::unsupported,
                    "The instruction set \"" + instructionSet +
                        "\" is not available on this machine; MONOSEM_ISA may name one of: " + available + ".");
}

}  // namespace monosem
