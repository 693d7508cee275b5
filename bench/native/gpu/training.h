// Training steps as lib/ makes them: which kernels it calls, in its order, for a step that is not logged, with clipping
// by the global norm; the norms of decoder rows are free unless it says otherwise. See lib/training/saeTraining.ts and
// lib/sae/gradients.ts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "gpu.h"
#include "work.h"

namespace monosem::bench {

struct DecoderPath {
  const Codes* codes;
  const Tensor* dOutput;
  double scale;
  bool throughDecoderBias;
};

struct EncoderPath {
  const Codes* codes;
  Block dPreActivations;
  bool toEncoderBias;
};

// An architecture's gradient, as paths through codes.
struct Gradients {
  std::vector<DecoderPath> decoderPaths;
  std::vector<EncoderPath> encoderPaths;
  std::map<std::string, Tensor> vectors;
  Tensor rowCoefficients;  // of the decoder-norm penalty; absent: none
  double rowScale = 0;
};

struct Trained {
  Tensor weights, m, v;
};

// An SAE and its optimizer; of the two matrices both are [dSae, dIn].
class Sae {
 public:
  // Pre-activations of standard normal activations are standard normal, plus `encoderBias`.
  Sae(Gpu& gpu, const Shape& shape, double encoderBias);

  // One more trained parameter of size dSae.
  void add(const std::string& name, double value) {
    trained_[name] = withMoments(gpu_.filled(shape_.dSae, float(value)));
  }
  // Whether decoder rows are kept at norm 1, as is the default of most architectures.
  void setUnitDecoderRows(bool unit) { unitDecoderRows_ = unit; }
  Tensor& operator[](const std::string& name) { return trained_.at(name).weights; }

  // x - decoder bias
  Tensor input(const Tensor& x);
  // The gradients of all parameters, their norm, and Adam. `input` is what the encoder has seen.
  void step(const Gradients& gradients, const Tensor& input);
  // Whether the matrices' gradients were kept between norm and step, the last time.
  bool keepsGradients() const { return keepsGradients_; }

  Gpu& gpu() { return gpu_; }
  const Shape& shape() const { return shape_; }

 private:
  Trained withMoments(Tensor weights);

  Gpu& gpu_;
  Shape shape_;
  std::map<std::string, Trained> trained_;
  int64_t step_ = 0;
  bool keepsGradients_ = false, unitDecoderRows_ = false;
};

// Codes, residual and the gradients of a TopK step before the optimizer, for timing its kernels by themselves.
struct Reconstruction {
  Codes codes;
  Tensor residual;
  Block dPreActivations;
};
Codes encodeTopK(Sae& sae, const Tensor& input, int64_t k);
Reconstruction reconstruct(Sae& sae, Codes codes, const Tensor& target);
// Of the encoder with `codes`, `dPreActivations` and `input`, and of the decoder with `codes` and `residual`.
RowGradient encoderGradient(const Reconstruction& reconstruction, const Tensor& input);
RowGradient decoderGradient(const Reconstruction& reconstruction);

// A training of one architecture on one batch again and again.
class Training {
 public:
  virtual ~Training() = default;
  virtual void step() = 0;
  // The parts of a step that cost time, and what they must do; known after a step.
  virtual Phases phases() const = 0;
  int64_t entries() const { return entries_; }

 protected:
  int64_t entries_ = 0;  // of the codes in the last step
};

// `l0`: about so many active latents per token. `deadLatents`, with AuxK of half as many: latents that never fire.
std::unique_ptr<Training> topkTraining(Gpu& gpu, const Shape& shape, int64_t k, int64_t deadLatents,
                                       bool unitDecoderRows);
std::unique_ptr<Training> reluTraining(Gpu& gpu, const Shape& shape, double l0);
std::unique_ptr<Training> jumpReluTraining(Gpu& gpu, const Shape& shape, double l0);
std::unique_ptr<Training> gatedTraining(Gpu& gpu, const Shape& shape, double l0);

}  // namespace monosem::bench
