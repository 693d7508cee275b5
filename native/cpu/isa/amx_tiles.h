// The matrix unit of recent Intel processors (AMX): products of tiles of bfloat16, summed in float32.
#pragma once

#include <sys/syscall.h>

#include "cpu/generic/simd.h"

namespace monosem::avx512 {

// Whether the processor has the unit and the operating system lets this process use it (asked once).
inline bool canScreen() {
  static const bool granted = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    constexpr unsigned brain = 1u << 22, tiles = 1u << 24;
    if ((edx & (brain | tiles)) != (brain | tiles)) return false;
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr unsigned tileState = 0x60000;
    if ((low & tileState) != tileState) return false;
    constexpr long requestPermission = 0x1023, tileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return syscall(SYS_arch_prctl, requestPermission, tileData) == 0;
  }();
  return granted;
}

constexpr int tileSide = 16;     // rows of x, or features, in a tile
constexpr int tileDepth = 32;    // k in a tile
constexpr int screenPanel = 32;  // rows, or features, that are multiplied at a time: two tiles of each

struct TileConfiguration {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t bytesPerRow[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile"), noinline)) inline void enterTiles(const TileConfiguration& configuration) {
  _tile_loadconfig(&configuration);
}
// A task switch is cheaper while the tiles are empty.
__attribute__((target("amx-tile"), noinline)) inline void leaveTiles() {
  _tile_release();
}

// scores[32, 32] (rows `stride` apart) = rowPanel . columnPanel^T, both packed by panels (see amx_product.h). Loads
// stand between the products that need them; the columns, which come from the second-level cache and are used once, do
// not displace the rows in the first.
__attribute__((target("amx-tile,amx-bf16"), noinline)) inline void multiplyBrainTiles(const uint16_t* rowPanel,
                                                                                      const uint16_t* columnPanel,
                                                                                      int64_t steps, float* scores,
                                                                                      int64_t stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  constexpr int64_t tileElements = tileSide * tileDepth;
  for (int64_t step = 0; step < steps; ++step) {
    _tile_loadd(4, rowPanel, 64);
    _tile_stream_loadd(6, columnPanel, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, columnPanel + tileElements, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, rowPanel + tileElements, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    rowPanel += 2 * tileElements;
    columnPanel += 2 * tileElements;
  }
  _tile_stored(0, scores, stride * 4);
  _tile_stored(1, scores + tileSide, stride * 4);
  _tile_stored(2, scores + tileSide * stride, stride * 4);
  _tile_stored(3, scores + tileSide * stride + tileSide, stride * 4);
}

}  // namespace monosem::avx512
