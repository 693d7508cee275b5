// The first GPU of this machine in each precision, through the library that MONOSEM_CUDA_LIBRARY names; twice, so that
// results that change from run to run are found.
#include "backends.h"
#include "library_under_test.h"
#include "mirrored_kernels.h"

namespace monosem::test {

const cuda::Api& libraryUnderTest() {
  return cuda::openLibrary();
}

namespace {

Backend firstGpu(const std::string& precisionName, cuda::Precision precision, double productError) {
  return {precisionName,
          [precision](Allocator& host) {
            cuda::OpenOptions options;
            options.precision = precision;
            const auto open = std::make_shared<cuda::OpenContext>(libraryUnderTest(), options);
            std::vector<std::unique_ptr<Kernels>> kernels;
            for (int i = 0; i < 2; ++i) kernels.push_back(makeMirroredKernels(open, host));
            return kernels;
          },
          productError};
}

}  // namespace

std::vector<Backend> backends() {
  return {firstGpu("float32", cuda::Precision::float32, 1e-5), firstGpu("tf32", cuda::Precision::tf32, 1e-3),
          firstGpu("bfloat16", cuda::Precision::bfloat16, 1e-2)};
}

}  // namespace monosem::test
