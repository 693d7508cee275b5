/**
 * TopK SAE: keep the k largest pre-activations of every token, then ReLU; loss = |x̂ - x|² + α |e - ê|².
 *
 * Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv:2406.04093: section 2.3, AuxK in appendix A.2.
 * Equal pre-activations are taken in the order of their latents.
 */

import type { Tensor } from "../engine/tensor.js";
import {
  type Architecture,
  type DecodePath,
  defineArchitecture,
  type GradientStep,
  type Loss,
  naturalNumber,
  nonNegative,
  positiveInteger,
} from "./architecture.js";
import { reconstruct, zeroSum } from "./lossTerms.js";

export interface TopkOptions {
  /** Latents per token. */
  readonly k: number;
}

export interface TopkTrainingOptions {
  /** Dead latents per token that model the residual; 0 turns AuxK off. */
  readonly auxK: number;
  /** α */
  readonly auxCoefficient: number;
}

export const topk: Architecture<"topk", TopkOptions, TopkTrainingOptions> = defineArchitecture({
  name: "topk",
  options: { k: positiveInteger },
  trainingOptions: { auxK: naturalNumber.default(0), auxCoefficient: nonNegative.default(1 / 32) },
  initialDecoderNorm: 1,

  encode: ({ kernels, parameters: p, options }, input) =>
    kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k: options.k }),

  gradients(step) {
    const { kernels, parameters: p, options, codes, tokens } = step;
    const { residual, squaredError } = reconstruct(step);
    const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, residual, { scale: 2 / tokens }));

    const losses: Record<string, Loss> = { reconstruction: { sum: squaredError, scale: 1 / tokens } };
    const paths: DecodePath[] = [
      { codes, dOutput: residual, scale: 2 / tokens, dPreActivations, throughDecoderBias: true },
    ];
    if (options.auxK > 0 && options.auxCoefficient > 0) {
      const aux = deadLatentTerm(step, residual, options);
      losses.aux = aux.loss;
      paths.push(...aux.paths);
    }
    return { losses, residual, paths };
  },
});

/**
 * AuxK: the error e = x - x̂, taken as a constant, is modelled by the dead latents alone: ê = g W_dec without b_dec, g the
 * ReLU of the min(auxK, dead) largest pre-activations among dead latents. Loss: auxCoefficient times the mean over
 * tokens of |e - ê|². The gradient reaches encoder, encoder bias and decoder, and b_dec only where it is subtracted
 * from the encoder's input.
 *
 * Plain sums, so α has the meaning of the reconstruction loss's scale. The peers differ: OpenAI's code and
 * dictionary_learning divide by the variance of e, SAELens multiplies by dead / auxK and skips g's ReLU, and sparsify's
 * gradient does not reach the encoder.
 */
function deadLatentTerm(
  step: GradientStep,
  residual: Tensor,
  { auxK, auxCoefficient }: TopkTrainingOptions,
): { loss: Loss; paths: DecodePath[] } {
  const { kernels, parameters: p, deadLatents, tokens } = step;
  const squaredError = zeroSum(step);
  if (deadLatents === undefined) return { loss: { sum: squaredError, scale: 0 }, paths: [] };

  const error = step.keep(kernels.scale(residual, -1));
  const codes = step.keep(
    kernels.encode(step.input, p.encoder, p.encoderBias, { select: "topk", k: auxK, features: deadLatents }),
  );
  const auxResidual = step.keep(kernels.decode(codes, p.decoder, { target: error, squaredError }));
  const scale = (2 * auxCoefficient) / tokens;
  const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, auxResidual, { scale }));
  return {
    loss: { sum: squaredError, scale: auxCoefficient / tokens, latents: deadLatents },
    paths: [{ codes, dOutput: auxResidual, scale, dPreActivations, throughDecoderBias: false }],
  };
}
