// The emulated CUDA devices (see cuda_host.h), which differ in the order in which their threads run. Their memory is
// the host's, so that the tests of the CPU's kernels hold for them as they are.
#include "backends.h"
#include "cuda/cuda_kernels.h"
#include "library_under_test.h"

namespace monosem::test {

const cuda::Api& libraryUnderTest() {
  return *monosem_cuda_api(cuda::abiVersion);
}

std::vector<Backend> backends() {
  return {{"cuda", [](Allocator& allocator) {
             std::vector<std::unique_ptr<Kernels>> kernels;
             for (const int ordinal : {0, 1, 2}) {
               cuda::OpenOptions options;
               options.ordinal = ordinal;
               kernels.push_back(
                   cuda::makeCudaKernels(std::make_shared<cuda::OpenContext>(libraryUnderTest(), options), allocator));
             }
             return kernels;
           }}};
}

}  // namespace monosem::test
