// cuBLAS, found and opened at run time.
#pragma once

#include <string>

#include "cuda/library/cublas_declarations.h"

namespace monosem::cuda {

struct CublasLibrary {
  std::string file;  // where the loader found it
  cublas::Functions functions;

  // Throws where a call failed: outOfMemory, unsupported or internal, naming the call, cuBLAS's reason and the file.
  void check(cublas::Status status, const char* call) const;
};

// The first cuBLAS 13 or 12 that opens, of these places:
//
//   `path`, then the environment's MONOSEM_CUBLAS    each a folder or a file; null or empty: none
//   the loader's path                                LD_LIBRARY_PATH, ld.so.conf, what the process has open already
//   $CUDA_HOME, then $CUDA_PATH                      lib64 and targets/x86_64-linux/lib
//   /usr/local/cuda, then /usr/local/cuda*           lib64
//
// Throws unsupported, naming all files tried, where there is none.
CublasLibrary openCublas(const char* path);

}  // namespace monosem::cuda
