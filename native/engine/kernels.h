// The kernel interface: what a device computes. Each backend (cpu, cuda) implements it whole; the work queue calls it,
// one kernel at a time, in the order in which the calls were made. An implementation holds its device's allocator, from
// which scratch memory and codes come.
//
// Shapes are checked before (in TypeScript, then by the addon); implementations may assert. Weights are feature-major,
// [dSae, dIn], encoder and decoder alike: a feature is two contiguous rows. A `double*` result is a scalar in device
// memory that is *added to* where the comment says so. On the CPU no result depends on the number of threads.
// Where a kernel meets data that it refuses (NaN), it throws EngineError(nonFinite).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/codes.h"
#include "engine/views.h"

namespace monosem {

enum class Select { positive, topk };

struct Selection {
  Select select = Select::positive;
  int64_t k = 0;                             // topk: entries per row, min(k, eligible features)
  std::shared_ptr<const FeatureSet> subset;  // only these features; null: all
};

// torch.optim.Adam's update of step `step` (counted from 1): weights -= lr * mHat / (sqrt(vHat) + epsilon).
struct AdamStep {
  double learningRate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  int64_t step = 1;
};

// Gradient clipping by global norm, as torch.nn.utils.clip_grad_norm_: every gradient is multiplied by
// min(1, maxNorm / (sqrt(*squaredNorm) + 1e-6)). `squaredNorm` is read when the kernel runs; null: no clipping.
struct Clip {
  const double* squaredNorm = nullptr;
  double maxNorm = 0;
};

// Part of the gradient of a [dSae, width] matrix whose row f is
//     scale * sum over entries e of feature f, rows ascending: coefficient[e] * dense[row(e), :].
struct EntryTerm {
  Codes* codes = nullptr;               // its feature order is built here if the kernel needs it and it is missing
  const float* coefficients = nullptr;  // [entries], row order; null: the codes' values
  Matrix<const float> dense;            // [codes.rows, width]
  double scale = 1;
};

// A whole row gradient: the sum of the entry terms, plus rowCoefficients[f] * rowScale * weights[f, :] / |weights[f,
// :]| (the decoder-norm weighted sparsity penalty; rows of norm 0 add nothing); with `projectOutRow`, less its
// component along weights[f, :].
struct RowGradient {
  std::vector<EntryTerm> terms;
  Vector<const float> rowCoefficients;  // [rows] or null
  double rowScale = 0;
  bool projectOutRow = false;
};

enum class Activation { none, geluTanh, gelu, relu };

// What `sample` does with a row of logits: temperature 0 is greedy (the lowest index among equals); topK 0 and topP 1
// cut nothing.
struct Sampling {
  double temperature = 1;
  int64_t topK = 0;
  double topP = 1;
  uint64_t seed = 0;
  uint64_t offset = 0;  // of the counter-based generator; row r uses offset + r
};

// Queries, keys and values of a batch of sequences, [batch, positions, heads, dHead] each, with room for more positions
// than are filled (a key/value cache): sequence b, position p of the keys starts at keys + (b * keyCapacity + p) *
// heads * dHead.
struct Attention {
  const float* queries = nullptr;  // [batch, queryPositions, heads, dHead]
  const float* keys = nullptr;     // [batch, keyCapacity, heads, dHead]
  const float* values = nullptr;   // [batch, keyCapacity, heads, dHead]
  int64_t batch = 0, heads = 0, dHead = 0;
  int64_t queryPositions = 0;  // the last of the keyPositions positions
  int64_t keyPositions = 0;
  int64_t keyCapacity = 0;
  double scale = 1;  // GPT-2: 1 / sqrt(dHead)
};

class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual std::string description() const = 0;  // for example "avx512, 2 threads"

  // ---- SAE ------------------------------------------------------------------------------------------------------
  // preActivation = x . encoder[f] + bias[f]; keeps what `selection` selects. Top k is exact, ties broken by
  // (pre-activation descending, feature ascending); its value is max(preActivation, 0). `positive` keeps
  // preActivation > 0. Throws nonFinite when x, the encoder or the bias holds NaN or infinity.
  virtual Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
                       const Selection& selection) = 0;
  // out[t] = bias + sum of value[e] * decoder[feature[e]] - target[t]; bias and target may be absent.
  // squaredError, if given, is *added* the sum of out^2.
  virtual void decode(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias,
                      Matrix<const float> target, Matrix<float> out, double* squaredError) = 0;
  // out[e] = value[e] > 0 ? scale * dOutput[row(e)] . decoder[feature(e)] + featureScale * perFeature[feature(e)] : 0.
  virtual void decodeGradient(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput,
                              double scale, Vector<const float> perFeature, double featureScale, float* out) = 0;
  // out[f] = scale * sum over the entries of f of coefficients[e] (null: the codes' values).
  virtual void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out) = 0;
  // out[f] = number of entries of f with value > 0.
  virtual void featureCounts(const Codes& codes, Vector<float> out) = 0;
  // out = the dense [rows, dSae] values.
  virtual void densify(const Codes& codes, Matrix<float> out) = 0;

  // *squaredNorm += the squared Frobenius norm of the gradient. Clipping needs it before the step, so the gradient is
  // made twice; where that costs more than memory, its rows [rows, columns] are returned for stepRows, and an empty
  // block otherwise.
  virtual Block rowGradientSquaredNorm(const RowGradient& gradient, Matrix<const float> weights,
                                       double* squaredNorm) = 0;
  virtual void rowGradient(const RowGradient& gradient, Matrix<const float> weights, Matrix<float> out) = 0;
  // One pass over the rows: gradient, clipping, Adam on weights with moments m and v, and with `unitNorm` weights[f]
  // divided by its norm (rows of norm 0 stay). `kept` is what rowGradientSquaredNorm returned for this gradient of
  // these weights, nothing of them changed since, or empty.
  virtual void stepRows(const RowGradient& gradient, Matrix<float> weights, Matrix<float> m, Matrix<float> v,
                        const AdamStep& adam, const Clip& clip, bool unitNorm, const Block& kept) = 0;
  virtual void stepVector(Vector<const float> gradient, Vector<float> weights, Vector<float> m, Vector<float> v,
                          const AdamStep& adam, const Clip& clip) = 0;

  // tokensSinceFired[f] = 0 where f has an entry with value > 0, else + tokens.
  virtual void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired) = 0;
  // The features with tokensSinceFired >= threshold.
  virtual std::shared_ptr<const FeatureSet> featuresNotFiredFor(Vector<const double> tokensSinceFired,
                                                                double threshold) = 0;

  // ---- Dense vectors and matrices --------------------------------------------------------------------------------
  virtual void fill(Vector<float> out, float value) = 0;
  virtual void add(Vector<const float> a, Vector<const float> b, double scale, Vector<float> out) = 0;  // a + scale * b
  virtual void scale(Vector<const float> a, double factor, Vector<float> out) = 0;
  virtual void addRow(Matrix<const float> a, Vector<const float> row, double scale,
                      Matrix<float> out) = 0;  // a[r] + scale * row
  virtual void scaleRows(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) = 0;
  virtual void rowNorms(Matrix<const float> a, Vector<float> out) = 0;
  // Rows divided by their norm and multiplied by `norm`; rows of norm 0 stay.
  virtual void normaliseRows(Matrix<const float> a, double norm, Matrix<float> out) = 0;
  virtual void columnSums(Matrix<const float> a, double scale, Vector<float> out) = 0;
  virtual void weightedRowSum(Vector<const float> weights, Matrix<const float> a, double scale, Vector<float> out) = 0;
  virtual void gatherRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) = 0;
  virtual void copyRows(Matrix<const float> a, Matrix<float> out, int64_t firstRow) = 0;  // into out[firstRow ...]
  virtual void transpose(Matrix<const float> a, Matrix<float> out) = 0;
  virtual void dot(Vector<const float> a, Vector<const float> b, double* sum) = 0;    // *sum += a . b, in double
  virtual void sum(Vector<const float> a, double* sum) = 0;                           // *sum += sum of a
  virtual void accumulateColumnSums(Matrix<const float> a, Vector<double> sums) = 0;  // sums += column sums
  // *sum += sum over rows of cos(a[r], b[r]); rows of norm 0 add 0.
  virtual void sumOfRowCosines(Matrix<const float> a, Matrix<const float> b, double* sum) = 0;
  virtual void convert(const void* source, int sourceBits, bool brain, Vector<float> out) = 0;  // f16 or bf16 to f32
  // Counter-based (Philox 4x32-10): element i depends on seed and offset + i alone.
  virtual void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) = 0;
  virtual void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) = 0;
  // A uniformly random permutation of 0 ... size-1.
  virtual void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) = 0;

  // ---- Transformers -----------------------------------------------------------------------------------------------
  // out = activation(x . weights^T + bias) + residual; weights [out, in]; bias and residual may be absent.
  virtual void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias,
                      Activation activation, Matrix<const float> residual, Matrix<float> out) = 0;
  virtual void activation(Vector<const float> x, Activation activation, Vector<float> out) = 0;
  // normalized = (x - mean) / scale with scale = sqrt(variance + epsilon); out = normalized * weight + bias.
  // Any of out, normalized [rows, columns] and scale [rows] may be absent.
  virtual void layerNorm(Matrix<const float> x, Vector<const float> weight, Vector<const float> bias, double epsilon,
                         Matrix<float> out, Matrix<float> normalized, Vector<float> scale) = 0;
  // Causal: query i of a sequence sees the first keyPositions - queryPositions + i + 1 keys.
  // out [batch, queryPositions, heads, dHead], nothing of size positions^2 is written.
  virtual void attention(const Attention& operands, float* out) = 0;
  // The same in three parts, for hooks: scores [batch, heads, queryPositions, keyPositions], masked places -infinity.
  virtual void attentionScores(const Attention& operands, float* scores) = 0;
  virtual void softmaxRows(Matrix<const float> scores, Matrix<float> out) = 0;  // a row of only -infinity gives zeros
  virtual void attentionMix(const Attention& operands, const float* pattern, float* out) = 0;  // pattern . values
  // Rows of keys or values [batch, positions, width] into a cache [batch, capacity, width] at position `first`.
  virtual void appendPositions(const float* rows, int64_t batch, int64_t positions, int64_t width, int64_t capacity,
                               int64_t first, float* cache) = 0;
  virtual void logSoftmax(Matrix<const float> logits, Matrix<float> out) = 0;
  // out[r] = -log softmax(logits[r])[targets[r]]; a negative target gives 0.
  virtual void crossEntropy(Matrix<const float> logits, Vector<const int32_t> targets, Vector<float> out) = 0;
  // out[r] = KL(softmax(p[r]) || softmax(q[r])) in nats.
  virtual void klDivergence(Matrix<const float> p, Matrix<const float> q, Vector<float> out) = 0;
  virtual void sample(Matrix<const float> logits, const Sampling& sampling, Vector<int32_t> out) = 0;
};

}  // namespace monosem
