#include "training.h"

#include <algorithm>
#include <cmath>

#include "normal_quantile.h"

namespace monosem::bench {
namespace {

constexpr double sparsityCoefficient = 1e-3;

// What all steps have in common: the batch, and the tokens since each latent fired.
class Common : public Training {
 public:
  Common(Gpu& gpu, const Shape& shape, double encoderBias)
      : gpu(gpu),
        kernels(gpu.kernels()),
        shape(shape),
        sae(gpu, shape, encoderBias),
        x(gpu.normal(shape.rows, shape.dIn, 1)),
        scale(2.0 / double(shape.rows)),
        tokensSinceFired_(gpu.memory().allocateArray<double>(shape.dSae)) {
    setTokensSinceFired(std::vector<double>(size_t(shape.dSae), 0.0));
  }

 protected:
  Vector<double> tokensSinceFired() const { return {tokensSinceFired_.as<double>(), shape.dSae}; }
  void setTokensSinceFired(const std::vector<double>& tokens) {
    gpu.memory().upload(tokens.data(), tokensSinceFired_, sizeof(double) * tokens.size());
  }
  void record(const Codes& codes) {
    kernels.updateTokensSinceFired(codes, codes.rows, tokensSinceFired());
    entries_ = codes.entries;
  }
  Codes encode(const Tensor& input, const Tensor& bias, const Selection& selection) {
    return kernels.encode(input, sae["encoder"], bias, selection);
  }
  Tensor decode(const Codes& codes, Vector<const float> bias, const Tensor& target) {
    const Block squaredError = gpu.zeroSum();
    Tensor residual = gpu.empty(target.rows, target.columns);
    kernels.decode(codes, sae["decoder"], bias, target, residual, squaredError.as<double>());
    return residual;
  }
  Block decodeGradient(const Codes& codes, const Tensor& residual, double factor, Vector<const float> perFeature = {},
                       double featureScale = 0, bool every = false) {
    Block gradient = gpu.entryValues(codes);
    kernels.decodeGradient(codes, sae["decoder"], residual, factor, perFeature, featureScale, every,
                           gradient.as<float>());
    return gradient;
  }
  Tensor decoderNorms() {
    Tensor norms = gpu.empty(shape.dSae);
    kernels.rowNorms(sae["decoder"], {}, norms);
    return norms;
  }
  Tensor featureSums(const Codes& codes, const Block& coefficients = {}, double factor = 1) {
    Tensor sums = gpu.empty(shape.dSae);
    kernels.featureSums(codes, coefficients.as<const float>(), factor, sums);
    return sums;
  }
  void addDot(const Tensor& a, const Tensor& b) {
    const Block sum = gpu.zeroSum();
    kernels.dot(a, b, sum.as<double>());
  }
  Block product(const Codes& codes, const Block& a, const Block& b, Vector<const float> perFeature, const Block& plus,
                double factor = 1) {
    EntryProduct product;
    product.a = a.as<const float>();
    product.b = b.as<const float>();
    product.perFeature = perFeature;
    product.scale = factor;
    product.plus = plus.as<const float>();
    Block out = gpu.entryValues(codes);
    kernels.entryProduct(codes, product, out.as<float>());
    return out;
  }

  // The parts of every step with one path through `entries()` codes; `more` are those of the architecture.
  Phases commonPhases(const Phases& more) const {
    const Counting count(shape, entries_, gpu.rounds());
    const bool kept = sae.keepsGradients();
    Phases phases{count.addRow(),       count.round(),          count.round(),          count.encode(),
                  count.featureOrder(), count.decode(),         count.decodeGradient(), count.featureSums(),
                  count.columnSums(),   count.weightedRowSum(), count.rowNorm(kept),    count.rowNorm(kept),
                  count.rowStep(kept),  count.rowStep(kept),    count.stepVector()};
    phases.insert(phases.end(), more.begin(), more.end());
    return phases;
  }

  Gpu& gpu;
  Kernels& kernels;
  const Shape shape;
  Sae sae;
  const Tensor x;
  const double scale;  // 2 / tokens

 private:
  Block tokensSinceFired_;
};

// lib/sae/topk.ts
class TopK final : public Common {
 public:
  TopK(Gpu& gpu, const Shape& shape, int64_t k, int64_t deadLatents, bool unitDecoderRows)
      : Common(gpu, shape, 0), k_(k), deadLatents_(deadLatents) {
    sae.setUnitDecoderRows(unitDecoderRows);
    if (deadLatents == 0) return;
    // Encoder rows so short that their latents are never among the k largest, though half of them are positive; and
    // dead from the start, as the others never are, though some do not fire in the batch that every step sees.
    std::vector<float> lengths(size_t(shape.dSae), 1.0f);
    std::vector<double> tokensSinceFired(size_t(shape.dSae), 0.0);
    for (int64_t i = 0; i < deadLatents; ++i) {
      const size_t latent = size_t(i * (shape.dSae / deadLatents));
      lengths[latent] = 0.1f;
      tokensSinceFired[latent] = deadAfterTokens;
    }
    kernels.scaleRows(sae["encoder"], gpu.of(lengths), sae["encoder"]);
    setTokensSinceFired(tokensSinceFired);
  }

  void step() override {
    const Tensor input = sae.input(x);
    Codes codes = encodeTopK(sae, input, k_);
    record(codes);
    const Reconstruction main = reconstruct(sae, std::move(codes), x);

    Gradients gradients;
    gradients.decoderPaths.push_back({&main.codes, &main.residual, scale, true});
    gradients.encoderPaths.push_back({&main.codes, main.dPreActivations, true});
    Codes auxCodes;
    Tensor auxResidual;
    if (deadLatents_ > 0) {
      constexpr double coefficient = 1.0 / 32;
      const std::shared_ptr<const FeatureSet> dead =
          kernels.featuresNotFiredFor({tokensSinceFired().data, shape.dSae}, deadAfterTokens);
      Tensor error = gpu.empty(x.rows, x.columns);
      kernels.scale(main.residual, -1, error);
      Selection selection;
      selection.select = Select::topk;
      selection.k = deadLatents_ / 2;
      selection.subset = dead;
      auxCodes = encode(input, sae["encoderBias"], selection);
      auxResidual = decode(auxCodes, {}, error);
      gradients.decoderPaths.push_back({&auxCodes, &auxResidual, scale * coefficient, false});
      gradients.encoderPaths.push_back({&auxCodes, decodeGradient(auxCodes, auxResidual, scale * coefficient), true});
      auxEntries_ = auxCodes.entries;
    }
    sae.step(gradients, input);
  }

  Phases phases() const override {
    if (deadLatents_ == 0) return commonPhases({});
    // The dead latents as a small dense SAE: a product each for the encoder, the decoder, its gradient, and for both
    // weight gradients, which are made once more for the step where they are not kept.
    const Shape dead{shape.rows, shape.dIn, deadLatents_};
    return commonPhases(Phases(sae.keepsGradients() ? 5 : 7, Counting(dead, auxEntries_, gpu.rounds()).product()));
  }

 private:
  static constexpr double deadAfterTokens = 1e12;  // more than any number of steps sees

  int64_t k_, deadLatents_;
  int64_t auxEntries_ = 0;
};

// lib/sae/relu.ts
class Relu final : public Common {
 public:
  Relu(Gpu& gpu, const Shape& shape, double l0) : Common(gpu, shape, -normalQuantile(l0 / double(shape.dSae))) {}

  void step() override {
    const double lambda = sparsityCoefficient / double(shape.rows);
    const Tensor input = sae.input(x);
    Selection selection;
    selection.select = Select::positive;
    const Codes codes = encode(input, sae["encoderBias"], selection);
    const Tensor norms = decoderNorms();
    record(codes);
    const Tensor residual = decode(codes, sae["decoderBias"], x);
    const Tensor activationSums = featureSums(codes);
    addDot(activationSums, norms);
    Gradients gradients;
    gradients.decoderPaths.push_back({&codes, &residual, scale, true});
    gradients.encoderPaths.push_back({&codes, decodeGradient(codes, residual, scale, norms, lambda), true});
    gradients.rowCoefficients = activationSums;
    gradients.rowScale = lambda;
    sae.step(gradients, input);
  }

  Phases phases() const override {
    const Counting count(shape, entries_, gpu.rounds());
    return commonPhases({count.rowNorms(), count.featureSums()});
  }
};

// lib/sae/jumprelu.ts, with the quadratic sparsity loss
class JumpRelu final : public Common {
 public:
  JumpRelu(Gpu& gpu, const Shape& shape, double l0) : Common(gpu, shape, 0), l0_(l0) {
    sae.add("threshold", normalQuantile(l0 / double(shape.dSae)));
  }

  void step() override {
    constexpr double bandwidth = 0.05;
    const double tokens = double(shape.rows);
    const Tensor input = sae.input(x);
    const Tensor& threshold = sae["threshold"];
    Selection selection;
    selection.select = Select::above;
    selection.thresholds = threshold;
    selection.margin = bandwidth / 2;
    const Codes codes = encode(input, sae["encoderBias"], selection);
    record(codes);
    decoderNorms();
    const Tensor residual = decode(codes, sae["decoderBias"], x);

    // (L0 / targetL0 - 1)^2
    Tensor counts = gpu.empty(shape.dSae);
    kernels.featureCounts(codes, counts);
    Tensor ratio = gpu.empty(1), excess = gpu.empty(1);
    kernels.columnSums({counts.block.as<const float>(), shape.dSae, 1}, 1 / (tokens * l0_), ratio);
    kernels.add(ratio, gpu.filled(1, 1), -1, excess);
    addDot(excess, excess);
    Tensor slope = gpu.empty(shape.dSae), dSparsity = gpu.empty(shape.dSae);
    kernels.windowSums(codes, threshold, bandwidth, nullptr, -2 * sparsityCoefficient / (l0_ * tokens * bandwidth),
                       slope);
    kernels.scaleRows(slope, excess, dSparsity);

    const Block dValues = decodeGradient(codes, residual, scale, {}, 0, true);
    const Block active = gpu.entryValues(codes);
    kernels.activation({codes.value(), codes.entries}, Activation::heaviside, {active.as<float>(), codes.entries});
    const Block dPreActivations = product(codes, dValues, active, {}, {});
    Tensor windowed = gpu.empty(shape.dSae), dThreshold = gpu.empty(shape.dSae), total = gpu.empty(shape.dSae);
    kernels.windowSums(codes, threshold, bandwidth, dValues.as<const float>(), -1 / bandwidth, windowed);
    kernels.multiply(threshold, windowed, dThreshold);
    kernels.add(dThreshold, dSparsity, 1, total);

    Gradients gradients;
    gradients.decoderPaths.push_back({&codes, &residual, scale, true});
    gradients.encoderPaths.push_back({&codes, dPreActivations, true});
    gradients.vectors["threshold"] = total;
    sae.step(gradients, input);
    Tensor clamped = gpu.empty(shape.dSae);
    kernels.activation(threshold, Activation::relu, clamped);
    kernels.scale(clamped, 1, threshold);
  }

  Phases phases() const override {
    const Counting count(shape, entries_, gpu.rounds());
    return commonPhases({count.rowNorms(), count.featureSums(), count.featureSums(), count.featureSums(),
                         count.entryProduct(1), count.entryProduct(2), count.stepVector()});
  }

 private:
  double l0_;
};

// lib/sae/gated.ts
class Gated final : public Common {
 public:
  Gated(Gpu& gpu, const Shape& shape, double l0) : Common(gpu, shape, -normalQuantile(l0 / double(shape.dSae))) {
    sae.add("magnitudeScale", 0);
    sae.add("magnitudeBias", 0);
  }

  void step() override {
    const double lambda = sparsityCoefficient / double(shape.rows);
    const Tensor input = sae.input(x);
    Selection selection;
    selection.select = Select::positive;
    Tensor& gateBias = sae["encoderBias"];
    const Codes gate = encode(input, gateBias, selection);
    const Block negativeBias = product(gate, {}, {}, gateBias, {}, -1);
    const Block z = product(gate, gate.preActivations, {}, {}, negativeBias);
    Tensor magnitudeScale = gpu.empty(shape.dSae);
    kernels.activation(sae["magnitudeScale"], Activation::exp, magnitudeScale);
    const Block magnitudeBias = product(gate, {}, {}, sae["magnitudeBias"], {});
    const Block magnitudes = product(gate, z, {}, magnitudeScale, magnitudeBias);
    const Block values = gpu.entryValues(gate);
    kernels.activation({magnitudes.as<const float>(), gate.entries}, Activation::relu,
                       {values.as<float>(), gate.entries});
    const Codes codes = gate.withValues(magnitudes, values);
    record(codes);

    const Tensor norms = decoderNorms();
    const Tensor gateSums = featureSums(gate);
    const Tensor residual = decode(codes, sae["decoderBias"], x);
    const Block dMagnitude = decodeGradient(codes, residual, scale);
    const Tensor gateResidual = decode(gate, sae["decoderBias"], x);
    const Block dGate = decodeGradient(gate, gateResidual, scale, norms, lambda);
    const Block dProduct = product(gate, dMagnitude, {}, magnitudeScale, dGate);
    const Block dExponent = product(gate, dMagnitude, z, magnitudeScale, {});
    addDot(gateSums, norms);

    Gradients gradients;
    gradients.decoderPaths.push_back({&codes, &residual, scale, true});
    gradients.encoderPaths.push_back({&gate, dProduct, false});
    gradients.vectors["encoderBias"] = featureSums(gate, dGate);
    gradients.vectors["magnitudeScale"] = featureSums(gate, dExponent);
    gradients.vectors["magnitudeBias"] = featureSums(gate, dMagnitude);
    gradients.rowCoefficients = gateSums;
    gradients.rowScale = lambda;
    sae.step(gradients, input);
  }

  Phases phases() const override {
    const Counting count(shape, entries_, gpu.rounds());
    return commonPhases({count.rowNorms(), count.decode(), count.decodeGradient(), count.featureSums(),
                         count.featureSums(), count.featureSums(), count.featureSums(), count.entryProduct(0),
                         count.entryProduct(2), count.entryProduct(0), count.entryProduct(2), count.entryProduct(1),
                         count.entryProduct(2), count.entryProduct(2), count.stepVector(), count.stepVector()});
  }
};

}  // namespace

std::unique_ptr<Training> topkTraining(Gpu& gpu, const Shape& shape, int64_t k, int64_t deadLatents,
                                       bool unitDecoderRows) {
  return std::make_unique<TopK>(gpu, shape, k, deadLatents, unitDecoderRows);
}
std::unique_ptr<Training> reluTraining(Gpu& gpu, const Shape& shape, double l0) {
  return std::make_unique<Relu>(gpu, shape, l0);
}
std::unique_ptr<Training> jumpReluTraining(Gpu& gpu, const Shape& shape, double l0) {
  return std::make_unique<JumpRelu>(gpu, shape, l0);
}
std::unique_ptr<Training> gatedTraining(Gpu& gpu, const Shape& shape, double l0) {
  return std::make_unique<Gated>(gpu, shape, l0);
}

}  // namespace monosem::bench
