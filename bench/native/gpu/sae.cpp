#include <cmath>

#include "training.h"

namespace monosem::bench {
namespace {

// A learning rate at which a long run on one batch stays what it is.
constexpr double learningRate = 1e-6;
constexpr double maxGradientNorm = 1;

EntryTerm term(const Codes& codes, const Block& coefficients, const Tensor& dense, double scale) {
  EntryTerm result;
  result.codes = &codes;
  result.coefficients = coefficients.as<const float>();
  result.dense = dense;
  result.scale = scale;
  return result;
}

}  // namespace

Sae::Sae(Gpu& gpu, const Shape& shape, double encoderBias) : gpu_(gpu), shape_(shape) {
  const Tensor encoder = gpu.normal(shape.dSae, shape.dIn, 1 / std::sqrt(double(shape.dIn)));
  trained_["decoder"] = withMoments(gpu.copyOf(encoder));
  trained_["encoder"] = withMoments(encoder);
  trained_["decoderBias"] = withMoments(gpu.filled(shape.dIn, 0));
  add("encoderBias", encoderBias);
}

Trained Sae::withMoments(Tensor weights) {
  const auto zeros = [&] { return gpu_.filled(weights.rows, weights.columns, 0); };
  return {weights, zeros(), zeros()};
}

Tensor Sae::input(const Tensor& x) {
  Tensor input = gpu_.empty(x.rows, x.columns);
  gpu_.kernels().addRow(x, (*this)["decoderBias"], -1, input);
  return input;
}

void Sae::step(const Gradients& gradients, const Tensor& input) {
  Kernels& kernels = gpu_.kernels();
  std::map<std::string, std::vector<Tensor>> terms;
  for (const auto& [name, vector] : gradients.vectors) terms[name].push_back(vector);

  RowGradient encoder, decoder;
  std::vector<Tensor> encoderSums;
  for (const EncoderPath& path : gradients.encoderPaths) {
    Tensor sums = gpu_.empty(shape_.dSae);
    kernels.featureSums(*path.codes, path.dPreActivations.as<const float>(), 1, sums);
    encoder.terms.push_back(term(*path.codes, path.dPreActivations, input, 1));
    encoderSums.push_back(sums);
    if (path.toEncoderBias) terms["encoderBias"].push_back(sums);
  }
  for (const DecoderPath& path : gradients.decoderPaths) {
    decoder.terms.push_back(term(*path.codes, {}, *path.dOutput, path.scale));
    if (!path.throughDecoderBias) continue;
    Tensor sums = gpu_.empty(shape_.dIn);
    kernels.columnSums(*path.dOutput, path.scale, sums);
    terms["decoderBias"].push_back(sums);
  }
  const auto sum = [&](const std::vector<Tensor>& tensors) {
    Tensor total = tensors[0];
    for (size_t i = 1; i < tensors.size(); ++i) {
      Tensor next = gpu_.empty(total.columns);
      kernels.add(total, tensors[i], 1, next);
      total = next;
    }
    return total;
  };
  Tensor throughInput = gpu_.empty(shape_.dIn);
  kernels.weightedRowSum(sum(encoderSums), (*this)["encoder"], -1, throughInput);
  terms["decoderBias"].push_back(throughInput);
  decoder.rowCoefficients = gradients.rowCoefficients;
  decoder.rowScale = gradients.rowScale;
  decoder.projectOutRow = unitDecoderRows_;

  std::map<std::string, Tensor> vectors;
  for (const auto& [name, tensors] : terms) vectors[name] = sum(tensors);

  const Block squaredNorm = gpu_.zeroSum();
  double* const norm = squaredNorm.as<double>();
  const Block keptEncoder = kernels.rowGradientSquaredNorm(encoder, (*this)["encoder"], norm);
  const Block keptDecoder = kernels.rowGradientSquaredNorm(decoder, (*this)["decoder"], norm);
  keepsGradients_ = bool(keptDecoder);
  for (const auto& [name, vector] : vectors) kernels.dot(vector, vector, norm);

  AdamStep adam;
  adam.learningRate = learningRate;
  adam.step = ++step_;
  const Clip clip{norm, maxGradientNorm};
  const auto stepRows = [&](const char* name, const RowGradient& gradient, bool unitNorm, const Block& kept) {
    const Trained& trained = trained_.at(name);
    kernels.stepRows(gradient, trained.weights, trained.m, trained.v, adam, clip, unitNorm, kept);
  };
  stepRows("encoder", encoder, false, keptEncoder);
  stepRows("decoder", decoder, unitDecoderRows_, keptDecoder);
  for (const auto& [name, vector] : vectors) {
    const Trained& trained = trained_.at(name);
    kernels.stepVector(vector, trained.weights, trained.m, trained.v, adam, clip);
  }
}

Codes encodeTopK(Sae& sae, const Tensor& input, int64_t k) {
  Selection selection;
  selection.select = Select::topk;
  selection.k = k;
  return sae.gpu().kernels().encode(input, sae["encoder"], sae["encoderBias"], selection);
}

Reconstruction reconstruct(Sae& sae, Codes codes, const Tensor& target) {
  Gpu& gpu = sae.gpu();
  const Block squaredError = gpu.zeroSum();
  Reconstruction result{std::move(codes), gpu.empty(target.rows, target.columns), {}};
  gpu.kernels().decode(result.codes, sae["decoder"], sae["decoderBias"], target, result.residual,
                       squaredError.as<double>());
  result.dPreActivations = gpu.entryValues(result.codes);
  gpu.kernels().decodeGradient(result.codes, sae["decoder"], result.residual, 2.0 / double(target.rows), {}, 0, false,
                               result.dPreActivations.as<float>());
  return result;
}

RowGradient encoderGradient(const Reconstruction& reconstruction, const Tensor& input) {
  RowGradient gradient;
  gradient.terms.push_back(term(reconstruction.codes, reconstruction.dPreActivations, input, 1));
  return gradient;
}

RowGradient decoderGradient(const Reconstruction& reconstruction) {
  RowGradient gradient;
  gradient.terms.push_back(
      term(reconstruction.codes, {}, reconstruction.residual, 2.0 / double(reconstruction.residual.rows)));
  return gradient;
}

}  // namespace monosem::bench
