/** The pieces that the losses of several architectures share. */
import type { Tensor } from "../engine/tensor.js";
import {
  type DecoderPath,
  type EncoderPath,
  type GradientStep,
  type Loss,
  naturalNumber,
  nonNegative,
  type OptionShape,
  type TrainingStep,
} from "./architecture.js";

/** x̂ - target of the step's own codes, x̂ = f W_dec + b_dec, and Σ |x̂ - target|² over the batch. */
export function reconstruct(step: GradientStep): { residual: Tensor; squaredError: Tensor } {
  const { kernels, parameters: p, codes, target } = step;
  const squaredError = zeroSum(step);
  const residual = step.keep(kernels.decode(codes, p.decoder, { bias: p.decoderBias, target, squaredError }));
  return { residual, squaredError };
}

/** |W_dec,i| as the penalties weigh it, [dSae]: 1 with unit-norm decoder rows, for a crosscoder Σ_hooks |W_dec,i^hook|. */
export function decoderNorms(step: TrainingStep): Tensor {
  const { kernels, parameters, hookWidths, decoderUnitNorm } = step;
  if (decoderUnitNorm) return ones(step, parameters.decoder.shape[0]!);
  return step.keep(kernels.rowNorms(parameters.decoder, hookWidths === undefined ? {} : { blockWidths: hookWidths }));
}

/** What AuxK needs of an architecture's options; 0 turns it off. */
export interface AuxOptions {
  /** Dead latents per token that model the residual. */
  readonly auxK: number;
  /** α */
  readonly auxCoefficient: number;
}

export const auxOptions: OptionShape<AuxOptions> = {
  auxK: naturalNumber
    .default(0)
    .describe(
      "AuxK: dead latents per token that model the residual, once there are such (see deadAfterTokens), all of them where there are fewer; 0: none.",
    ),
  auxCoefficient: nonNegative.default(1 / 32).describe("Weight of AuxK's loss."),
};

/**
 * AuxK (Gao et al. 2024, appendix A.2): the error e = target - x̂, taken as a constant, is modelled by the dead latents
 * alone: ê = g W_dec without b_dec, g the ReLU of the min(auxK, dead) largest pre-activations among dead latents. Loss:
 * auxCoefficient times the mean over tokens of |e - ê|². The gradient reaches encoder, encoder bias and decoder, and
 * b_dec only where it is subtracted from the encoder's input.
 *
 * Plain sums, so α has the meaning of the reconstruction loss's scale. The peers differ: OpenAI's code and
 * dictionary_learning divide by the variance of e, SAELens multiplies by dead / auxK and skips g's ReLU, and sparsify's
 * gradient does not reach the encoder.
 */
export function deadLatentTerm(
  step: GradientStep<"encoderBias">,
  residual: Tensor,
  { auxK, auxCoefficient }: AuxOptions,
): { losses: Record<string, Loss>; decoderPaths: DecoderPath[]; encoderPaths: EncoderPath[] } {
  if (auxK === 0 || auxCoefficient === 0) return { losses: {}, decoderPaths: [], encoderPaths: [] };
  const { kernels, parameters: p, tokens } = step;
  const deadLatents = step.deadLatents();
  const squaredError = zeroSum(step);
  if (deadLatents === undefined) {
    return { losses: { aux: { sum: squaredError, scale: 0 } }, decoderPaths: [], encoderPaths: [] };
  }

  const error = step.keep(kernels.scale(residual, -1));
  const codes = step.keep(
    kernels.encode(step.input, p.encoder, p.encoderBias, { select: "topk", k: auxK, features: deadLatents }),
  );
  const auxResidual = step.keep(kernels.decode(codes, p.decoder, { target: error, squaredError }));
  const scale = (2 * auxCoefficient) / tokens;
  const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, auxResidual, { scale }));
  return {
    losses: { aux: { sum: squaredError, scale: auxCoefficient / tokens, latents: deadLatents } },
    decoderPaths: [{ codes, dOutput: auxResidual, scale, throughDecoderBias: false }],
    encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }],
  };
}

/** An f64 [1] at zero, for kernels that add to it. */
export function zeroSum(step: TrainingStep): Tensor {
  return step.keep(step.device.zeros([1], "f64"));
}

/** Σ a_i b_i, f64 [1]. */
export function dotProduct(step: TrainingStep, a: Tensor, b: Tensor): Tensor {
  const sum = zeroSum(step);
  step.kernels.dot(a, b, sum);
  return sum;
}

/** f32 [size] of ones. */
export function ones(step: TrainingStep, size: number): Tensor {
  const tensor = step.keep(step.device.empty([size]));
  step.kernels.fill(tensor, 1);
  return tensor;
}
