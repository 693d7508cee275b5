// libmonosem_cuda, opened at run time, and a device opened by it.
#pragma once

#include <memory>
#include <string>

#include "cuda/abi.h"

namespace monosem::cuda {

// The library's table. Looked for at `path`; empty: in the file that MONOSEM_CUDA_LIBRARY names, beside the addon, and
// on the loader's path. Throws unsupported, naming the places and the loader's reasons. It stays open until the process
// ends.
const Api& openLibrary(const std::string& path = {});

// An open device. Memory of it may be in use when its Device is gone: whoever holds some shares it.
class OpenContext {
 public:
  // Throws what the library says: unsupported where there is no driver, device or cuBLAS.
  OpenContext(const Api& api, const OpenOptions& options);
  ~OpenContext() { api.close(context); }
  OpenContext(const OpenContext&) = delete;
  OpenContext& operator=(const OpenContext&) = delete;

  // Throws where the status of a call is one of failure.
  void check(int32_t status) const;

  const Api& api;
  const Precision precision;
  Context* const context;
};

}  // namespace monosem::cuda
