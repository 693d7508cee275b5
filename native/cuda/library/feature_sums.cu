// What is counted and summed per feature: each kernel goes through the entries of every feature, but for plain sums of
// dense codes.
#include "cuda/library/column_sums.h"
#include "cuda/library/dense_codes.h"
#include "cuda/library/kernels.h"
#include "cuda/library/non_finite.h"
#include "cuda/library/warp.h"

namespace monosem::cuda {
namespace {

// ---- What an entry adds

struct Coefficient {
  const float* coefficients;
  __device__ double operator()(int64_t, uint32_t entry) const { return double(coefficients[entry]); }
};
struct IsActive {
  const float* values;
  __device__ double operator()(int64_t, uint32_t entry) const { return values[entry] != 0 ? 1 : 0; }
};
// The coefficient (1 where there are none) of an entry that lies less than `reach` from its feature's threshold.
struct InWindow {
  const float* preActivations;
  const float* thresholds;
  double reach;
  const float* coefficients;
  __device__ double operator()(int64_t feature, uint32_t entry) const {
    const double distance = double(preActivations[entry]) - double(thresholds[feature]);
    if (!(distance < reach && distance > -reach)) return 0;
    return coefficients ? double(coefficients[entry]) : 1;
  }
};

// ---- What becomes of the sum

struct Scaled {
  double scale;
  float* out;
  __device__ void operator()(int64_t feature, double sum) const { out[feature] = float(scale * sum); }
};
struct TokensSinceFired {
  CodesView codes;
  double tokens;
  double* sinceFired;
  __device__ void operator()(int64_t feature, double activeEntries) const {
    if (isPoisoned(codes)) return;
    sinceFired[feature] = activeEntries > 0 ? 0 : sinceFired[feature] + tokens;
  }
};

constexpr unsigned sumThreads = 256;
constexpr int64_t featuresPerBlock = sumThreads / warpSize_;

// finish(f, sum over the entries of f of addend(f, entry)), in double. A warp per feature: a lane adds every 32nd
// entry, rows ascending, then the lanes are added.
template <class Addend, class Finish>
__global__ void __launch_bounds__(sumThreads)
    sumPerFeatureKernel(FeatureOrderView order, int64_t features, Addend addend, Finish finish) {
  const int64_t feature = int64_t(blockIdx.x) * featuresPerBlock + warpOf();
  const uint64_t end = feature < features ? order.offsets[feature + 1] : 0;
  double sum = 0;
#pragma unroll 4
  for (uint64_t place = feature < features ? order.offsets[feature] + laneOf() : 0; place < end; place += warpSize_)
    sum += addend(feature, order.entries[place]);
  sum = warpSum(sum);
  if (feature < features && laneOf() == 0) finish(feature, sum);
}

template <class Addend, class Finish>
void sumPerFeature(Context& gpu, const CodesView& codes, const FeatureOrderView& order, Addend addend, Finish finish) {
  launch(gpu, sumPerFeatureKernel<Addend, Finish>, Launch{dim3(piecesOf(codes.dSae, featuresPerBlock)), sumThreads},
         order, codes.dSae, addend, finish);
}

// The sums of the columns of codes with a subset as a matrix, a chunk after another; 0 for features that are not in it.
void sumDenseCodes(Context& gpu, const CodesView& codes, const float* coefficients, double scale, Vector<float> out) {
  const std::vector<ColumnChunk> chunks = columnChunks(codes);
  float* const scattered = gpu.allocate<float>(codes.rows * chunks.front().count);
  gpu.clear(out.data, sizeof(float) * size_t(out.size));
  for (const ColumnChunk& chunk : chunks) {
    const Matrix<float> dense{scattered, codes.rows, chunk.count};
    scatterChunk(gpu, codes, coefficients, 1, chunk, Strided<float>(dense));
    columnSumsAt(gpu, {dense.data, dense.rows, dense.columns}, scale, codes.eligible.indices + chunk.first, out.data);
  }
}

}  // namespace

// out[f] = scale * sum over the entries of f of coefficients[e]. Codes without an order are taken as a matrix.
void featureSums(Context& gpu, CodesView codes, FeatureOrderView order, const float* coefficients, double scale,
                 Vector<float> out) {
  if (!order.offsets) return sumDenseCodes(gpu, codes, coefficients, scale, out);
  sumPerFeature(gpu, codes, order, Coefficient{coefficients}, Scaled{scale, out.data});
}

// out[f] = number of active entries of f.
void featureCounts(Context& gpu, CodesView codes, FeatureOrderView order, Vector<float> out) {
  sumPerFeature(gpu, codes, order, IsActive{codes.values}, Scaled{1, out.data});
}

// out[f] = scale * sum over the entries of f with |preActivation - thresholds[f]| < bandwidth / 2 of coefficients[e],
// or of 1. The distance is taken in double.
void windowSums(Context& gpu, CodesView codes, FeatureOrderView order, Floats thresholds, double bandwidth,
                const float* coefficients, double scale, Vector<float> out) {
  sumPerFeature(gpu, codes, order, InWindow{codes.preActivations, thresholds.data, bandwidth / 2, coefficients},
                Scaled{scale, out.data});
}

// tokensSinceFired[f] = 0 where f has an active entry, else + tokens. Codes of a failed encode change nothing.
void updateTokensSinceFired(Context& gpu, CodesView codes, FeatureOrderView order, int64_t tokens,
                            Vector<double> tokensSinceFired) {
  sumPerFeature(gpu, codes, order, IsActive{codes.values},
                TokensSinceFired{codes, double(tokens), tokensSinceFired.data});
}

}  // namespace monosem::cuda
