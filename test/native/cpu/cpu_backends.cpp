// The instruction sets of this machine, best first; each with several numbers of threads.
#include "backends.h"
#include "cpu/cpu_backend.h"

namespace monosem::test {

std::vector<Backend> backends() {
  std::vector<Backend> all;
  for (const std::string& instructionSet : availableInstructionSets())
    all.push_back({instructionSet, [instructionSet](Allocator& allocator) {
                     std::vector<std::unique_ptr<Kernels>> kernels;
                     for (const int threads : {1, 2, 3, 7})
                       kernels.push_back(makeCpuKernels(allocator, threads, instructionSet));
                     return kernels;
                   }});
  return all;
}

}  // namespace monosem::test
