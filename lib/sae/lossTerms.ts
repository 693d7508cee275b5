/** The pieces that the losses of several architectures share. */
import type { Tensor } from "../engine/tensor.js";
import type { GradientStep } from "./architecture.js";

/** x̂ - x of the step's own codes, x̂ = f W_dec + b_dec, and Σ |x̂ - x|² over the batch. */
export function reconstruct(step: GradientStep): { residual: Tensor; squaredError: Tensor } {
  const { kernels, parameters: p, codes, x } = step;
  const squaredError = zeroSum(step);
  const residual = step.keep(kernels.decode(codes, p.decoder, { bias: p.decoderBias, target: x, squaredError }));
  return { residual, squaredError };
}

/** An f64 [1] at zero, for kernels that add to it. */
export function zeroSum(step: GradientStep): Tensor {
  return step.keep(step.device.zeros([1], "f64"));
}

/** Σ a_i b_i, f64 [1]. */
export function dotProduct(step: GradientStep, a: Tensor, b: Tensor): Tensor {
  const sum = zeroSum(step);
  step.kernels.dot(a, b, sum);
  return sum;
}

/** f32 [size] of ones. */
export function ones(step: GradientStep, size: number): Tensor {
  const tensor = step.keep(step.device.empty([size]));
  step.kernels.fill(tensor, 1);
  return tensor;
}
