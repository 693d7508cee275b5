// Bindings of the kernels of sparse autoencoders. Arguments in the order in which they are read.
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "addon/call.h"
#include "addon/exports.h"

namespace monosem {
namespace {

// A selection, whose thresholds and subset exist only when the kernel runs.
class SelectionOperands {
 public:
  // The name of the selection, what belongs to it, then the feature set.
  SelectionOperands(Call& call, int64_t dSae) : name_(call.text("select")) {
    if (name_ == "topk") {
      selection_.select = Select::topk;
      selection_.k = call.integer("k", 1);
      selection_.byMagnitude = call.flag("byMagnitude");
    } else if (name_ == "batchtopk") {
      selection_.select = Select::batchtopk;
      selection_.k = call.integer("k");
    } else if (name_ == "above") {
      selection_.select = Select::above;
      thresholds_ = call.read("thresholds");
      selection_.margin = call.number("margin");
      call.require(thresholds_.size() == dSae, "thresholds must be [dSae]");
    } else if (name_ == "all") {
      selection_.select = Select::all;
    } else {
      call.require(name_ == "positive", "select must be the name of a selection");
    }
    features_ = call.featureSetOptional("features");
    call.require(!features_ || features_->dSae == dSae, "the feature set is of another dSae");
  }

  // For messages: "topk 32".
  std::string text() const {
    const bool counted = selection_.select == Select::topk || selection_.select == Select::batchtopk;
    return name_ + (counted ? " " + std::to_string(selection_.k) : "") +
           (selection_.byMagnitude ? " by magnitude" : "") + (features_ ? ", restricted to a feature set" : "");
  }

  Selection resolve() const {
    Selection selection = selection_;
    selection.thresholds = thresholds_.vector();
    if (features_) selection.subset = features_->set;
    return selection;
  }

 private:
  std::string name_;
  Selection selection_;
  TensorOperand<const float> thresholds_;
  std::shared_ptr<FeatureSetResult> features_;
};

void encode(Call& call) {
  const auto x = call.read("x");
  const auto encoder = call.read("encoder");
  const auto bias = call.read("bias");
  const SelectionOperands selection(call, encoder.rows());
  const auto codes = call.codes("codes", Access::write);
  call.require(x.columns() == encoder.columns(), "x and encoder differ in dIn");
  call.require(bias.size() == encoder.rows() && codes->dSae == encoder.rows(), "encoder, bias, codes differ in dSae");
  call.require(codes->rows == x.rows(), "x and codes differ in rows");
  call.require(encoder.rows() < int64_t(std::numeric_limits<uint32_t>::max()), "dSae is too large");
  call.note(selection.text());
  call.enqueue([=](Kernels& kernels) {
    codes->codes = kernels.encode(x.matrix(), encoder.matrix(), bias.vector(), selection.resolve());
  });
}

void decode(Call& call) {
  const auto codes = call.codes("codes");
  const auto decoder = call.read("decoder");
  const auto bias = call.readOptional("bias");
  const auto target = call.readOptional("target");
  const auto squaredError = call.updateOptional<double>("squaredError");
  const auto out = call.write("out");
  call.require(decoder.rows() == codes->dSae, "codes and decoder differ in dSae");
  call.require(out.rows() == codes->rows && out.columns() == decoder.columns(), "out must be [rows, dOut]");
  call.require(!bias || bias.size() == decoder.columns(), "bias must be [dOut]");
  call.require(!target || target.size() == out.size(), "target must be [rows, dOut]");
  call.require(!squaredError || squaredError.size() == 1, "squaredError must be [1]");
  call.enqueue([=](Kernels& kernels) {
    kernels.decode(codes->codes, decoder.matrix(), bias.vector(), target.matrix(), out.matrix(), squaredError.data());
  });
}

void decodeGradient(Call& call) {
  const auto codes = call.codes("codes");
  const auto decoder = call.read("decoder");
  const auto dOutput = call.read("dOutput");
  const double scale = call.number("scale");
  const auto perFeature = call.readOptional("perFeature");
  const double featureScale = call.number("featureScale");
  const bool every = call.flag("every");
  const auto out = call.writeEntryValues("out", codes);
  call.require(decoder.rows() == codes->dSae, "codes and decoder differ in dSae");
  call.require(dOutput.rows() == codes->rows && dOutput.columns() == decoder.columns(), "dOutput must be [rows, dOut]");
  call.require(!perFeature || perFeature.size() == codes->dSae, "perFeature must be [dSae]");
  call.enqueue([=](Kernels& kernels) {
    kernels.decodeGradient(codes->codes, decoder.matrix(), dOutput.matrix(), scale, perFeature.vector(), featureScale,
                           every, out->block.as<float>());
  });
}

void featureSums(Call& call) {
  const auto codes = call.codes("codes");
  const auto coefficients = call.entryValues("coefficients", codes);
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(out.size() == codes->dSae, "out must be [dSae]");
  call.enqueue([=](Kernels& kernels) { kernels.featureSums(codes->codes, dataOf(coefficients), scale, out.vector()); });
}

void featureCounts(Call& call) {
  const auto codes = call.codes("codes");
  const auto out = call.write("out");
  call.require(out.size() == codes->dSae, "out must be [dSae]");
  call.enqueue([=](Kernels& kernels) { kernels.featureCounts(codes->codes, out.vector()); });
}

void densify(Call& call) {
  const auto codes = call.codes("codes");
  const auto out = call.write("out");
  call.require(out.rows() == codes->rows && out.columns() == codes->dSae, "out must be [rows, dSae]");
  call.enqueue([=](Kernels& kernels) { kernels.densify(codes->codes, out.matrix()); });
}

void selectTop(Call& call) {
  const auto codes = call.codes("codes");
  const int64_t k = call.integer("k");
  const auto out = call.codes("out", Access::write);
  call.require(out->rows == codes->rows && out->dSae == codes->dSae, "out must be of the size of codes");
  call.enqueue([=](Kernels& kernels) { out->codes = kernels.selectTop(codes->codes, k); });
}

void updateRunningMinimum(Call& call) {
  const auto codes = call.codes("codes");
  const double decay = call.number("decay");
  const auto state = call.update<double>("state");
  const auto out = call.update("out");
  call.require(state.size() == 2, "state must be [2]");
  call.enqueue(
      [=](Kernels& kernels) { kernels.updateRunningMinimum(codes->codes, decay, state.vector(), out.vector()); });
}

// The operands of a RowGradient, whose pointers exist only when the kernel runs.
class RowGradientOperands {
 public:
  // The number of terms, (codes, coefficients, dense, scale) for each, then rowCoefficients, rowScale, blockWidths,
  // projectOutRow.
  explicit RowGradientOperands(Call& call) {
    const int64_t count = call.integer("terms");
    for (int64_t i = 0; i < count; ++i) {
      Term term;
      term.codes = call.codes("codes");
      term.coefficients = call.entryValues("coefficients", term.codes);
      term.dense = call.read("dense");
      term.scale = call.number("scale");
      call.require(term.dense.rows() == term.codes->rows, "codes and dense differ in rows");
      terms_.push_back(term);
    }
    rowCoefficients_ = call.readOptional("rowCoefficients");
    rowScale_ = call.number("rowScale");
    blockWidths_ = call.integers("blockWidths", 1);
    projectOutRow_ = call.flag("projectOutRow");
  }

  void requireFits(const Call& call, int64_t rows, int64_t columns) const {
    for (const Term& term : terms_) {
      call.require(term.codes->dSae == rows && term.dense.columns() == columns, "a term is of another size");
    }
    call.require(!rowCoefficients_ || rowCoefficients_.size() == rows, "rowCoefficients must have one per row");
    call.requireBlocks(blockWidths_, columns);
  }

  RowGradient resolve() const {
    RowGradient gradient;
    for (const Term& term : terms_) {
      gradient.terms.push_back({&term.codes->codes, dataOf(term.coefficients), term.dense.matrix(), term.scale});
    }
    gradient.rowCoefficients = rowCoefficients_.vector();
    gradient.rowScale = rowScale_;
    gradient.blockWidths = blockWidths_;
    gradient.projectOutRow = projectOutRow_;
    return gradient;
  }

 private:
  struct Term {
    std::shared_ptr<CodesResult> codes;
    std::shared_ptr<EntryValuesResult> coefficients;
    TensorOperand<const float> dense;
    double scale = 1;
  };
  std::vector<Term> terms_;
  TensorOperand<const float> rowCoefficients_;
  double rowScale_ = 0;
  std::vector<int64_t> blockWidths_;
  bool projectOutRow_ = false;
};

AdamStep readAdam(Call& call) {
  AdamStep adam;
  adam.learningRate = call.number("learningRate");
  adam.beta1 = call.number("beta1");
  adam.beta2 = call.number("beta2");
  adam.epsilon = call.number("epsilon");
  adam.step = call.integer("step", 1);
  return adam;
}

// squaredNorm (or absent), maxNorm.
class ClipOperands {
 public:
  explicit ClipOperands(Call& call)
      : squaredNorm_(call.readOptional<double>("squaredNorm")), maxNorm_(call.number("maxNorm")) {
    call.require(!squaredNorm_ || squaredNorm_.size() == 1, "squaredNorm must be [1]");
  }
  Clip resolve() const { return {squaredNorm_.data(), maxNorm_}; }

 private:
  TensorOperand<const double> squaredNorm_;
  double maxNorm_;
};

// The kept rows of a gradient of that many elements; none where nothing was kept.
Block rowsOf(const std::shared_ptr<KeptGradientResult>& kept, int64_t elements) {
  if (!kept || !kept->rows) return {};
  if (int64_t(kept->rows.size() / sizeof(float)) < elements) {
    throw EngineError(ErrorCode::shapeMismatch, "the kept gradient is of other weights");
  }
  return kept->rows;
}

void rowGradientSquaredNorm(Call& call) {
  const RowGradientOperands gradient(call);
  const auto weights = call.read("weights");
  const auto squaredNorm = call.update<double>("squaredNorm");
  const auto kept = call.keptGradient("kept", Access::write);
  gradient.requireFits(call, weights.rows(), weights.columns());
  call.require(squaredNorm.size() == 1, "squaredNorm must be [1]");
  call.enqueue([=](Kernels& kernels) {
    kept->rows = kernels.rowGradientSquaredNorm(gradient.resolve(), weights.matrix(), squaredNorm.data());
  });
}

void rowGradient(Call& call) {
  const RowGradientOperands gradient(call);
  const auto weights = call.read("weights");
  const auto out = call.write("out");
  gradient.requireFits(call, weights.rows(), weights.columns());
  call.require(out.rows() == weights.rows() && out.columns() == weights.columns(), "out must be as large as weights");
  call.enqueue([=](Kernels& kernels) { kernels.rowGradient(gradient.resolve(), weights.matrix(), out.matrix()); });
}

void stepRows(Call& call) {
  const RowGradientOperands gradient(call);
  const auto weights = call.update("weights");
  const auto m = call.update("m");
  const auto v = call.update("v");
  const AdamStep adam = readAdam(call);
  const ClipOperands clip(call);
  const bool unitNorm = call.flag("unitNorm");
  const auto kept = call.keptGradientOptional("kept");
  gradient.requireFits(call, weights.rows(), weights.columns());
  call.require(m.size() == weights.size() && v.size() == weights.size(), "m and v must be as large as weights");
  call.enqueue([=](Kernels& kernels) {
    const Matrix<float> rows = weights.matrix();
    kernels.stepRows(gradient.resolve(), rows, {m.data(), rows.rows, rows.columns}, {v.data(), rows.rows, rows.columns},
                     adam, clip.resolve(), unitNorm, rowsOf(kept, weights.size()));
  });
}

void stepVector(Call& call) {
  const auto gradient = call.read("gradient");
  const auto weights = call.update("weights");
  const auto m = call.update("m");
  const auto v = call.update("v");
  const AdamStep adam = readAdam(call);
  const ClipOperands clip(call);
  call.require(gradient.size() == weights.size() && m.size() == weights.size() && v.size() == weights.size(),
               "gradient, m and v must be as large as weights");
  call.enqueue([=](Kernels& kernels) {
    kernels.stepVector(gradient.vector(), weights.vector(), m.vector(), v.vector(), adam, clip.resolve());
  });
}

void updateTokensSinceFired(Call& call) {
  const auto codes = call.codes("codes");
  const int64_t tokens = call.integer("tokens");
  const auto tokensSinceFired = call.update<double>("tokensSinceFired");
  call.require(tokensSinceFired.size() == codes->dSae, "tokensSinceFired must be [dSae]");
  call.enqueue(
      [=](Kernels& kernels) { kernels.updateTokensSinceFired(codes->codes, tokens, tokensSinceFired.vector()); });
}

void featuresNotFiredFor(Call& call) {
  const auto tokensSinceFired = call.read<double>("tokensSinceFired");
  const double threshold = call.number("threshold");
  const auto out = call.featureSet("out", Access::write);
  call.require(out->dSae == tokensSinceFired.size(), "the feature set is of another dSae");
  call.enqueue([=](Kernels& kernels) { out->set = kernels.featuresNotFiredFor(tokensSinceFired.vector(), threshold); });
}

constexpr KernelBinding kBindings[] = {
    {"encode", encode},
    {"decode", decode},
    {"decodeGradient", decodeGradient},
    {"featureSums", featureSums},
    {"featureCounts", featureCounts},
    {"densify", densify},
    {"selectTop", selectTop},
    {"updateRunningMinimum", updateRunningMinimum},
    {"rowGradientSquaredNorm", rowGradientSquaredNorm},
    {"rowGradient", rowGradient},
    {"stepRows", stepRows},
    {"stepVector", stepVector},
    {"updateTokensSinceFired", updateTokensSinceFired},
    {"featuresNotFiredFor", featuresNotFiredFor},
};

}  // namespace

void exportSaeKernels(Napi::Env env, Napi::Object exports) {
  exportKernels(env, exports, kBindings);
}

}  // namespace monosem
