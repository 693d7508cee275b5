#include "cuda/cuda_kernels.h"

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "cuda/rounded_copies.h"
#include "cuda/written_memory.h"
#include "engine/error.h"

namespace monosem::cuda {
namespace {

// What a call allocates: scratch goes with the call, results are taken out by their address.
class CallMemory {
 public:
  explicit CallMemory(Allocator& allocator)
      : allocator_(allocator), memory_{this, &CallMemory::allocate, &CallMemory::release} {}

  const Memory* memory() const { return &memory_; }
  // The error that made an allocation fail, if one did.
  const std::optional<EngineError>& refusal() const { return refusal_; }
  Block blockOf(const void* address) const {
    for (const Block& block : blocks_)
      if (block.as<const void>() == address) return block;
    return {};
  }

 private:
  static void* allocate(void* owner, size_t bytes) {
    CallMemory& self = *static_cast<CallMemory*>(owner);
    try {
      self.blocks_.push_back(self.allocator_.allocate(bytes));
      return self.blocks_.back().as<void>();
    } catch (const EngineError& error) {
      self.refusal_ = error;
    } catch (const std::bad_alloc&) {
    }
    return nullptr;
  }
  static void release(void* owner, const void* memory) {
    std::vector<Block>& blocks = static_cast<CallMemory*>(owner)->blocks_;
    const auto isThat = [memory](const Block& block) { return block.as<const void>() == memory; };
    blocks.erase(std::remove_if(blocks.begin(), blocks.end(), isThat), blocks.end());
  }

  Allocator& allocator_;
  Memory memory_;
  std::vector<Block> blocks_;
  std::optional<EngineError> refusal_;
};

FeatureSetView viewOf(const FeatureSet* set, int64_t dSae) {
  if (!set) return {nullptr, nullptr, dSae};
  return {set->indices.as<const uint32_t>(), set->position.as<const uint32_t>(), set->count};
}

CodesView viewOf(const Codes& codes) {
  return {codes.rows,      codes.dSae,
          codes.entries,   codes.offsets(),
          codes.feature(), codes.preActivation(),
          codes.value(),   viewOf(codes.subset.get(), codes.dSae)};
}

// Whether making a gradient's rows again for the step costs more than writing and reading them: where a row gathers
// many entries. Those of a subset are so dense that matrix products make their rows, few of them. See worthKeeping in
// cpu/generic/row_gradient.h.
bool worthKeeping(const RowGradient& gradient, int64_t rows) {
  constexpr int64_t entriesPerRow = 6;
  int64_t entries = 0;
  for (const EntryTerm& term : gradient.terms)
    if (!term.codes->subset) entries += term.codes->entries;
  return entries >= entriesPerRow * rows;
}

class CudaKernels final : public Kernels {
 public:
  CudaKernels(std::shared_ptr<OpenContext> open, Allocator& allocator)
      : open_(std::move(open)), api_(open_->api), allocator_(allocator) {
    if (open_->precision != Precision::bfloat16) return;
    auto copies = std::make_shared<RoundedCopies>();
    if (allocator.watch(copies)) copies_ = std::move(copies);
  }

  std::string description() const override { return api_.description(open_->context); }
  uint64_t calls() const override { return calls_; }
  void settle() override {
    uint64_t call = 0;
    const int32_t status = api_.settle(open_->context, &call);
    try {
      open_->check(status);
    } catch (const EngineError& error) {
      throw LateError(error, call);
    }
  }

  // ---- SAE
  Codes encode(Rows x, Rows encoder, Floats bias, const Selection& selection) override {
    const SelectionView view{selection.select,     selection.k,      selection.byMagnitude,
                             selection.thresholds, selection.margin, viewOf(selection.subset.get(), encoder.rows)};
    const Block roundedX = roundedCopyFor(x), roundedEncoder = roundedCopyOf(encoder);
    return make(x.rows, encoder.rows, selection.subset, [&](const auto& run, MadeCodes* made) {
      run(api_.encode, x, roundedX.as<const uint16_t>(), encoder, roundedEncoder.as<const uint16_t>(), bias, view,
          made);
    });
  }
  void decode(const Codes& codes, Rows decoder, Floats bias, Rows target, Matrix<float> out,
              double* squaredError) override {
    const Block rounded = roundedCopyOf(decoder);
    call(api_.decode, viewOf(codes), decoder, rounded.as<const uint16_t>(), bias, target, out, squaredError);
  }
  void decodeGradient(const Codes& codes, Rows decoder, Rows dOutput, double scale, Floats perFeature,
                      double featureScale, bool every, float* out) override {
    const Block rounded = roundedCopyOf(decoder);
    call(api_.decodeGradient, viewOf(codes), decoder, rounded.as<const uint16_t>(), dOutput, scale, perFeature,
         featureScale, every, out);
  }
  void featureSums(const Codes& codes, const float* coefficients, double scale, Vector<float> out) override {
    // Codes of all features have been ordered before in a training step, which counts what fires.
    const FeatureOrderView order = codes.subset ? orderWhereSparse(codes) : orderOf(codes);
    call(api_.featureSums, viewOf(codes), order, coefficients ? coefficients : codes.value(), scale, out);
  }
  void featureCounts(const Codes& codes, Vector<float> out) override {
    call(api_.featureCounts, viewOf(codes), orderOf(codes), out);
  }
  void densify(const Codes& codes, Matrix<float> out) override { call(api_.densify, viewOf(codes), out); }
  Codes selectTop(const Codes& codes, int64_t k) override {
    return make(codes.rows, codes.dSae, codes.subset,
                [&](const auto& run, MadeCodes* made) { run(api_.selectTop, viewOf(codes), k, made); });
  }
  void updateRunningMinimum(const Codes& codes, double decay, Vector<double> state, Vector<float> out) override {
    call(api_.updateRunningMinimum, viewOf(codes), decay, state, out);
  }
  void entryProduct(const Codes& codes, const EntryProduct& product, float* out) override {
    call(api_.entryProduct, viewOf(codes), product, out);
  }
  void power(Floats x, double exponent, Vector<float> out) override { call(api_.power, x, exponent, out); }
  Codes featureRange(const Codes& codes, int64_t from, int64_t to) override {
    return make(codes.rows, codes.dSae, codes.subset,
                [&](const auto& run, MadeCodes* made) { run(api_.featureRange, viewOf(codes), from, to, made); });
  }
  void windowSums(const Codes& codes, Floats thresholds, double bandwidth, const float* coefficients, double scale,
                  Vector<float> out) override {
    call(api_.windowSums, viewOf(codes), orderOf(codes), thresholds, bandwidth, coefficients, scale, out);
  }
  Block rowGradientSquaredNorm(const RowGradient& gradient, Rows weights, double* squaredNorm) override {
    const Block kept = worthKeeping(gradient, weights.rows) ? roomFor<float>(weights) : Block();
    const GradientOperands operands(*this, gradient, weights.columns);
    call(api_.rowGradientSquaredNorm, operands.view(), weights, squaredNorm, kept.as<float>());
    return kept;
  }
  void rowGradient(const RowGradient& gradient, Rows weights, Matrix<float> out) override {
    const GradientOperands operands(*this, gradient, weights.columns);
    call(api_.rowGradient, operands.view(), weights, out);
  }
  void stepRows(const RowGradient& gradient, Matrix<float> weights, Matrix<float> m, Matrix<float> v,
                const AdamStep& adam, const Clip& clip, bool unitNorm, const Block& kept) override {
    // Without a norm to clip by, only the gradient's codes tell whether a failed encode has left them.
    const bool takesKept = kept && clip.squaredNorm;
    const GradientOperands operands(*this, takesKept ? RowGradient() : gradient, weights.columns);
    const Rows stepped{weights.data, weights.rows, weights.columns};
    const Block rounded = roomForRoundedCopy(stepped);
    call(api_.stepRows, operands.view(), weights, rounded.as<uint16_t>(), m, v, adam, clip, unitNorm,
         takesKept ? kept.as<const float>() : nullptr);
    if (rounded) copies_->keep(stepped, rounded);
  }
  void stepVector(Floats gradient, Vector<float> weights, Vector<float> m, Vector<float> v, const AdamStep& adam,
                  const Clip& clip) override {
    call(api_.stepVector, gradient, weights, m, v, adam, clip);
  }
  void updateTokensSinceFired(const Codes& codes, int64_t tokens, Vector<double> tokensSinceFired) override {
    call(api_.updateTokensSinceFired, viewOf(codes), orderOf(codes), tokens, tokensSinceFired);
  }
  std::shared_ptr<const FeatureSet> featuresNotFiredFor(Vector<const double> tokensSinceFired,
                                                        double threshold) override {
    CallMemory memory(allocator_);
    MadeFeatureSet made;
    run(memory, api_.featuresNotFiredFor, tokensSinceFired, threshold, &made);
    auto set = std::make_shared<FeatureSet>();
    set->dSae = tokensSinceFired.size;
    set->count = made.count;
    set->indices = memory.blockOf(made.indices);
    set->position = memory.blockOf(made.position);
    return set;
  }

  // ---- Dense vectors and matrices
  void fill(Vector<float> out, float value) override { call(api_.fill, out, value); }
  void add(Floats a, Floats b, double scale, Vector<float> out) override { call(api_.add, a, b, scale, out); }
  void scale(Floats a, double factor, Vector<float> out) override { call(api_.scale, a, factor, out); }
  void addRow(Rows a, Floats row, double scale, Matrix<float> out) override { call(api_.addRow, a, row, scale, out); }
  void scaleRows(Rows a, Floats factors, Matrix<float> out) override { call(api_.scaleRows, a, factors, out); }
  void multiply(Floats a, Floats b, Vector<float> out) override { call(api_.multiply, a, b, out); }
  void divide(Floats a, Floats b, Vector<float> out) override { call(api_.divide, a, b, out); }
  void scaleColumns(Rows a, Floats factors, Matrix<float> out) override { call(api_.scaleColumns, a, factors, out); }
  void affineRows(Rows a, Floats factors, Floats shifts, Matrix<float> out) override {
    call(api_.affineRows, a, factors, shifts, out);
  }
  void standardiseRows(Rows x, double epsilon, Matrix<float> normalized, Vector<float> mean,
                       Vector<float> standardDeviation) override {
    call(api_.standardiseRows, x, epsilon, normalized, mean, standardDeviation);
  }
  void rowNorms(Rows a, const std::vector<int64_t>& blockWidths, Vector<float> out) override {
    const std::vector<int64_t> widths = blocksOf(blockWidths, a.columns);
    call(api_.rowNorms, a, widths.data(), int64_t(widths.size()), out);
  }
  void normaliseRows(Rows a, double norm, Matrix<float> out) override { call(api_.normaliseRows, a, norm, out); }
  void columnSums(Rows a, double scale, Vector<float> out) override { call(api_.columnSums, a, scale, out); }
  void weightedRowSum(Floats weights, Rows a, double scale, Vector<float> out) override {
    const Block rounded = roundedCopyOf(a);
    call(api_.weightedRowSum, weights, a, rounded.as<const uint16_t>(), scale, out);
  }
  void gatherRows(Rows a, Vector<const int32_t> rows, Matrix<float> out) override {
    call(api_.gatherRows, a, rows, out);
  }
  void scatterRows(Rows a, Vector<const int32_t> rows, Matrix<float> out) override {
    call(api_.scatterRows, a, rows, out);
  }
  void copyColumns(Rows a, int64_t aColumn, Matrix<float> out, int64_t outColumn, int64_t columns) override {
    call(api_.copyColumns, a, aColumn, out, outColumn, columns);
  }
  void copyRows(Rows a, Matrix<float> out, int64_t firstRow) override { call(api_.copyRows, a, out, firstRow); }
  void transpose(Rows a, Matrix<float> out) override { call(api_.transpose, a, out); }
  void dot(Floats a, Floats b, double* sum) override { call(api_.dot, a, b, sum); }
  void sum(Floats a, double* sum) override { call(api_.sum, a, sum); }
  void accumulateColumnSums(Rows a, Vector<double> sums) override { call(api_.accumulateColumnSums, a, sums); }
  void sumOfRowCosines(Rows a, Rows b, double* sum) override { call(api_.sumOfRowCosines, a, b, sum); }
  void convert(const void* source, int sourceBits, bool brain, Vector<float> out) override {
    call(api_.convert, source, int32_t(sourceBits), brain, out);
  }
  void randomUniform(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out) override {
    call(api_.randomUniform, seed, offset, low, high, out);
  }
  void randomNormal(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out) override {
    call(api_.randomNormal, seed, offset, standardDeviation, out);
  }
  void randomPermutation(uint64_t seed, uint64_t offset, Vector<int32_t> out) override {
    call(api_.randomPermutation, seed, offset, out);
  }
  Codes drawFeatures(const FeatureDistribution& features, int64_t rows, uint64_t seed, uint64_t offset) override {
    return make(rows, features.probabilities.size, nullptr,
                [&](const auto& run, MadeCodes* made) { run(api_.drawFeatures, features, rows, seed, offset, made); });
  }

  // ---- Transformers
  void linear(Rows x, Rows weights, Floats bias, Activation activation, Rows residual, bool exact,
              Matrix<float> out) override {
    call(api_.linear, x, weights, bias, activation, residual, exact, out);
  }
  void activation(Floats x, Activation activation, Vector<float> out) override {
    call(api_.activation, x, activation, out);
  }
  void layerNorm(Rows x, Floats weight, Floats bias, double epsilon, Matrix<float> out, Matrix<float> normalized,
                 Vector<float> scale) override {
    call(api_.layerNorm, x, weight, bias, epsilon, out, normalized, scale);
  }
  void attention(const Attention& operands, float* out) override { call(api_.attention, operands, out); }
  void attentionScores(const Attention& operands, float* scores) override {
    call(api_.attentionScores, operands, scores);
  }
  void softmaxRows(Rows scores, Matrix<float> out) override { call(api_.softmaxRows, scores, out); }
  void attentionMix(const Attention& operands, const float* pattern, float* out) override {
    call(api_.attentionMix, operands, pattern, out);
  }
  void appendPositions(const float* rows, int64_t batch, int64_t positions, int64_t width, int64_t capacity,
                       int64_t first, float* cache) override {
    call(api_.appendPositions, rows, batch, positions, width, capacity, first, cache);
  }
  void logSoftmax(Rows logits, Matrix<float> out) override { call(api_.logSoftmax, logits, out); }
  void crossEntropy(Rows logits, Vector<const int32_t> targets, Vector<float> out) override {
    call(api_.crossEntropy, logits, targets, out);
  }
  void klDivergence(Rows p, Rows q, Vector<float> out) override { call(api_.klDivergence, p, q, out); }
  void sample(Rows logits, const Sampling& sampling, Vector<int32_t> out) override {
    call(api_.sample, logits, sampling, out);
  }
  void rmsNorm(Rows x, Floats weight, double epsilon, Matrix<float> out, Matrix<float> normalized,
               Vector<float> scale) override {
    call(api_.rmsNorm, x, weight, epsilon, out, normalized, scale);
  }
  void rotate(Rows x, int64_t heads, Rows cosines, Rows sines, bool interleaved, Matrix<float> out) override {
    call(api_.rotate, x, heads, cosines, sines, interleaved, out);
  }
  void gatedActivation(Floats gate, Floats x, Activation activation, Vector<float> out) override {
    call(api_.gatedActivation, gate, x, activation, out);
  }
  void linearBrain(Rows x, Matrix<const uint16_t> weights, Floats bias, Activation activation, Rows residual,
                   Matrix<float> out) override {
    call(api_.linearBrain, x, weights, bias, activation, residual, out);
  }
  void gatherBrainRows(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out) override {
    call(api_.gatherBrainRows, a, rows, out);
  }

 private:
  template <class... Parameters, class... Arguments>
  void run(CallMemory& memory, int32_t (*entry)(Context*, uint64_t, const Memory*, Parameters...),
           Arguments&&... arguments) {
    if (copies_) noteWritten<std::decay_t<Parameters>...>(arguments...);
    const int32_t status = entry(open_->context, ++calls_, memory.memory(), std::forward<Arguments>(arguments)...);
    if (status != 0 && memory.refusal()) throw *memory.refusal();
    open_->check(status);
  }
  template <class... Parameters, class... Arguments>
  void call(int32_t (*entry)(Context*, uint64_t, const Memory*, Parameters...), Arguments&&... arguments) {
    CallMemory memory(allocator_);
    run(memory, entry, std::forward<Arguments>(arguments)...);
  }

  // Copies of what a kernel with these arguments will write are none any more.
  template <class... Parameters>
  void noteWritten(const Parameters&... arguments) {
    for (const WrittenMemory& written : {writtenBy(arguments)...})
      if (written.bytes > 0) copies_->contentGone(written.begin, written.bytes);
  }

  Block roundedCopyOf(Rows matrix) const { return copies_ ? copies_->of(matrix) : Block(); }
  // The same of activations, of which a copy is made where there is none; empty where they are, or memory is short.
  Block roundedCopyFor(Rows activations) {
    if (!copies_ || activations.rows * activations.columns == 0) return {};
    const Block found = copies_->of(activations);
    if (found) return found;
    const Block made = roomFor<uint16_t>(activations);
    if (!made) return {};
    call(api_.roundToBfloat16, activations, made.as<uint16_t>());
    copies_->keepForNow(activations, made);
    return made;
  }
  // Memory for the copy of weights that are about to change; none where copies are not kept, or memory is short.
  Block roomForRoundedCopy(Rows weights) {
    if (!copies_) return {};
    const Block last = copies_->take(weights);
    return last ? last : roomFor<uint16_t>(weights);
  }

  // New codes: work(run, made) calls the kernel that makes them.
  template <class Work>
  Codes make(int64_t rows, int64_t dSae, std::shared_ptr<const FeatureSet> subset, const Work& work) {
    CallMemory memory(allocator_);
    MadeCodes made;
    work([&](auto entry, auto&&... arguments) { run(memory, entry, std::forward<decltype(arguments)>(arguments)...); },
         &made);
    Codes codes;
    codes.rows = rows;
    codes.dSae = dSae;
    codes.entries = made.entries;
    codes.rowOffsets = memory.blockOf(made.rowOffsets);
    codes.features = memory.blockOf(made.features);
    codes.preActivations = memory.blockOf(made.preActivations);
    codes.values = made.values ? memory.blockOf(made.values) : Block();
    codes.subset = std::move(subset);
    return codes;
  }

  FeatureOrderView orderOf(const Codes& codes) {
    FeatureOrder& order = *codes.featureOrder;
    if (!order.offsets) {
      if (uint64_t(codes.entries) > UINT32_MAX)
        throw EngineError(ErrorCode::unsupported, "A batch of codes holds " + std::to_string(codes.entries) +
                                                      " entries; at most 4294967295 can be ordered by feature. Use a "
                                                      "smaller batch.");
      FeatureOrder made{allocator_.allocateArray<uint64_t>(codes.dSae + 1),
                        allocator_.allocateArray<uint32_t>(codes.entries),
                        allocator_.allocateArray<uint32_t>(codes.entries)};
      call(api_.orderByFeature, viewOf(codes), made.offsets.as<uint64_t>(), made.entries.as<uint32_t>(),
           made.rows.as<uint32_t>());
      order = std::move(made);
    }
    return {order.offsets.as<const uint64_t>(), order.entries.as<const uint32_t>(), order.rows.as<const uint32_t>()};
  }

  // For kernels that take dense codes as a matrix.
  FeatureOrderView orderWhereSparse(const Codes& codes) {
    return api_.areDense(open_->context, viewOf(codes)) ? FeatureOrderView{} : orderOf(codes);
  }

  static std::vector<int64_t> blocksOf(const std::vector<int64_t>& widths, int64_t columns) {
    return widths.empty() ? std::vector<int64_t>{columns} : widths;
  }

  // A gradient as the table takes it.
  class GradientOperands {
   public:
    GradientOperands(CudaKernels& kernels, const RowGradient& gradient, int64_t columns)
        : gradient_(gradient), blockWidths_(blocksOf(gradient.blockWidths, columns)) {
      for (const EntryTerm& term : gradient.terms) {
        rounded_.push_back(kernels.roundedCopyFor(term.dense));
        terms_.push_back({viewOf(*term.codes), kernels.orderWhereSparse(*term.codes),
                          term.coefficients ? term.coefficients : term.codes->value(), term.dense,
                          rounded_.back().as<const uint16_t>(), term.scale});
      }
    }
    RowGradientView view() const {
      return {terms_.data(),       int64_t(terms_.size()),       gradient_.rowCoefficients, gradient_.rowScale,
              blockWidths_.data(), int64_t(blockWidths_.size()), gradient_.projectOutRow};
    }

   private:
    RowGradient gradient_;
    std::vector<int64_t> blockWidths_;
    std::vector<Block> rounded_;  // of the terms' dense operands
    std::vector<EntryTermView> terms_;
  };

  // Room for a matrix of the weights' shape; none where memory is short.
  template <class T>
  Block roomFor(Rows weights) {
    return allocator_.allocateIfRoom(sizeof(T) * size_t(weights.rows * weights.columns));
  }

  std::shared_ptr<OpenContext> open_;
  const Api& api_;
  Allocator& allocator_;
  uint64_t calls_ = 0;
  std::shared_ptr<RoundedCopies> copies_;  // null: none are kept
};

}  // namespace

std::unique_ptr<Kernels> makeCudaKernels(std::shared_ptr<OpenContext> open, Allocator& allocator) {
  return std::make_unique<CudaKernels>(std::move(open), allocator);
}

}  // namespace monosem::cuda
