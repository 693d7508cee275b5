// Hopper's own instructions, those that this library uses: barriers in shared memory, copies of tiles by the tensor
// memory accelerator, clusters of blocks, and matrix products by warpgroups of four warps. For code that is compiled
// for sm_90a; see the PTX manual's chapters on mbarrier, cp.async.bulk.tensor and wgmma.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace monosem::cuda::hopper {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ inline uint32_t sharedAddress(const void* place) {
  return uint32_t(__cvta_generic_to_shared(place));
}

// ---- Clusters

__device__ inline uint32_t rankInCluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// By all threads of all blocks of the cluster.
__device__ inline void synchroniseCluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// ---- Barriers: a phase ends when all arrivals and all bytes that it expects have come

__device__ inline void initialise(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}

// Makes initialised barriers known to the other blocks of the cluster, and to copies.
__device__ inline void publishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}

// At the barrier that stands at the same place in a block of the cluster. Orders no memory beyond this block: it is for
// saying that products have read their tiles.
__device__ inline void arriveAt(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(sharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

// Waits until the phase of this parity has ended.
__device__ inline void wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred ended;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n}" ::"r"(sharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// ---- Tiles

// Begins to copy the tile of a matrix that begins at (row, column); the barrier is told when its bytes have come. What
// lies outside of the matrix comes as 0.
__device__ inline void copyTile(const CUtensorMap& matrix, int32_t row, int32_t column, void* to, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(sharedAddress(to)),
      "l"(&matrix), "r"(sharedAddress(barrier)), "r"(column), "r"(row)
      : "memory");
}

// The same to the same place in several blocks of the cluster, those of the bits in `blocks`; each one's barrier is
// told.
__device__ inline void copyTileTo(uint16_t blocks, const CUtensorMap& matrix, int32_t row, int32_t column, void* to,
                                  uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(sharedAddress(to)),
      "l"(&matrix), "r"(sharedAddress(barrier)), "h"(blocks), "r"(column), "r"(row)
      : "memory");
}

// ---- Products of a warpgroup

// Of a tile in shared memory whose rows are 128 bytes, as copies in the mode "swizzle 128 bytes" leave it: eight rows
// after the other, 1024 bytes apart. 16 bfloat16 further on in each row: + 2.
__device__ inline uint64_t tileDescriptor(const void* tile) {
  constexpr uint64_t eightRows = 1024 >> 4, swizzle128 = 1;
  return uint64_t((sharedAddress(tile) & 0x3ffff) >> 4) | uint64_t(1) << 16 | eightRows << 32 | swizzle128 << 62;
}

// Before the first product that reads what others wrote, registers included.
__device__ inline void beginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void commitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `inFlight` committed groups are still at work.
template <int inFlight>
__device__ inline void waitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(inFlight) : "memory");
}

// sums [64, 256] = a . b^T, + sums where `adds`: a [64, 16] and b [256, 16] in shared memory. Thread t of the warpgroup
// has, of each group g of eight columns, in sums[4 g ...]: of row 16 (t / 32) + t % 32 / 4 the columns 2 (t % 4) and
// the next, then the same columns eight rows further down.
__device__ __forceinline__ void multiply64x256x16(float (&sums)[128], uint64_t a, uint64_t b, bool adds) {
  // clang-format off
  asm volatile(
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, "
      "%72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, "
      "%88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, "
      "%104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, "
      "%120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, adds, 1, 1, 0, 0;\n}"
      :
        "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]),
        "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]),
        "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]),
        "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]),
        "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]),
        "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]),
        "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]),
        "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31]),
        "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]),
        "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]),
        "+f"(sums[40]), "+f"(sums[41]), "+f"(sums[42]), "+f"(sums[43]),
        "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]),
        "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]),
        "+f"(sums[52]), "+f"(sums[53]), "+f"(sums[54]), "+f"(sums[55]),
        "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]),
        "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63]),
        "+f"(sums[64]), "+f"(sums[65]), "+f"(sums[66]), "+f"(sums[67]),
        "+f"(sums[68]), "+f"(sums[69]), "+f"(sums[70]), "+f"(sums[71]),
        "+f"(sums[72]), "+f"(sums[73]), "+f"(sums[74]), "+f"(sums[75]),
        "+f"(sums[76]), "+f"(sums[77]), "+f"(sums[78]), "+f"(sums[79]),
        "+f"(sums[80]), "+f"(sums[81]), "+f"(sums[82]), "+f"(sums[83]),
        "+f"(sums[84]), "+f"(sums[85]), "+f"(sums[86]), "+f"(sums[87]),
        "+f"(sums[88]), "+f"(sums[89]), "+f"(sums[90]), "+f"(sums[91]),
        "+f"(sums[92]), "+f"(sums[93]), "+f"(sums[94]), "+f"(sums[95]),
        "+f"(sums[96]), "+f"(sums[97]), "+f"(sums[98]), "+f"(sums[99]),
        "+f"(sums[100]), "+f"(sums[101]), "+f"(sums[102]), "+f"(sums[103]),
        "+f"(sums[104]), "+f"(sums[105]), "+f"(sums[106]), "+f"(sums[107]),
        "+f"(sums[108]), "+f"(sums[109]), "+f"(sums[110]), "+f"(sums[111]),
        "+f"(sums[112]), "+f"(sums[113]), "+f"(sums[114]), "+f"(sums[115]),
        "+f"(sums[116]), "+f"(sums[117]), "+f"(sums[118]), "+f"(sums[119]),
        "+f"(sums[120]), "+f"(sums[121]), "+f"(sums[122]), "+f"(sums[123]),
        "+f"(sums[124]), "+f"(sums[125]), "+f"(sums[126]), "+f"(sums[127])
      : "l"(a), "l"(b), "r"(int32_t(adds)));
  // clang-format on
}

// ---- Registers that a warpgroup gives to the others, and takes; by all of its warps

template <int registers>
__device__ inline void releaseRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void takeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
#endif

}  // namespace monosem::cuda::hopper
