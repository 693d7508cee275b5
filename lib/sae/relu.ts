/**
 * ReLU SAE with an L1 penalty: f = ReLU(z), loss = |x̂ - x|² + λ Σ f_i |W_dec,i|.
 *
 * Bricken et al. 2023, "Towards Monosemanticity" (unit-norm decoder, penalty λ Σ f_i), and Anthropic's Circuits Updates
 * of April 2024 (free decoder; the penalty is weighted by the decoder norms, and its gradient reaches the decoder).
 * The penalty's exponent can be annealed (pAnnealing.ts), dead latents revived by ghost gradients (ghostGradients.ts).
 */
import { z } from "zod";
import type { Tensor } from "../engine/tensor.js";
import { type Architecture, defineArchitecture, nonNegative } from "./architecture.js";
import { ghostTerm } from "./ghostGradients.js";
import { decoderNorms, dotProduct, reconstruct } from "./lossTerms.js";
import {
  annealCoefficient,
  checkPAnnealing,
  exponentAt,
  type NormedEncoding,
  type PAnnealingOptions,
  type Penalised,
  type PenaltyStep,
  pAnnealingOptions,
  pAnnealingState,
  powerPenalty,
} from "./pAnnealing.js";

export interface ReluTrainingOptions extends PAnnealingOptions {
  /** λ, which multiplies the sum over latents, averaged over tokens. */
  readonly l1Coefficient: number;
  /** Adds the loss "ghost", whose gradient revives dead latents. */
  readonly ghostGradients: boolean;
}

export const relu: Architecture<"relu", object, ReluTrainingOptions> = defineArchitecture<
  "relu",
  object,
  ReluTrainingOptions,
  "encoderBias",
  keyof typeof pAnnealingState,
  NormedEncoding
>({
  name: "relu",
  options: {},
  trainingOptions: {
    l1Coefficient: nonNegative.describe(
      "Weight of the sparsity penalty; with normalised activations 1 to 10 is usual.",
    ),
    ...pAnnealingOptions,
    ghostGradients: z
      .boolean()
      .default(false)
      .describe("Add the loss `ghost`, whose gradient revives dead latents (historic)."),
  },
  parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
  state: pAnnealingState,
  initialDecoderNorm: 0.1, // as SAELens: the penalty is weighted by the norms, so they should start small
  decoderUnitNorm: false,
  saved: { name: "standard" },
  check: checkPAnnealing,

  encode: ({ kernels, parameters: p }, input) =>
    kernels.encode(input, p.encoder, p.encoderBias, { select: "positive" }),

  encodeForTraining(step) {
    const { kernels, parameters: p, input } = step;
    const codes = step.keep(kernels.encode(input, p.encoder, p.encoderBias, { select: "positive" }));
    return { codes, norms: decoderNorms(step) };
  },

  gradients(step) {
    const { codes, options, tokens } = step;
    const lambda = options.l1Coefficient * step.sparsityScale;
    const { residual, squaredError } = reconstruct(step);
    const exponent = exponentAt(options, step.step);
    const penalised =
      exponent === 1 ? l1Penalty(step, residual, lambda) : powerPenalty(step, residual, lambda, exponent);
    const ghost = options.ghostGradients ? ghostTerm(step, residual) : undefined;
    return {
      losses: {
        reconstruction: { sum: squaredError, scale: 1 / tokens },
        sparsity: penalised.sparsity,
        ...ghost?.losses,
      },
      residual,
      decoderPaths: [
        { codes, dOutput: residual, scale: 2 / tokens, throughDecoderBias: true },
        ...(ghost?.decoderPaths ?? []),
      ],
      // dLoss/dz is dLoss/df where z > 0
      encoderPaths: [
        { codes, dPreActivations: penalised.dValues, bias: "encoderBias" },
        ...(ghost?.encoderPaths ?? []),
      ],
      ...(step.decoderUnitNorm ? {} : { decoderNormPenalty: penalised.decoderNormPenalty }),
    };
  },

  afterStep: annealCoefficient,
});

/** λ Σ f_i |W_dec,i|, and dLoss/df = 2/N (x̂ - x) . W_dec,i + λ/N |W_dec,i|. */
function l1Penalty(step: PenaltyStep, residual: Tensor, lambda: number): Penalised {
  const { kernels, parameters: p, codes, encoded, tokens, keep } = step;
  const { norms } = encoded;
  const scale = lambda / tokens;
  const activationSums = keep(kernels.featureSums(codes));
  return {
    sparsity: { sum: dotProduct(step, activationSums, norms), scale },
    dValues: keep(
      kernels.decodeGradient(codes, p.decoder, residual, { scale: 2 / tokens, perFeature: norms, featureScale: scale }),
    ),
    decoderNormPenalty: { coefficients: activationSums, scale },
  };
}
