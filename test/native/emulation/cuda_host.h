// CUDA's launch model on the CPU, for tests: a block's threads are fibers of one operating-system thread, blocks run
// one after another. Kernels compiled against this header are the product's own sources (see
// native/cuda/library/gpu.h).
//
// What it finds that running on a GPU may not: the three devices that it offers run threads and blocks in ascending,
// descending and shuffled order, so that a missing barrier or a sum in arrival order shows as a difference between
// them; dynamic shared memory is filled with NaN before every block; a barrier that not all threads reach ends the
// program with a list of where they wait; sanitizers see every access. What it cannot find: races within a warp's
// instruction, weak memory order, limits of registers and occupancy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __shared__ static thread_local  // blocks of one host thread run one after another

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

// Of the fiber that runs; the scheduler sets them.
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidKernelImage = 200,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidPtx = 218,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorIllegalAddress = 700,
};

// ---- The scheduler (cuda_host.cpp)

namespace cuda_host {

void runGrid(dim3 blocks, unsigned threads, size_t sharedBytes, const std::function<void()>& body);
void* dynamicShared();
// The running fiber waits until all threads of its block (of its warp) that have not returned wait as well.
void waitForBlock(int line);
void waitForWarp(int line);
// What the fiber of a lane of this warp leaves for the others; null where there is no such thread or it has returned.
// There are two places, used in turn: a fiber that has gone on leaves the next value in the other one, and cannot go on
// further before all others have come to it.
uint64_t* slotOf(unsigned lane, unsigned turn);
// Which of the two it is for the running fiber's next value.
unsigned nextTurn();

// What the host has done that a CUDA graph could not hold.
struct HostWork {
  int waits = 0;    // for a stream, and copies to host memory
  int uploads = 0;  // from host memory, which a graph would read again, later
};
extern HostWork hostWork;

// Devices break when so many more kernels have been launched, as by an address that does not exist: from then on every
// function of the runtime fails. Never: -1. CUDA_HOST_BREAK_AFTER in the environment says it for a whole process.
void breakAfter(int launches);
// cudaErrorIllegalAddress on a device that is broken.
cudaError_t state();

// Whether a block of the kernel may have so much dynamic shared memory; if not, the next cudaGetLastError says so.
bool mayHaveShared(const void* kernel, size_t bytes);
cudaError_t takeLastError();

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 blocks, unsigned threads, size_t sharedBytes, Parameters... arguments) {
  if (!mayHaveShared(reinterpret_cast<const void*>(kernel), sharedBytes)) return;
  runGrid(blocks, threads, sharedBytes, [=] { kernel(arguments...); });
}

inline unsigned lane() {
  return threadIdx.x % 32;
}

// Every lane leaves a value and takes the one of lane `source`, its own where there is none.
template <class T>
T exchange(T value, unsigned source, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const unsigned turn = nextTurn();
  std::memcpy(slotOf(lane(), turn), &value, sizeof value);
  waitForWarp(line);
  T taken = value;
  if (const uint64_t* slot = source < 32 ? slotOf(source, turn) : nullptr) std::memcpy(&taken, slot, sizeof taken);
  return taken;
}

inline unsigned ballot(bool predicate, int line) {
  const unsigned turn = nextTurn();
  *slotOf(lane(), turn) = predicate;
  waitForWarp(line);
  unsigned all = 0;
  for (unsigned other = 0; other < 32; ++other)
    if (const uint64_t* slot = slotOf(other, turn)) all |= unsigned(*slot != 0) << other;
  return all;
}

// For the number of threads whose predicate holds.
int countInBlock(bool predicate, int line);

}  // namespace cuda_host

#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(cuda_host::dynamicShared())

#define __syncthreads() cuda_host::waitForBlock(__LINE__)
#define __syncthreads_count(predicate) cuda_host::countInBlock((predicate), __LINE__)
#define __syncthreads_or(predicate) (cuda_host::countInBlock((predicate), __LINE__) != 0)
#define __syncwarp(...) cuda_host::waitForWarp(__LINE__)
#define __shfl_sync(mask, value, source) cuda_host::exchange((value), unsigned(source) % 32, __LINE__)
#define __shfl_xor_sync(mask, value, bits) cuda_host::exchange((value), cuda_host::lane() ^ unsigned(bits), __LINE__)
#define __shfl_up_sync(mask, value, delta) cuda_host::exchange((value), cuda_host::lane() - unsigned(delta), __LINE__)
#define __shfl_down_sync(mask, value, delta) cuda_host::exchange((value), cuda_host::lane() + unsigned(delta), __LINE__)
#define __ballot_sync(mask, predicate) cuda_host::ballot((predicate), __LINE__)
#define __any_sync(mask, predicate) (cuda_host::ballot((predicate), __LINE__) != 0)
#define __all_sync(mask, predicate) (cuda_host::ballot(!(predicate), __LINE__) == 0)

// ---- Arithmetic

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(unsigned(x));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned(uint64_t(a) * b >> 32);
}
template <class To, class From>
inline To reinterpretBits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float x) {
  return reinterpretBits<unsigned>(x);
}
inline int __float_as_int(float x) {
  return reinterpretBits<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return reinterpretBits<float>(x);
}
inline float __int_as_float(int x) {
  return reinterpretBits<float>(x);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fsqrt_rn(float x) {
  return std::sqrt(x);
}
inline void sincospi(double x, double* sine, double* cosine) {
  *sine = std::sin(3.14159265358979323846 * x);
  *cosine = std::cos(3.14159265358979323846 * x);
}
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T value) {
  *p = value;
}
using std::max;
using std::min;

// ---- Atomics: fibers change places at barriers only

template <class T, class U>
T atomicAdd(T* place, U value) {
  const T before = *place;
  *place = T(before + T(value));
  return before;
}
template <class T, class U>
T atomicMax(T* place, U value) {
  const T before = *place;
  *place = std::max(before, T(value));
  return before;
}
template <class T, class U>
T atomicMin(T* place, U value) {
  const T before = *place;
  *place = std::min(before, T(value));
  return before;
}
template <class T, class U>
T atomicOr(T* place, U value) {
  const T before = *place;
  *place = T(before | T(value));
  return before;
}
template <class T, class U>
T atomicExch(T* place, U value) {
  const T before = *place;
  *place = T(value);
  return before;
}
template <class T, class U, class V>
T atomicCAS(T* place, U expected, V value) {
  const T before = *place;
  if (before == T(expected)) *place = T(value);
  return before;
}
inline void __threadfence() {}

// ---- The runtime's functions that the library calls

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrPageableMemoryAccessUsesHostPageTables = 100
};
struct cudaFuncAttributes {
  size_t sharedSizeBytes;  // static
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = void*;
struct cudaDeviceProp {
  char name[256];
};
constexpr unsigned cudaStreamNonBlocking = 1;

cudaError_t cudaSetDevice(int ordinal);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++cuda_host::hostWork.waits;
  return cuda_host::state();
}
inline cudaError_t cudaDeviceSynchronize() {
  ++cuda_host::hostWork.waits;
  return cuda_host::state();
}
inline cudaError_t cudaGetLastError() {
  return cuda_host::takeLastError();
}
const char* cudaGetErrorName(cudaError_t status);
const char* cudaGetErrorString(cudaError_t status);
// Fails where the environment has CUDA_HOST_WITHOUT_CODE, as with a library that was compiled for other devices.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
