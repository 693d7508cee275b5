// torch.optim.Adam's update of one stretch of parameters.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// The constants of one step, in PyTorch's grouping:
//
//   m += (1 - beta1) * (g - m);   v = beta2 * v + (1 - beta2) * g^2
//   weights -= learningRate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
class AdamUpdate {
 public:
  explicit AdamUpdate(const AdamStep& step)
      : firstRate_(broadcast(float(1 - step.beta1))),
        secondDecay_(broadcast(float(step.beta2))),
        secondRate_(broadcast(float(1 - step.beta2))),
        stepSize_(broadcast(float(step.learningRate / (1 - std::pow(step.beta1, double(step.step)))))),
        rootScale_(broadcast(float(1 / std::sqrt(1 - std::pow(step.beta2, double(step.step)))))),
        epsilon_(broadcast(float(step.epsilon))) {}

  // One vector: returns the new weights, updates the moments.
  Floats operator()(Floats gradient, Floats weights, Floats& m, Floats& v) const {
    m = fma(firstRate_, gradient - m, m);
    v = fma(secondRate_ * gradient, gradient, secondDecay_ * v);
    return negatedFma(stepSize_, m / fma(sqrt(v), rootScale_, epsilon_), weights);
  }

 private:
  Floats firstRate_, secondDecay_, secondRate_, stepSize_, rootScale_, epsilon_;
};

// What every gradient is multiplied by.
inline float clipFactor(const Clip& clip) {
  if (!clip.squaredNorm) return 1;
  const double norm = std::sqrt(*clip.squaredNorm);
  if (!std::isfinite(norm))
    throw EngineError(ErrorCode::nonFinite,
                      std::string("the norm of the gradient is ") + (std::isnan(norm) ? "NaN" : "infinite"));
  return float(std::min(1.0, clip.maxNorm / (norm + 1e-6)));
}

inline void stepVector(Vector<const float> gradient, Vector<float> weights, Vector<float> m, Vector<float> v,
                       const AdamStep& adam, const Clip& clip, ThreadPool& pool) {
  const AdamUpdate update(adam);
  const Floats factor = broadcast(clipFactor(clip));
  pool.forEachRange(weights.size, 4096, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      Floats newM = loadLanes(m.data + i, lanes), newV = loadLanes(v.data + i, lanes);
      const Floats newWeights =
          update(factor * loadLanes(gradient.data + i, lanes), loadLanes(weights.data + i, lanes), newM, newV);
      storeLanes(m.data + i, newM, lanes);
      storeLanes(v.data + i, newV, lanes);
      storeLanes(weights.data + i, newWeights, lanes);
    });
  });
}

}  // namespace monosem::MONOSEM_ISA
