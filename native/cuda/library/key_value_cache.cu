// The key/value cache of generation.
#include "cuda/library/kernels.h"
#include "cuda/library/pack.h"

namespace monosem::cuda {
namespace {

// cache[s, first + p, :] = rows[s, p, :] for rows [batch, positions, width], the cache [batch, capacity, width]: of
// each sequence one stretch of `packs` packs, `start` packs into the sequence's `stride` packs of the cache. A thread
// copies every so many packs.
template <int width>
__global__ void __launch_bounds__(256) appendPositionsKernel(const float* rows, int64_t batch, int64_t packs,
                                                             int64_t stride, int64_t start, float* cache) {
  FOR_EACH_ELEMENT(i, batch * packs) {
    const int64_t sequence = i / packs;
    const int64_t place = sequence * stride + start + (i - sequence * packs);
    storePack(cache + place * width, loadPack<width>(rows + i * width));
  }
}

}  // namespace

void appendPositions(Context& gpu, const float* rows, int64_t batch, int64_t positions, int64_t rowWidth,
                     int64_t capacity, int64_t first, float* cache) {
  withPackWidth(packsAt(rows) && packsAt(cache) && rowWidth % packWidth == 0, [&](auto width) {
    const int64_t packs = positions * rowWidth / width;
    launch(gpu, appendPositionsKernel<width>, elementwise(gpu, batch * packs), rows, batch, packs,
           capacity * rowWidth / width, first * rowWidth / width, cache);
  });
}

}  // namespace monosem::cuda
