#include "mirrored_kernels.h"

#include <functional>
#include <utility>
#include <vector>

#include "cuda/cuda_allocator.h"
#include "cuda/cuda_kernels.h"

namespace monosem::test {
namespace {

// The copies of one call's operands on the device. What is not const is copied back by finish().
class Copies {
 public:
  Copies(Allocator& device, Allocator& host) : device_(device), host_(host) {}

  template <class T>
  T* of(T* host, int64_t count) {
    if (!host) return nullptr;
    const size_t bytes = sizeof(T) * size_t(count);
    const Block block = device_.allocate(bytes);
    device_.upload(host, block, bytes);
    blocks_.push_back(block);
    if constexpr (!std::is_const_v<T>) back_.push_back([=] { device_.download(block, host, bytes); });
    return block.as<T>();
  }
  template <class T>
  Vector<T> operator()(Vector<T> host) {
    return {of(host.data, host.size), host.size};
  }
  template <class T>
  Matrix<T> operator()(Matrix<T> host) {
    return {of(host.data, host.rows * host.columns), host.rows, host.columns};
  }
  double* operator()(double* sum) { return of(sum, 1); }
  Block operator()(const Block& host) {
    if (!host) return {};
    const Block block = device_.allocate(host.size());
    device_.upload(host.as<const void>(), block, host.size());
    return block;
  }
  std::shared_ptr<const FeatureSet> operator()(const std::shared_ptr<const FeatureSet>& host) {
    if (!host) return nullptr;
    auto copy = std::make_shared<FeatureSet>(*host);
    copy->indices = (*this)(host->indices);
    copy->position = (*this)(host->position);
    return copy;
  }
  Codes operator()(const Codes& host) {
    Codes copy = host;
    copy.rowOffsets = (*this)(host.rowOffsets);
    copy.features = (*this)(host.features);
    copy.preActivations = (*this)(host.preActivations);
    copy.values = (*this)(host.values);
    copy.subset = (*this)(host.subset);
    copy.featureOrder = std::make_shared<FeatureOrder>();
    // Once a kernel has built the order, the host's codes have it as well, as those of other backends do.
    back_.push_back(
        [this, order = copy.featureOrder, onHost = host.featureOrder, dSae = host.dSae, entries = host.entries] {
          if (!order->offsets || onHost->offsets) return;
          onHost->offsets = downloaded(order->offsets, sizeof(uint64_t) * size_t(dSae + 1));
          onHost->entries = downloaded(order->entries, sizeof(uint32_t) * size_t(entries));
          onHost->rows = downloaded(order->rows, sizeof(uint32_t) * size_t(entries));
        });
    return copy;
  }

  Block downloaded(const Block& device, size_t bytes) {
    if (!device) return {};
    const Block copy = host_.allocate(bytes);
    device_.download(device, copy.as<void>(), bytes);
    return copy;
  }

  void finish() {
    for (const auto& copy : back_) copy();
  }

 private:
  Allocator& device_;
  Allocator& host_;
  std::vector<Block> blocks_;
  std::vector<std::function<void()>> back_;
};

class MirroredKernels final : public Kernels {
 public:
  MirroredKernels(std::shared_ptr<cuda::OpenContext> open, Allocator& host)
      : device_(open), kernels_(cuda::makeCudaKernels(std::move(open), device_)), host_(host) {}

  std::string description() const override { return kernels_->description(); }

  // ---- SAE
  Codes encode(Matrix<const float> x, Matrix<const float> encoder, Vector<const float> bias,
               const Selection& selection) override {
    return made(selection.subset, [&](Copies& copy) {
      Selection copied = selection;
      copied.thresholds = copy(selection.thresholds);
      copied.subset = copy(selection.subset);
      return kernels_->encode(copy(x), copy(encoder), copy(bias), copied);
    });
  }
  void decode(const Codes& codes, Matrix<const float> decoder, Vector<const float> bias, Matrix<const float> target,
              Matrix<float> out, double* squaredError) override {
    run([&](Copies& copy) {
      kernels_->decode(copy(codes), copy(decoder), copy(bias), copy(target), copy(out), copy(squaredError));
    });
  }
  void decodeGradient(const Codes& codes, Matrix<const float> decoder, Matrix<const float> dOutput, double scale,
                      Vector<const float> perFeature, double featureScale, bool every, float* out) override {
    run([&](Copies& copy) {
      kernels_->decodeGradient(copy(codes), copy(decoder), copy(dOutput), scale, copy(perFeature), featureScale, every,
                               copy.of(out, codes.entries));
    });
  }
  void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out) override {
    run([&](Copies& copy) {
      kernels_->featureSums(copy(codes), copy.of(coefficients, codes.entries), scale, copy(out));
    });
  }
  void featureCounts(const Codes& codes, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->featureCounts(copy(codes), copy(out)); });
  }
  void densify(const Codes& codes, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->densify(copy(codes), copy(out)); });
  }
  Codes selectTop(const Codes& codes, int64_t k) override {
    return made(codes.subset, [&](Copies& copy) { return kernels_->selectTop(copy(codes), k); });
  }
  void updateRunningMinimum(const Codes& codes, double decay, Vector<double> state, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->updateRunningMinimum(copy(codes), decay, copy(state), copy(out)); });
  }
  void entryProduct(const Codes& codes, const EntryProduct& product, float* out) override {
    run([&](Copies& copy) {
      EntryProduct copied = product;
      copied.a = copy.of(product.a, codes.entries);
      copied.b = copy.of(product.b, codes.entries);
      copied.perFeature = copy(product.perFeature);
      copied.plus = copy.of(product.plus, codes.entries);
      kernels_->entryProduct(copy(codes), copied, copy.of(out, codes.entries));
    });
  }
  void power(Vector<const float> x, double exponent, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->power(copy(x), exponent, copy(out)); });
  }
  Codes featureRange(const Codes& codes, int64_t from, int64_t to) override {
    return made(codes.subset, [&](Copies& copy) { return kernels_->featureRange(copy(codes), from, to); });
  }
  void windowSums(const Codes& codes, Vector<const float> thresholds, double bandwidth, const float* coefficients,
                  double scale, Vector<float> out) override {
    run([&](Copies& copy) {
      kernels_->windowSums(copy(codes), copy(thresholds), bandwidth, copy.of(coefficients, codes.entries), scale,
                           copy(out));
    });
  }
  Block rowGradientSquaredNorm(const RowGradient& gradient, Matrix<const float> weights, double* squaredNorm) override {
    Block kept;
    run([&](Copies& copy) {
      const GradientCopy copied(gradient, copy);
      kept = copy.downloaded(kernels_->rowGradientSquaredNorm(copied.gradient(), copy(weights), copy(squaredNorm)),
                             sizeof(float) * size_t(weights.rows * weights.columns));
    });
    return kept;
  }
  void rowGradient(const RowGradient& gradient, Matrix<const float> weights, Matrix<float> out) override {
    run([&](Copies& copy) {
      const GradientCopy copied(gradient, copy);
      kernels_->rowGradient(copied.gradient(), copy(weights), copy(out));
    });
  }
  void stepRows(const RowGradient& gradient, Matrix<float> weights, Matrix<float> m, Matrix<float> v,
                const AdamStep& adam, const Clip& clip, bool unitNorm, const Block& kept) override {
    run([&](Copies& copy) {
      const GradientCopy copied(gradient, copy);
      kernels_->stepRows(copied.gradient(), copy(weights), copy(m), copy(v), adam,
                         {copy.of(clip.squaredNorm, 1), clip.maxNorm}, unitNorm, copy(kept));
    });
  }
  void stepVector(Vector<const float> gradient, Vector<float> weights, Vector<float> m, Vector<float> v,
                  const AdamStep& adam, const Clip& clip) override {
    run([&](Copies& copy) {
      kernels_->stepVector(copy(gradient), copy(weights), copy(m), copy(v), adam,
                           {copy.of(clip.squaredNorm, 1), clip.maxNorm});
    });
  }
  void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired) override {
    run([&](Copies& copy) { kernels_->updateTokensSinceFired(copy(codes), tokens, copy(tokensSinceFired)); });
  }
  std::shared_ptr<const FeatureSet> featuresNotFiredFor(Vector<const double> tokensSinceFired,
                                                        double threshold) override {
    auto result = std::make_shared<FeatureSet>();
    run([&](Copies& copy) {
      *result = *kernels_->featuresNotFiredFor(copy(tokensSinceFired), threshold);
      result->indices = copy.downloaded(result->indices, sizeof(uint32_t) * size_t(result->count));
      result->position = copy.downloaded(result->position, sizeof(uint32_t) * size_t(result->dSae));
    });
    return result;
  }

  // ---- Dense vectors and matrices
  void fill(Vector<float> out, float value) override {
    run([&](Copies& copy) { kernels_->fill(copy(out), value); });
  }
  void add(Vector<const float> a, Vector<const float> b, double scale, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->add(copy(a), copy(b), scale, copy(out)); });
  }
  void scale(Vector<const float> a, double factor, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->scale(copy(a), factor, copy(out)); });
  }
  void addRow(Matrix<const float> a, Vector<const float> row, double scale, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->addRow(copy(a), copy(row), scale, copy(out)); });
  }
  void scaleRows(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->scaleRows(copy(a), copy(factors), copy(out)); });
  }
  void multiply(Vector<const float> a, Vector<const float> b, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->multiply(copy(a), copy(b), copy(out)); });
  }
  void divide(Vector<const float> a, Vector<const float> b, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->divide(copy(a), copy(b), copy(out)); });
  }
  void scaleColumns(Matrix<const float> a, Vector<const float> factors, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->scaleColumns(copy(a), copy(factors), copy(out)); });
  }
  void affineRows(Matrix<const float> a, Vector<const float> factors, Vector<const float> shifts,
                  Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->affineRows(copy(a), copy(factors), copy(shifts), copy(out)); });
  }
  void standardiseRows(Matrix<const float> x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                       Vector<float> standardDeviation) override {
    run([&](Copies& copy) {
      kernels_->standardiseRows(copy(x), epsilon, copy(normalized), copy(mean), copy(standardDeviation));
    });
  }
  void rowNorms(Matrix<const float> a, const std::vector<int64_t>& blockWidths, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->rowNorms(copy(a), blockWidths, copy(out)); });
  }
  void normaliseRows(Matrix<const float> a, double norm, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->normaliseRows(copy(a), norm, copy(out)); });
  }
  void columnSums(Matrix<const float> a, double scale, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->columnSums(copy(a), scale, copy(out)); });
  }
  void weightedRowSum(Vector<const float> weights, Matrix<const float> a, double scale, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->weightedRowSum(copy(weights), copy(a), scale, copy(out)); });
  }
  void gatherRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->gatherRows(copy(a), copy(rows), copy(out)); });
  }
  void scatterRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->scatterRows(copy(a), copy(rows), copy(out)); });
  }
  void copyColumns(Matrix<const float> a, int64_t aColumn, Matrix<float> out, int64_t outColumn,
                   int64_t columns) override {
    run([&](Copies& copy) { kernels_->copyColumns(copy(a), aColumn, copy(out), outColumn, columns); });
  }
  void copyRows(Matrix<const float> a, Matrix<float> out, int64_t firstRow) override {
    run([&](Copies& copy) { kernels_->copyRows(copy(a), copy(out), firstRow); });
  }
  void transpose(Matrix<const float> a, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->transpose(copy(a), copy(out)); });
  }
  void dot(Vector<const float> a, Vector<const float> b, double* sum) override {
    run([&](Copies& copy) { kernels_->dot(copy(a), copy(b), copy(sum)); });
  }
  void sum(Vector<const float> a, double* sum) override {
    run([&](Copies& copy) { kernels_->sum(copy(a), copy(sum)); });
  }
  void accumulateColumnSums(Matrix<const float> a, Vector<double> sums) override {
    run([&](Copies& copy) { kernels_->accumulateColumnSums(copy(a), copy(sums)); });
  }
  void sumOfRowCosines(Matrix<const float> a, Matrix<const float> b, double* sum) override {
    run([&](Copies& copy) { kernels_->sumOfRowCosines(copy(a), copy(b), copy(sum)); });
  }
  void convert(const void* source, int sourceBits, bool brain, Vector<float> out) override {
    run([&](Copies& copy) {
      const void* copied = copy.of(static_cast<const char*>(source), sourceBits / 8 * out.size);
      kernels_->convert(copied, sourceBits, brain, copy(out));
    });
  }
  void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->randomUniform(seed, offset, low, high, copy(out)); });
  }
  void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->randomNormal(seed, offset, standardDeviation, copy(out)); });
  }
  void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) override {
    run([&](Copies& copy) { kernels_->randomPermutation(seed, offset, copy(out)); });
  }
  Codes drawFeatures(const FeatureDistribution& features, int64_t rows, uint64_t seed, uint64_t offset) override {
    return made(nullptr, [&](Copies& copy) {
      FeatureDistribution copied = features;
      copied.probabilities = copy(features.probabilities);
      copied.factors = copy(features.factors);
      copied.means = copy(features.means);
      copied.deviations = copy(features.deviations);
      return kernels_->drawFeatures(copied, rows, seed, offset);
    });
  }

  // ---- Transformers
  void linear(Matrix<const float> x, Matrix<const float> weights, Vector<const float> bias, Activation activation,
              Matrix<const float> residual, bool exact, Matrix<float> out) override {
    run([&](Copies& copy) {
      kernels_->linear(copy(x), copy(weights), copy(bias), activation, copy(residual), exact, copy(out));
    });
  }
  void activation(Vector<const float> x, Activation activation, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->activation(copy(x), activation, copy(out)); });
  }
  void layerNorm(Matrix<const float> x, Vector<const float> weight, Vector<const float> bias, double epsilon,
                 Matrix<float> out, Matrix<float> normalized, Vector<float> scale) override {
    run([&](Copies& copy) {
      kernels_->layerNorm(copy(x), copy(weight), copy(bias), epsilon, copy(out), copy(normalized), copy(scale));
    });
  }
  void attention(const Attention& operands, float* out) override {
    run([&](Copies& copy) { kernels_->attention(copied(operands, copy), copy.of(out, queryElements(operands))); });
  }
  void attentionScores(const Attention& operands, float* scores) override {
    run([&](Copies& copy) {
      kernels_->attentionScores(copied(operands, copy), copy.of(scores, patternElements(operands)));
    });
  }
  void softmaxRows(Matrix<const float> scores, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->softmaxRows(copy(scores), copy(out)); });
  }
  void attentionMix(const Attention& operands, const float* pattern, float* out) override {
    run([&](Copies& copy) {
      kernels_->attentionMix(copied(operands, copy), copy.of(pattern, patternElements(operands)),
                             copy.of(out, queryElements(operands)));
    });
  }
  void appendPositions(const float* rows, int64_t batch, int64_t positions, int64_t width, int64_t capacity,
                       int64_t first, float* cache) override {
    run([&](Copies& copy) {
      kernels_->appendPositions(copy.of(rows, batch * positions * width), batch, positions, width, capacity, first,
                                copy.of(cache, batch * capacity * width));
    });
  }
  void logSoftmax(Matrix<const float> logits, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->logSoftmax(copy(logits), copy(out)); });
  }
  void crossEntropy(Matrix<const float> logits, Vector<const int32_t> targets, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->crossEntropy(copy(logits), copy(targets), copy(out)); });
  }
  void klDivergence(Matrix<const float> p, Matrix<const float> q, Vector<float> out) override {
    run([&](Copies& copy) { kernels_->klDivergence(copy(p), copy(q), copy(out)); });
  }
  void sample(Matrix<const float> logits, const Sampling& sampling, Vector<int32_t> out) override {
    run([&](Copies& copy) { kernels_->sample(copy(logits), sampling, copy(out)); });
  }
  void rmsNorm(Matrix<const float> x, Vector<const float> weight, double epsilon, Matrix<float> out,
               Matrix<float> normalized, Vector<float> scale) override {
    run([&](Copies& copy) {
      kernels_->rmsNorm(copy(x), copy(weight), epsilon, copy(out), copy(normalized), copy(scale));
    });
  }
  void rotate(Matrix<const float> x, int64_t heads, Matrix<const float> cosines, Matrix<const float> sines,
              bool interleaved, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->rotate(copy(x), heads, copy(cosines), copy(sines), interleaved, copy(out)); });
  }
  void gatedActivation(Vector<const float> gate, Vector<const float> x, Activation activation,
                       Vector<float> out) override {
    run([&](Copies& copy) { kernels_->gatedActivation(copy(gate), copy(x), activation, copy(out)); });
  }
  void linearBrain(Matrix<const float> x, Matrix<const uint16_t> weights, Vector<const float> bias,
                   Activation activation, Matrix<const float> residual, Matrix<float> out) override {
    run([&](Copies& copy) {
      kernels_->linearBrain(copy(x), copy(weights), copy(bias), activation, copy(residual), copy(out));
    });
  }
  void gatherBrainRows(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out) override {
    run([&](Copies& copy) { kernels_->gatherBrainRows(copy(a), copy(rows), copy(out)); });
  }

 private:
  class GradientCopy {
   public:
    GradientCopy(const RowGradient& host, Copies& copy) : gradient_(host) {
      codes_.reserve(host.terms.size());
      for (EntryTerm& term : gradient_.terms) {
        codes_.push_back(copy(*term.codes));
        term.coefficients = copy.of(term.coefficients, term.codes->entries);
        term.codes = &codes_.back();
        term.dense = copy(term.dense);
      }
      gradient_.rowCoefficients = copy(host.rowCoefficients);
    }
    const RowGradient& gradient() const { return gradient_; }

   private:
    RowGradient gradient_;
    std::vector<Codes> codes_;
  };

  template <class Work>
  void run(const Work& work) {
    Copies copies(device_, host_);
    work(copies);
    kernels_->settle();
    copies.finish();
  }
  template <class Work>
  Codes made(std::shared_ptr<const FeatureSet> subset, const Work& work) {
    Codes codes;
    run([&](Copies& copies) {
      codes = work(copies);
      const size_t bytes = 4 * size_t(codes.entries);
      codes.rowOffsets = copies.downloaded(codes.rowOffsets, sizeof(uint64_t) * size_t(codes.rows + 1));
      codes.features = copies.downloaded(codes.features, bytes);
      codes.preActivations = copies.downloaded(codes.preActivations, bytes);
      codes.values = copies.downloaded(codes.values, bytes);
    });
    codes.subset = std::move(subset);
    codes.featureOrder = std::make_shared<FeatureOrder>();
    return codes;
  }
  static int64_t queryElements(const Attention& a) { return a.batch * a.queryPositions * a.heads * a.dHead; }
  static int64_t patternElements(const Attention& a) { return a.batch * a.heads * a.queryPositions * a.keyPositions; }
  static Attention copied(const Attention& host, Copies& copy) {
    Attention device = host;
    const int64_t cached = host.batch * host.keyCapacity * host.keyHeads * host.dHead;
    device.queries = copy.of(host.queries, queryElements(host));
    device.keys = copy.of(host.keys, cached);
    device.values = copy.of(host.values, cached);
    device.firstKeys = copy.of(host.firstKeys, host.batch);
    return device;
  }

  cuda::CudaAllocator device_;
  std::unique_ptr<Kernels> kernels_;
  Allocator& host_;
};

}  // namespace

std::unique_ptr<Kernels> makeMirroredKernels(std::shared_ptr<cuda::OpenContext> open, Allocator& host) {
  return std::make_unique<MirroredKernels>(std::move(open), host);
}

}  // namespace monosem::test
