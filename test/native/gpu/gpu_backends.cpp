// The first GPU of this machine, through the library that MONOSEM_CUDA_LIBRARY names; twice, so that results that
// change from run to run are found.
#include "backends.h"
#include "mirrored_kernels.h"

namespace monosem::test {

std::vector<Backend> backends() {
  return {{"cuda:0", [](Allocator& host) {
             const auto open = std::make_shared<cuda::OpenContext>(cuda::openLibrary(), cuda::OpenOptions());
             std::vector<std::unique_ptr<Kernels>> kernels;
             for (int i = 0; i < 2; ++i) kernels.push_back(makeMirroredKernels(open, host));
             return kernels;
           }}};
}

}  // namespace monosem::test
