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
#include "engine/error.h"
#include "engine/views.h"

namespace monosem {

enum class Select { positive, topk, batchtopk, above, all };

struct Selection {
  Select select = Select::positive;
  int64_t k = 0;                             // topk: entries per row, min(k, eligible features); batchtopk: entries
  bool byMagnitude = false;                  // topk: the largest |pre-activation|
  Vector<const float> thresholds;            // above: [dSae]
  double margin = 0;                         // above: how far below its threshold an entry is still selected
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
// min(1, maxNorm / (sqrt(*squaredNorm) + 1e-6)). `squaredNorm` is read when the kernel runs, which throws nonFinite and
// writes nothing where it is NaN or infinite: an infinite maxNorm asks for that alone. Null: no clipping.
struct Clip {
  const double* squaredNorm = nullptr;
  double maxNorm = 0;
};

// out[e] = scale * perFeature[feature(e)] * a[e] * b[e] + plus[e]: absent factors are 1, an absent summand is 0.
struct EntryProduct {
  const float* a = nullptr;
  const float* b = nullptr;
  Vector<const float> perFeature;
  double scale = 1;
  const float* plus = nullptr;
};

// Part of the gradient of a [dSae, width] matrix whose row f is
//     scale * sum over entries e of feature f, rows ascending: coefficient[e] * dense[row(e), :].
struct EntryTerm {
  const Codes* codes = nullptr;
  const float* coefficients = nullptr;  // [entries], row order; null: the codes' values
  Matrix<const float> dense;            // [codes.rows, width]
  double scale = 1;
};

// A whole row gradient: the sum of the entry terms, plus the decoder-norm weighted sparsity penalty's, which on each
// block of columns is rowCoefficients[f] * rowScale * weights[f, block] / |weights[f, block]| (blocks of norm 0 add
// nothing); with `projectOutRow`, less its component along weights[f, :].
struct RowGradient {
  std::vector<EntryTerm> terms;
  Vector<const float> rowCoefficients;  // [rows] or null
  double rowScale = 0;
  std::vector<int64_t> blockWidths;  // of the columns, in order; none: they are one block
  bool projectOutRow = false;
};

enum class Activation { none, geluTanh, gelu, relu, exp, sigmoid, tanh, heaviside, silu };

// What `sample` does with a row of logits: temperature 0 is greedy (the lowest index among equals); topK 0 and topP 1
// cut nothing.
struct Sampling {
  double temperature = 1;
  int64_t topK = 0;
  double topP = 1;
  uint64_t seed = 0;
  uint64_t offset = 0;  // of the counter-based generator; row r uses offset + r
};

// How the features of synthetic data fire (see Kernels::drawFeatures).
struct FeatureDistribution {
  Vector<const float> probabilities;  // [features]
  Matrix<const float> factors;        // [features, rank] or null: what correlates them
  Vector<const float> means;          // [features], of their magnitudes, > 0
  Vector<const float> deviations;     // [features], of their magnitudes, >= 0
  // The first features are trees, numbered breadth first: the roots, then level after level of children, down to
  // `depth` levels below the roots.
  int64_t roots = 0;
  int64_t children = 0;  // of a feature
  int64_t depth = 0;
};

// Queries, keys and values of a batch of sequences, [batch, positions, heads, dHead] each, with room for more positions
// than are filled (a key/value cache): sequence b, position p of the keys starts at keys + (b * keyCapacity + p) *
// keyHeads * dHead. Query heads that follow each other share a head of keys and values: head h has head
// h / (heads / keyHeads) of them.
//
// Position p sees the positions max(firstKeys[b], p - window + 1) ... p.
struct Attention {
  const float* queries = nullptr;  // [batch, queryPositions, heads, dHead]
  const float* keys = nullptr;     // [batch, keyCapacity, keyHeads, dHead]
  const float* values = nullptr;   // [batch, keyCapacity, keyHeads, dHead]
  int64_t batch = 0, heads = 0, keyHeads = 0, dHead = 0;
  int64_t queryPositions = 0;  // the last of the keyPositions positions
  int64_t keyPositions = 0;
  int64_t keyCapacity = 0;
  double scale = 1;                    // GPT-2: 1 / sqrt(dHead)
  double softCap = 0;                  // scores s become softCap * tanh(s / softCap); 0: they stay
  int64_t window = 0;                  // how many positions one sees, itself included; 0: all up to itself
  const int32_t* firstKeys = nullptr;  // [batch], where the sequences begin; what is outside counts as the nearest end
};

// A failure that was found when the call that caused it had returned.
class LateError : public EngineError {
 public:
  // `call`: the value of Kernels::calls() after the call, or within it; 0: unknown
  LateError(const EngineError& error, uint64_t call) : EngineError(error), call_(call) {}
  uint64_t call() const { return call_; }

 private:
  uint64_t call_;
};

class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual std::string description() const = 0;  // for example "avx512, 2 threads"
  // Waits for the kernels called so far. Throws, as a LateError, the first failure that one of them has found since the
  // last time and could not throw itself, because it was still running.
  virtual void settle() {}
  // How many calls there have been, where calls may fail late; else 0.
  virtual uint64_t calls() const { return 0; }

  // ---- SAE ------------------------------------------------------------------------------------------------------
  // z = x . encoder[f] + bias[f]; keeps what `selection` selects:
  //   positive    z > 0; the value is z
  //   topk        exactly the k largest z of each row, ties by (z descending, feature ascending); the value is max(z,
  //   0).
  //               By magnitude: the k largest |z|; the value is z
  //   batchtopk   exactly the k largest positive z of all rows, all if there are fewer, ties by (z descending, row
  //               ascending, feature ascending); the value is z
  //   above       z > thresholds[f] - margin; the value is max(z, 0) where z > thresholds[f], else 0
  //   all         every z; the value is max(z, 0)
  // Throws nonFinite when x, the encoder or the bias holds NaN or infinity, or a threshold is NaN.
  virtual Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
                       const Selection& selection) = 0;
  // out[t] = bias + sum of value[e] * decoder[feature[e]] - target[t]; bias and target may be absent.
  // squaredError, if given, is *added* the sum of out^2.
  virtual void decode(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias,
                      Matrix<const float> target, Matrix<float> out, double* squaredError) = 0;
  // out[e] = scale * dOutput[row(e)] . decoder[feature(e)] + featureScale * perFeature[feature(e)]; unless `every`, 0
  // where the entry is not active.
  virtual void decodeGradient(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput,
                              double scale, Vector<const float> perFeature, double featureScale, bool every,
                              float* out) = 0;
  // out[f] = scale * sum over the entries of f of coefficients[e] (null: the codes' values).
  virtual void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out) = 0;
  // out[f] = number of active entries of f.
  virtual void featureCounts(const Codes& codes, Vector<float> out) = 0;
  // out = the dense [rows, dSae] values.
  virtual void densify(const Codes& codes, Matrix<float> out) = 0;
  // The k entries of each row with the largest pre-activations (ties: feature ascending), all if there are fewer.
  virtual Codes selectTop(const Codes& codes, int64_t k) = 0;
  // With the smallest value m of the active entries: state[0] = decay * state[0] + (1 - decay) * m and
  // state[1] = decay * state[1] + (1 - decay), then every element of out = state[0] / state[1], the mean of the minima
  // so far, recent ones weighing more. Nothing happens where no entry is active.
  virtual void updateRunningMinimum(const Codes& codes, double decay, Vector<double> state, Vector<float> out) = 0;

  // See EntryProduct.
  virtual void entryProduct(const Codes& codes, const EntryProduct& product, float* out) = 0;
  // out = x^exponent where x > 0, 0 where x <= 0; NaN stays.
  virtual void power(Vector<const float> x, double exponent, Vector<float> out) = 0;
  // The entries with from <= feature < to; dSae stays.
  virtual Codes featureRange(const Codes& codes, int64_t from, int64_t to) = 0;
  // out[f] = scale * sum over the entries of f with |preActivation - thresholds[f]| < bandwidth / 2 of coefficients[e]
  // (null: 1): what a rectangular kernel of that width sees around the threshold.
  virtual void windowSums(const Codes& codes, Vector<const float> thresholds, double bandwidth,
                          const float* coefficients, double scale, Vector<float> out) = 0;

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

  // tokensSinceFired[f] = 0 where f has an active entry, else + tokens.
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
  virtual void multiply(Vector<const float> a, Vector<const float> b, Vector<float> out) = 0;
  virtual void divide(Vector<const float> a, Vector<const float> b, Vector<float> out) = 0;  // as IEEE 754 divides
  virtual void scaleColumns(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) = 0;
  // out[r, c] = a[r, c] * factors[r] + shifts[r]
  virtual void affineRows(Matrix<const float> a, Vector<const float> factors, Vector<const float> shifts,
                          Matrix<float> out) = 0;
  // normalized = (x - mean) / (standardDeviation + epsilon) over each row; the variance is divided by columns - 1, and
  // a single column has standard deviation 0.
  virtual void standardiseRows(Matrix<const float> x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                               Vector<float> standardDeviation) = 0;
  // The sum of the norms of each row's blocks of columns, which are `blockWidths` wide; none: the norm of the row.
  virtual void rowNorms(Matrix<const float> a, const std::vector<int64_t>& blockWidths, Vector<float> out) = 0;
  // Rows divided by their norm and multiplied by `norm`; rows of norm 0 stay.
  virtual void normaliseRows(Matrix<const float> a, double norm, Matrix<float> out) = 0;
  virtual void columnSums(Matrix<const float> a, double scale, Vector<float> out) = 0;
  virtual void weightedRowSum(Vector<const float> weights, Matrix<const float> a, double scale, Vector<float> out) = 0;
  virtual void gatherRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) = 0;
  // out[rows[r]] = a[r]; of rows with the same place the last one stays.
  virtual void scatterRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) = 0;
  // out[r, outColumn + c] = a[r, aColumn + c] for c < columns
  virtual void copyColumns(Matrix<const float> a, int64_t aColumn, Matrix<float> out, int64_t outColumn,
                           int64_t columns) = 0;
  virtual void copyRows(Matrix<const float> a, Matrix<float> out, int64_t firstRow) = 0;  // into out[firstRow ...]
  virtual void transpose(Matrix<const float> a, Matrix<float> out) = 0;
  virtual void dot(Vector<const float> a, Vector<const float> b, double* sum) = 0;    // *sum += a . b, in double
  virtual void sum(Vector<const float> a, double* sum) = 0;                           // *sum += sum of a
  virtual void accumulateColumnSums(Matrix<const float> a, Vector<double> sums) = 0;  // sums += column sums
  // *sum += sum over rows of cos(a[r], b[r]); rows of norm 0 add 0.
  virtual void sumOfRowCosines(Matrix<const float> a, Matrix<const float> b, double* sum) = 0;
  // f64 (rounded), f16 or bf16 (exact) to f32
  virtual void convert(const void* source, int sourceBits, bool brain, Vector<float> out) = 0;
  // Counter-based (Philox 4x32-10): element i depends on seed and offset + i alone.
  virtual void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) = 0;
  virtual void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) = 0;
  // A uniformly random permutation of 0 ... size-1.
  virtual void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) = 0;
  // The features of the samples offset, offset + 1, ..., drawn as cpu/generic/draw_features.h says: codes [rows,
  // features] whose values are magnitudes, all > 0. A sample depends on the seed and its own number alone. Throws
  // invalidArgument for what is no distribution.
  virtual Codes drawFeatures(const FeatureDistribution& features, int64_t rows, uint64_t seed, uint64_t offset) = 0;

  // ---- Transformers -----------------------------------------------------------------------------------------------
  // out = activation(x . weights^T + bias) + residual; weights [out, in]; bias and residual may be absent. `exact`: in
  // float32 whatever the precision of the device.
  virtual void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias,
                      Activation activation, Matrix<const float> residual, bool exact, Matrix<float> out) = 0;
  virtual void activation(Vector<const float> x, Activation activation, Vector<float> out) = 0;
  // normalized = (x - mean) / scale with scale = sqrt(variance + epsilon); out = normalized * weight + bias.
  // Any of out, normalized [rows, columns] and scale [rows] may be absent.
  virtual void layerNorm(Matrix<const float> x, Vector<const float> weight, Vector<const float> bias, double epsilon,
                         Matrix<float> out, Matrix<float> normalized, Vector<float> scale) = 0;
  // Causal: query i of a sequence stands at position keyPositions - queryPositions + i. A query that sees nothing gives
  // zeros. out [batch, queryPositions, heads, dHead], nothing of size positions^2 is written.
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
  // normalized = x / scale with scale = sqrt(mean of x^2 + epsilon); out = normalized * weight. As layerNorm otherwise.
  virtual void rmsNorm(Matrix<const float> x, Vector<const float> weight, double epsilon, Matrix<float> out,
                       Matrix<float> normalized, Vector<float> scale) = 0;
  // Rotary positions of the first 2 * pairs elements of every head; the others are copied. x [rows, heads * dHead],
  // cosines and sines [rows, pairs]:
  //     out[a_i] = x[a_i] cos_i - x[b_i] sin_i,  out[b_i] = x[b_i] cos_i + x[a_i] sin_i
  // with (a_i, b_i) = (i, pairs + i), or (2i, 2i + 1) where they are interleaved.
  virtual void rotate(Matrix<const float> x, int64_t heads, Matrix<const float> cosines, Matrix<const float> sines,
                      bool interleaved, Matrix<float> out) = 0;
  // out = activation(gate) * x
  virtual void gatedActivation(Vector<const float> gate, Vector<const float> x, Activation activation,
                               Vector<float> out) = 0;
  // linear and gatherRows of bf16 numbers, which stand for themselves: only their widening happens on the way.
  virtual void linearBrain(Matrix<const float> x, Matrix<const uint16_t> weights, Vector<const float> bias,
                           Activation activation, Matrix<const float> residual, Matrix<float> out) = 0;
  virtual void gatherBrainRows(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out) = 0;
};

}  // namespace monosem
