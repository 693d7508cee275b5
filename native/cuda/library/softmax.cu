// Softmax and what language models measure with it. A block goes through a row together; the largest logit is
// subtracted first, so no exponential overflows; the exponentials are summed in double.
#include <cmath>

#include "cuda/library/kernels.h"
#include "cuda/library/row_blocks.h"

namespace monosem::cuda {
namespace {

// A row's sum of exponentials, relative to its largest element: sum of e^x = total * e^shift.
//
// NaN in the row makes the total NaN, and so does +infinity. A row of only -infinity has total 0 and shift 0.
struct ExponentialSum {
  float shift;
  double total;
};

// What is subtracted before exponentials are taken; not -infinity, from which nothing can be subtracted.
__device__ inline float shiftOf(float largest) {
  return largest == -INFINITY ? 0.0f : largest;
}

// out[c] = map(row[c])
template <class Map>
__device__ inline void mapRow(const float* row, int64_t columns, float* out, const Map& map) {
  forEachGroup(row, columns, [&](const float(&values)[groupSize], const int64_t(&places)[groupSize]) {
#pragma unroll
    for (int i = 0; i < groupSize; ++i)
      if (places[i] < columns) out[places[i]] = map(values[i]);
  });
}

// The exponential sum of a row, in all threads of the block, which read it once. Where a group of a thread's elements
// holds one that is larger than all so far, its total is rescaled. The order of summation: a thread's elements
// ascending, then the threads as a tree. The scratches: 33 elements of shared memory.
__device__ inline ExponentialSum exponentialSumOf(const float* row, int64_t columns, float* scratch,
                                                  double* doubleScratch) {
  float largest = -INFINITY;
  double total = 0;
  forEachGroup(row, columns, [&](const float(&values)[groupSize], const int64_t(&)[groupSize]) {
    float most = largest;
#pragma unroll
    for (int i = 0; i < groupSize; ++i)
      if (values[i] > most) most = values[i];
    if (most > largest) {
      total *= exp(double(largest) - double(most));
      largest = most;
    }
    const float shift = shiftOf(largest);
#pragma unroll
    for (int i = 0; i < groupSize; ++i) total += double(expf(values[i] - shift));
  });
  const float rowLargest = blockMax(largest, scratch);
  if (rowLargest > largest) total *= exp(double(largest) - double(rowLargest));
  return {shiftOf(rowLargest), blockSum(total, doubleScratch)};
}

__device__ inline double logSumExp(const ExponentialSum& sum) {
  return double(sum.shift) + log(sum.total);
}

// out[r, c] = e^scores[r, c] / sum over the row of e^scores; a row of only -infinity gives zeros, one with NaN only
// NaN. Reads a row twice, writes it once; scores and out may be the same memory.
__global__ void __launch_bounds__(mostRowThreads) softmaxRowsKernel(Rows scores, Matrix<float> out) {
  __shared__ float scratch[warpSize_ + 1];
  __shared__ double doubleScratch[warpSize_ + 1];
  FOR_EACH_ROW(r, scores.rows) {
    const float* row = scores.data + r * scores.columns;
    const ExponentialSum sum = exponentialSumOf(row, scores.columns, scratch, doubleScratch);
    const float factor = sum.total == 0 ? 0.0f : float(1 / sum.total);
    mapRow(row, scores.columns, out.data + r * out.columns,
           [&](float score) { return expf(score - sum.shift) * factor; });
  }
}

// out[r, c] = logits[r, c] - log of the sum over the row of e^logits. Reads a row twice, writes it once.
__global__ void __launch_bounds__(mostRowThreads) logSoftmaxKernel(Rows logits, Matrix<float> out) {
  __shared__ float scratch[warpSize_ + 1];
  __shared__ double doubleScratch[warpSize_ + 1];
  FOR_EACH_ROW(r, logits.rows) {
    const float* row = logits.data + r * logits.columns;
    const ExponentialSum sum = exponentialSumOf(row, logits.columns, scratch, doubleScratch);
    const float logTotal = float(log(sum.total));
    mapRow(row, logits.columns, out.data + r * out.columns, [&](float logit) { return logit - sum.shift - logTotal; });
  }
}

// out[r] = -log softmax(logits[r])[targets[r]]; a negative target gives 0, one beyond the columns fails. Reads a row
// once.
__global__ void __launch_bounds__(mostRowThreads)
    crossEntropyKernel(Rows logits, Vector<const int32_t> targets, Vector<float> out, LateFailureNote* failureNote) {
  __shared__ float scratch[warpSize_ + 1];
  __shared__ double doubleScratch[warpSize_ + 1];
  FOR_EACH_ROW(r, logits.rows) {
    const int32_t target = targets.data[r];
    if (target < 0 || target >= logits.columns) {
      if (threadIdx.x == 0) {
        out.data[r] = target < 0 ? 0.0f : NAN;
        if (target >= 0) noteFailure(failureNote, LateFailure::targetBeyondLogits, r, target, logits.columns);
      }
      continue;
    }
    const float* row = logits.data + r * logits.columns;
    const double logSum = logSumExp(exponentialSumOf(row, logits.columns, scratch, doubleScratch));
    if (threadIdx.x == 0) out.data[r] = float(logSum - double(row[target]));
  }
}

// out[r] = sum over c of softmax(p[r])[c] * (log softmax(p[r])[c] - log softmax(q[r])[c]), in nats, as
//
//   (sum of e^(p - P) (p - q)) / sum of e^(p - P)  -  (logSumExp p - logSumExp q),   P the largest p,
//
// summed in double, where equal logits cancel exactly. Classes that p gives no probability add nothing. Reads both rows
// twice.
__global__ void __launch_bounds__(mostRowThreads) klDivergenceKernel(Rows p, Rows q, Vector<float> out) {
  __shared__ float scratch[warpSize_ + 1];
  __shared__ double doubleScratch[warpSize_ + 1];
  FOR_EACH_ROW(r, p.rows) {
    const float *rowP = p.data + r * p.columns, *rowQ = q.data + r * q.columns;
    const ExponentialSum sumP = exponentialSumOf(rowP, p.columns, scratch, doubleScratch);
    const ExponentialSum sumQ = exponentialSumOf(rowQ, q.columns, scratch, doubleScratch);
    double weighted = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < p.columns; c += blockDim.x) {
      const float weight = expf(rowP[c] - sumP.shift);
      if (weight != 0) weighted += double(weight) * (double(rowP[c]) - double(rowQ[c]));
    }
    weighted = blockSum(weighted, doubleScratch);
    if (threadIdx.x == 0) out.data[r] = float(weighted / sumP.total - (logSumExp(sumP) - logSumExp(sumQ)));
  }
}

}  // namespace

void softmaxRows(Context& gpu, Rows scores, Matrix<float> out) {
  launch(gpu, softmaxRowsKernel, blockPerRow(scores.rows, scores.columns), scores, out);
}

void logSoftmax(Context& gpu, Rows logits, Matrix<float> out) {
  launch(gpu, logSoftmaxKernel, blockPerRow(logits.rows, logits.columns), logits, out);
}

void crossEntropy(Context& gpu, Rows logits, Vector<const int32_t> targets, Vector<float> out) {
  launch(gpu, crossEntropyKernel, blockPerRow(logits.rows, logits.columns), logits, targets, out, gpu.failureNote());
}

void klDivergence(Context& gpu, Rows p, Rows q, Vector<float> out) {
  launch(gpu, klDivergenceKernel, blockPerRow(p.rows, p.columns), p, q, out);
}

}  // namespace monosem::cuda
