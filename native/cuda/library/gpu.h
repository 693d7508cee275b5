// What every kernel source includes: CUDA under nvcc; elsewhere (the tests) an emulation of its launch model, in which
// the same sources run on the CPU.
//
// Two things are written differently from plain CUDA, so that both can compile them:
//
//   launch(gpu, kernel, blocks, threads, arguments...)          kernel<<<...>>> with a check, on the context's stream
//   DYNAMIC_SHARED(float, values)                               extern __shared__ float values[]
//
// Threads of a warp that work together do so through warp.h.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char sharedMemory[]; \
  T* const name = reinterpret_cast<T*>(sharedMemory)
#else
#include "cuda_host.h"  // test/native/emulation
#endif

#include "cuda/library/context.h"

namespace monosem::cuda {

struct Launch {
  dim3 blocks;
  unsigned threads = 256;  // of a block
  size_t sharedBytes = 0;  // of dynamic shared memory
};

// Queues a kernel. A launch of no blocks is no launch.
template <class... Parameters, class... Arguments>
void launch(Context& gpu, void (*kernel)(Parameters...), const Launch& how, Arguments... arguments) {
  if (how.blocks.x == 0 || how.blocks.y == 0 || how.blocks.z == 0) return;
  gpu.allowSharedBytes(reinterpret_cast<const void*>(kernel), how.sharedBytes);
#if defined(__CUDACC__)
  kernel<<<how.blocks, how.threads, how.sharedBytes, gpu.stream()>>>(static_cast<Parameters>(arguments)...);
#else
  cuda_host::launch(kernel, how.blocks, how.threads, how.sharedBytes, static_cast<Parameters>(arguments)...);
#endif
  check(cudaGetLastError(), "a kernel launch");
}

// How many pieces of `size` cover `count`.
inline unsigned piecesOf(int64_t count, int64_t size) {
  return unsigned((count + size - 1) / size);
}

// For kernels that go through `count` independent elements in a grid-stride loop: enough blocks to fill the device.
inline Launch elementwise(const Context& gpu, int64_t count) {
  constexpr int64_t threads = 256, blocksPerMultiprocessor = 8;
  const int64_t most = blocksPerMultiprocessor * gpu.multiprocessors();
  const int64_t blocks = (count + threads - 1) / threads;
  return {dim3(unsigned(blocks < most ? blocks : most)), unsigned(threads)};
}

// for (int64_t i : of this thread) of [0, count), in a grid-stride loop.
#define FOR_EACH_ELEMENT(i, count)                                                                            \
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, i##Step = int64_t(gridDim.x) * blockDim.x; \
       i < (count); i += i##Step)

}  // namespace monosem::cuda
