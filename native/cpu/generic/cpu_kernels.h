// The kernel interface on one instruction set: names the free functions that do the work, nothing else.
#pragma once

#include "cpu/generic/attention.h"
#include "cpu/generic/decode.h"
#include "cpu/generic/dense.h"
#include "cpu/generic/draw_features.h"
#include "cpu/generic/encode.h"
#include "cpu/generic/entries.h"
#include "cpu/generic/feature_order.h"
#include "cpu/generic/layer_norm.h"
#include "cpu/generic/linear.h"
#include "cpu/generic/random.h"
#include "cpu/generic/rotary.h"
#include "cpu/generic/row_gradient.h"
#include "cpu/generic/running_minimum.h"
#include "cpu/generic/sample.h"
#include "cpu/generic/select_top.h"
#include "cpu/generic/softmax.h"

namespace monosem::MONOSEM_ISA {

class CpuKernels final : public Kernels {
 public:
  CpuKernels(const char* instructionSet, Allocator& allocator, int threads, bool screening = false)
      : instructionSet_(instructionSet), allocator_(allocator), pool_(threads), screening_(screening) {}

  std::string description() const override {
    const int threads = pool_.threads();
    return instructionSet_ + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
  }

  // ---- SAE
  Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
               const Selection& selection) override {
    return MONOSEM_ISA::encode(x, encoder, bias, selection, screening_, allocator_, pool_);
  }
  void decode(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias, Matrix<const float> target,
              Matrix<float> out, double* squaredError) override {
    MONOSEM_ISA::decode(codes, decoder, bias, target, out, squaredError, allocator_, pool_);
  }
  void decodeGradient(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput, double scale,
                      Vector<const float> perFeature, double featureScale, bool every, float* out) override {
    MONOSEM_ISA::decodeGradient(codes, decoder, dOutput, scale, perFeature, featureScale, every, out, allocator_,
                                pool_);
  }
  void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out) override {
    MONOSEM_ISA::featureSums(codes, coefficients, scale, out, allocator_, pool_);
  }
  void featureCounts(const Codes& codes, Vector<float> out) override {
    MONOSEM_ISA::featureCounts(codes, out, allocator_, pool_);
  }
  void densify(const Codes& codes, Matrix<float> out) override { MONOSEM_ISA::densify(codes, out, pool_); }
  Codes selectTop(const Codes& codes, int64_t k) override {
    return MONOSEM_ISA::selectTop(codes, k, allocator_, pool_);
  }
  void updateRunningMinimum(const Codes& codes, double decay, Vector<double> state, Vector<float> out) override {
    MONOSEM_ISA::updateRunningMinimum(codes, decay, state, out);
  }
  void entryProduct(const Codes& codes, const EntryProduct& product, float* out) override {
    MONOSEM_ISA::entryProduct(codes, product, out, pool_);
  }
  void power(Vector<const float> x, double exponent, Vector<float> out) override {
    MONOSEM_ISA::power(x, exponent, out, pool_);
  }
  Codes featureRange(const Codes& codes, int64_t from, int64_t to) override {
    return MONOSEM_ISA::featureRange(codes, from, to, allocator_, pool_);
  }
  void windowSums(const Codes& codes, Vector<const float> thresholds, double bandwidth, const float* coefficients,
                  double scale, Vector<float> out) override {
    MONOSEM_ISA::windowSums(codes, thresholds, bandwidth, coefficients, scale, out, allocator_, pool_);
  }
  Block rowGradientSquaredNorm(const RowGradient& gradient, Matrix<const float> weights, double* squaredNorm) override {
    return MONOSEM_ISA::rowGradientSquaredNorm(gradient, weights, squaredNorm, allocator_, pool_);
  }
  void rowGradient(const RowGradient& gradient, Matrix<const float> weights, Matrix<float> out) override {
    MONOSEM_ISA::rowGradient(gradient, weights, out, allocator_, pool_);
  }
  void stepRows(const RowGradient& gradient, Matrix<float> weights, Matrix<float> m, Matrix<float> v,
                const AdamStep& adam, const Clip& clip, bool unitNorm, const Block& kept) override {
    MONOSEM_ISA::stepRows(gradient, weights, m, v, adam, clip, unitNorm, kept, allocator_, pool_);
  }
  void stepVector(Vector<const float> gradient, Vector<float> weights, Vector<float> m, Vector<float> v,
                  const AdamStep& adam, const Clip& clip) override {
    MONOSEM_ISA::stepVector(gradient, weights, m, v, adam, clip, pool_);
  }
  void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired) override {
    MONOSEM_ISA::updateTokensSinceFired(codes, tokens, tokensSinceFired, allocator_, pool_);
  }
  std::shared_ptr<const FeatureSet> featuresNotFiredFor(Vector<const double> tokensSinceFired,
                                                        double threshold) override {
    return MONOSEM_ISA::featuresNotFiredFor(tokensSinceFired, threshold, allocator_);
  }

  // ---- Dense vectors and matrices
  void fill(Vector<float> out, float value) override { MONOSEM_ISA::fill(out, value, pool_); }
  void add(Vector<const float> a, Vector<const float> b, double scale, Vector<float> out) override {
    MONOSEM_ISA::add(a, b, scale, out, pool_);
  }
  void scale(Vector<const float> a, double factor, Vector<float> out) override {
    MONOSEM_ISA::scale(a, factor, out, pool_);
  }
  void addRow(Matrix<const float> a, Vector<const float> row, double scale, Matrix<float> out) override {
    MONOSEM_ISA::addRow(a, row, scale, out, pool_);
  }
  void scaleRows(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) override {
    MONOSEM_ISA::scaleRows(a, factors, out, pool_);
  }
  void multiply(Vector<const float> a, Vector<const float> b, Vector<float> out) override {
    MONOSEM_ISA::multiply(a, b, out, pool_);
  }
  void divide(Vector<const float> a, Vector<const float> b, Vector<float> out) override {
    MONOSEM_ISA::divide(a, b, out, pool_);
  }
  void scaleColumns(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) override {
    MONOSEM_ISA::scaleColumns(a, factors, out, pool_);
  }
  void affineRows(Matrix<const float> a, Vector<const float> factors, Vector<const float> shifts,
                  Matrix<float> out) override {
    MONOSEM_ISA::affineRows(a, factors, shifts, out, pool_);
  }
  void standardiseRows(Matrix<const float> x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                       Vector<float> standardDeviation) override {
    MONOSEM_ISA::standardiseRows(x, epsilon, normalized, mean, standardDeviation, pool_);
  }
  void rowNorms(Matrix<const float> a, const std::vector<int64_t>& blockWidths, Vector<float> out) override {
    MONOSEM_ISA::rowNorms(a, blockWidths, out, pool_);
  }
  void normaliseRows(Matrix<const float> a, double norm, Matrix<float> out) override {
    MONOSEM_ISA::normaliseRows(a, norm, out, pool_);
  }
  void columnSums(Matrix<const float> a, double scale, Vector<float> out) override {
    MONOSEM_ISA::columnSums(a, scale, out, pool_);
  }
  void weightedRowSum(Vector<const float> weights, Matrix<const float> a, double scale, Vector<float> out) override {
    MONOSEM_ISA::weightedRowSum(weights, a, scale, out, pool_);
  }
  void gatherRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) override {
    MONOSEM_ISA::gatherRows(a, rows, out, pool_);
  }
  void scatterRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) override {
    MONOSEM_ISA::scatterRows(a, rows, out, allocator_, pool_);
  }
  void copyColumns(Matrix<const float> a, int64_t aColumn, Matrix<float> out, int64_t outColumn,
                   int64_t columns) override {
    MONOSEM_ISA::copyColumns(a, aColumn, out, outColumn, columns, pool_);
  }
  void copyRows(Matrix<const float> a, Matrix<float> out, int64_t firstRow) override {
    MONOSEM_ISA::copyRows(a, out, firstRow, pool_);
  }
  void transpose(Matrix<const float> a, Matrix<float> out) override { MONOSEM_ISA::transpose(a, out, pool_); }
  void dot(Vector<const float> a, Vector<const float> b, double* sum) override {
    MONOSEM_ISA::dot(a, b, sum, allocator_, pool_);
  }
  void sum(Vector<const float> a, double* sum) override { MONOSEM_ISA::sumElements(a, sum, allocator_, pool_); }
  void accumulateColumnSums(Matrix<const float> a, Vector<double> sums) override {
    MONOSEM_ISA::accumulateColumnSums(a, sums, pool_);
  }
  void sumOfRowCosines(Matrix<const float> a, Matrix<const float> b, double* sum) override {
    MONOSEM_ISA::sumOfRowCosines(a, b, sum, allocator_, pool_);
  }
  void convert(const void* source, int sourceBits, bool brain, Vector<float> out) override {
    if (sourceBits == 64) return MONOSEM_ISA::convert(static_cast<const double*>(source), out, pool_);
    if (sourceBits != 16)
      throw EngineError(ErrorCode::unsupported,
                        "convert reads 16-bit and 64-bit floats, not " + std::to_string(sourceBits) + "-bit ones.");
    MONOSEM_ISA::convert(static_cast<const uint16_t*>(source), brain, out, pool_);
  }
  void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) override {
    MONOSEM_ISA::randomUniform(seed, offset, low, high, out, pool_);
  }
  void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) override {
    MONOSEM_ISA::randomNormal(seed, offset, standardDeviation, out, pool_);
  }
  void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) override {
    MONOSEM_ISA::randomPermutation(seed, offset, out);
  }
  Codes drawFeatures(const FeatureDistribution& features, int64_t rows, uint64_t seed, uint64_t offset) override {
    return MONOSEM_ISA::drawFeatures(features, rows, seed, offset, allocator_, pool_);
  }

  // ---- Transformers
  void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias, Activation activation,
              Matrix<const float> residual, bool, Matrix<float> out) override {
    MONOSEM_ISA::linear(x, weights, bias, activation, residual, out, allocator_, pool_);
  }
  void activation(Vector<const float> x, Activation activation, Vector<float> out) override {
    MONOSEM_ISA::activation(x, activation, out, pool_);
  }
  void layerNorm(Matrix<const float> x, Vector<const float> weight, Vector<const float> bias, double epsilon,
                 Matrix<float> out, Matrix<float> normalized, Vector<float> scale) override {
    MONOSEM_ISA::layerNorm(x, weight, bias, epsilon, out, normalized, scale, pool_);
  }
  void attention(const Attention& operands, float* out) override {
    MONOSEM_ISA::attention(operands, out, allocator_, pool_);
  }
  void attentionScores(const Attention& operands, float* scores) override {
    MONOSEM_ISA::attentionScores(operands, scores, allocator_, pool_);
  }
  void softmaxRows(Matrix<const float> scores, Matrix<float> out) override {
    MONOSEM_ISA::softmaxRows(scores, out, pool_);
  }
  void attentionMix(const Attention& operands, const float* pattern, float* out) override {
    MONOSEM_ISA::attentionMix(operands, pattern, out, allocator_, pool_);
  }
  void appendPositions(const float* rows, int64_t batch, int64_t positions, int64_t width, int64_t capacity,
                       int64_t first, float* cache) override {
    MONOSEM_ISA::appendPositions(rows, batch, positions, width, capacity, first, cache);
  }
  void logSoftmax(Matrix<const float> logits, Matrix<float> out) override {
    MONOSEM_ISA::logSoftmax(logits, out, pool_);
  }
  void crossEntropy(Matrix<const float> logits, Vector<const int32_t> targets, Vector<float> out) override {
    MONOSEM_ISA::crossEntropy(logits, targets, out, pool_);
  }
  void klDivergence(Matrix<const float> p, Matrix<const float> q, Vector<float> out) override {
    MONOSEM_ISA::klDivergence(p, q, out, pool_);
  }
  void sample(Matrix<const float> logits, const Sampling& sampling, Vector<int32_t> out) override {
    MONOSEM_ISA::sample(logits, sampling, out, pool_);
  }
  void rmsNorm(Matrix<const float> x, Vector<const float> weight, double epsilon, Matrix<float> out,
               Matrix<float> normalized, Vector<float> scale) override {
    MONOSEM_ISA::rmsNorm(x, weight, epsilon, out, normalized, scale, pool_);
  }
  void rotate(Matrix<const float> x, int64_t heads, Matrix<const float> cosines, Matrix<const float> sines,
              bool interleaved, Matrix<float> out) override {
    MONOSEM_ISA::rotate(x, heads, cosines, sines, interleaved, out, pool_);
  }
  void gatedActivation(Vector<const float> gate, Vector<const float> x, Activation activation,
                       Vector<float> out) override {
    MONOSEM_ISA::gatedActivation(gate, x, activation, out, pool_);
  }
  void linearBrain(Matrix<const float> x, Matrix<const uint16_t> weights, Vector<const float> bias,
                   Activation activation, Matrix<const float> residual, Matrix<float> out) override {
    MONOSEM_ISA::linearBrain(x, weights, bias, activation, residual, out, allocator_, pool_);
  }
  void gatherBrainRows(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out) override {
    MONOSEM_ISA::gatherBrainRows(a, rows, out, pool_);
  }

 private:
  std::string instructionSet_;
  Allocator& allocator_;
  ThreadPool pool_;
  bool screening_;
};

}  // namespace monosem::MONOSEM_ISA
