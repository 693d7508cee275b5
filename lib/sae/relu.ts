/**
 * ReLU SAE with an L1 penalty: f = ReLU(z), loss = |x̂ - x|² + λ Σ f_i |W_dec,i|.
 *
 * Bricken et al. 2023, "Towards Monosemanticity" (unit-norm decoder, penalty λ Σ f_i), and Anthropic's Circuits Updates
 * of April 2024 (free decoder; the penalty is weighted by the decoder norms, and its gradient reaches the decoder).
 */
import { type Architecture, defineArchitecture, nonNegative } from "./architecture.js";
import { decoderNorms, dotProduct, reconstruct } from "./lossTerms.js";

/** λ (`l1Coefficient`) multiplies the sum over latents, averaged over tokens. */
export const relu: Architecture<"relu", object, { readonly l1Coefficient: number }> = defineArchitecture({
  name: "relu",
  options: {},
  trainingOptions: { l1Coefficient: nonNegative },
  parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
  initialDecoderNorm: 0.1, // as SAELens: the penalty is weighted by the norms, so they should start small
  decoderUnitNorm: false,
  saved: { name: "standard" },

  encode: ({ kernels, parameters: p }, input) =>
    kernels.encode(input, p.encoder, p.encoderBias, { select: "positive" }),

  gradients(step) {
    const { kernels, parameters: p, codes, tokens } = step;
    const lambda = step.options.l1Coefficient * step.sparsityScale;
    const norms = decoderNorms(step);
    const activationSums = step.keep(kernels.featureSums(codes));

    // dLoss/df = 2/N (x̂ - x) . W_dec,i + λ/N |W_dec,i|, and dLoss/dz is the same where z > 0
    const { residual, squaredError } = reconstruct(step);
    const dPreActivations = step.keep(
      kernels.decodeGradient(codes, p.decoder, residual, {
        scale: 2 / tokens,
        perFeature: norms,
        featureScale: lambda / tokens,
      }),
    );

    return {
      losses: {
        reconstruction: { sum: squaredError, scale: 1 / tokens },
        sparsity: { sum: dotProduct(step, activationSums, norms), scale: lambda / tokens },
      },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale: 2 / tokens, throughDecoderBias: true }],
      encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }],
      ...(step.decoderUnitNorm ? {} : { decoderNormPenalty: { coefficients: activationSums, scale: lambda / tokens } }),
    };
  },
});
