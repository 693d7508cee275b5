/**
 * Ghost gradients, a way to revive dead latents that AuxK and resampling have replaced; kept to reproduce older SAEs.
 *
 * Dead latents alone, with an exponential in place of the ReLU, are to model the residual r = x - x̂ (a constant here):
 *
 *     g = α_t Σ_dead exp(z_i) W_dec,i      α_t = |r| / (1e-6 + 2 |Σ_dead exp(z_i) W_dec,i|)   per token: half of |r|
 *     ghost = mean over tokens and dimensions of w (g - r)²,       w = r² / ((g - r)² + 1e-6)    per element
 *
 * α and w are constants for the gradient, so that the term's value is about the mean of r², while its slope pulls g
 * towards r. No decoder bias is in g.
 *
 * Jermyn and Templeton, Anthropic's Circuits Updates of January 2024; in the form of the code that was trained with
 * (SAELens before version 4). Its scale is kept as it was: a mean over dimensions, where all other losses are sums.
 */
import type { Tensor } from "../engine/tensor.js";
import type { GradientStep, Gradients } from "./architecture.js";
import { dotProduct, zeroSum } from "./lossTerms.js";

const epsilon = 1e-6;

/** @param residual x̂ - target, [tokens, dOut] */
export function ghostTerm(
  step: GradientStep<"encoderBias">,
  residual: Tensor,
): Pick<Gradients, "losses" | "decoderPaths" | "encoderPaths"> {
  const { kernels, parameters: p, tokens, keep } = step;
  const deadLatents = step.deadLatents();
  if (deadLatents === undefined) {
    return { losses: { ghost: { sum: zeroSum(step), scale: 0 } }, decoderPaths: [], encoderPaths: [] };
  }
  const dead = keep(kernels.encode(step.input, p.encoder, p.encoderBias, { select: "all", features: deadLatents }));
  const exponentials = keep(kernels.entryFunction(keep(kernels.entries(dead, "preActivations")), "exp"));
  const codes = keep(kernels.withValues(dead, { values: exponentials }));
  const output = keep(kernels.decode(codes, p.decoder));

  const outputNorms = keep(kernels.rowNorms(output));
  const halves = keep(
    kernels.divide(keep(kernels.rowNorms(residual)), plusEpsilon(step, keep(kernels.scale(outputNorms, 2)))),
  );
  const difference = keep(kernels.add(keep(kernels.scaleRows(output, halves)), residual)); // g - r
  const weights = keep(
    kernels.divide(
      keep(kernels.multiply(residual, residual)),
      plusEpsilon(step, keep(kernels.multiply(difference, difference))),
    ),
  );
  const weighted = keep(kernels.multiply(weights, difference));

  // dLoss/d(Σ exp(z_i) W_dec,i) = 2 / (N dOut) α w (g - r), and d exp(z)/dz = exp(z)
  const elements = tokens * residual.shape[1]!;
  const dOutput = keep(kernels.scaleRows(weighted, halves));
  const scale = 2 / elements;
  const dValues = keep(kernels.decodeGradient(codes, p.decoder, dOutput, { scale }));
  const dPreActivations = keep(kernels.entryProduct(codes, { a: dValues, b: exponentials }));
  return {
    losses: {
      ghost: { sum: dotProduct(step, weighted, difference), scale: 1 / elements, latents: deadLatents },
    },
    decoderPaths: [{ codes, dOutput, scale, throughDecoderBias: false }],
    encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }],
  };
}

/** a + 1e-6 */
function plusEpsilon({ kernels, device, keep }: GradientStep, a: Tensor): Tensor {
  const addend = keep(device.empty(a.shape));
  kernels.fill(addend, epsilon);
  return keep(kernels.add(a, addend));
}
