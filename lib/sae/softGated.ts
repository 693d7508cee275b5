/**
 * Soft-gated SAE: latents whose magnitude is multiplied by a smooth gate with an encoder of its own.
 *
 *     z = W_enc (x - b_dec) + b_enc         g = W_gate (x - b_dec) + b_gate
 *     f = sigmoid(g) ReLU(z)                x̂ = f W_dec + b_dec
 *
 *     loss = |x̂ - x|²  +  λ Σ sigmoid(g_i) |W_dec,i|
 *
 * A form that is found in teaching material under the name of the Gated SAE, which it is not (see gated.ts): a sigmoid is
 * never 0, so the penalty only makes latents small. The codes are about half full and the gate has a gradient
 * everywhere; both run on the engine's dense path, with two encoder products a step and memory of several
 * [tokens, dSae] matrices. Use it to compare, or at small sizes.
 */
import type { Codes, EntryValues } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import { type Architecture, defineArchitecture, type Encoded, type Forward, nonNegative } from "./architecture.js";
import { decoderNorms, dotProduct, reconstruct } from "./lossTerms.js";

type SoftGatedParameter = "encoderBias" | "gateEncoder" | "gateBias";

/** All of them hold every latent of every token. */
interface SoftGatedLatents extends Encoded {
  /** ReLU(z) */
  readonly magnitude: Codes;
  /** g */
  readonly gate: Codes;
  /** sigmoid(g) */
  readonly opening: EntryValues;
}

/** λ (`l1Coefficient`) multiplies the sum over latents, averaged over tokens. */
export const softGated: Architecture<"soft-gated", object, { readonly l1Coefficient: number }> = defineArchitecture<
  "soft-gated",
  object,
  { readonly l1Coefficient: number },
  SoftGatedParameter,
  never,
  SoftGatedLatents
>({
  name: "soft-gated",
  options: {},
  trainingOptions: { l1Coefficient: nonNegative.describe("Weight of the sparsity penalty on the gate.") },
  parameters: {
    encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" },
    gateEncoder: { shape: "encoder", initial: "encoder", savedAs: "W_gate", inPreActivationScale: false },
    gateBias: { shape: "latents", initial: 0, savedAs: "b_gate", inPreActivationScale: false },
  },
  initialDecoderNorm: 0.1, // the penalty is weighted by the norms, so they should start small
  decoderUnitNorm: true,
  saved: { name: "soft-gated" },

  encode(forward, input) {
    const { codes, magnitude, gate, opening } = softGatedLatents(forward, input);
    for (const handle of [magnitude, gate, opening]) handle.dispose();
    return codes;
  },

  gatedPreActivations({ kernels, parameters: p }, input) {
    return {
      preActivations: kernels.linear(input, p.encoder, { bias: p.encoderBias }),
      gate: kernels.linear(input, p.gateEncoder, { bias: p.gateBias, activation: "sigmoid" }),
    };
  },

  encodeForTraining(step) {
    const latents = softGatedLatents(step, step.input);
    for (const handle of Object.values(latents)) step.keep(handle);
    return latents;
  },

  gradients(step) {
    const { kernels, parameters: p, tokens, keep } = step;
    const { codes, magnitude, gate, opening } = step.encoded;
    const lambda = step.options.l1Coefficient * step.sparsityScale;
    const norms = decoderNorms(step);
    const openingSums = keep(kernels.featureSums(codes, { coefficients: opening }));

    // dLoss/df = 2/N (x̂ - x) . W_dec,i where f > 0, and dLoss/dz = dLoss/df sigmoid(g)
    const { residual, squaredError } = reconstruct(step);
    const scale = 2 / tokens;
    using dValues = kernels.decodeGradient(codes, p.decoder, residual, { scale });
    const dPreActivations = keep(kernels.entryProduct(codes, { a: dValues, b: opening }));

    // dLoss/dg = (dLoss/df ReLU(z) + λ/N |W_dec,i|) sigmoid(g) (1 - sigmoid(g))
    using penalty = kernels.entryProduct(codes, { perFeature: norms, scale: lambda / tokens });
    using magnitudes = kernels.entries(magnitude, "values");
    using dOpening = kernels.entryProduct(codes, { a: dValues, b: magnitudes, plus: penalty });
    using slope = kernels.entryProduct(codes, { a: opening, b: opening, scale: -1, plus: opening });
    const dGate = keep(kernels.entryProduct(codes, { a: dOpening, b: slope }));

    return {
      losses: {
        reconstruction: { sum: squaredError, scale: 1 / tokens },
        sparsity: { sum: dotProduct(step, openingSums, norms), scale: lambda / tokens },
      },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }],
      encoderPaths: [
        { codes, dPreActivations, bias: "encoderBias" },
        { codes: gate, dPreActivations: dGate, rows: "gateEncoder", bias: "gateBias" },
      ],
      ...(step.decoderUnitNorm ? {} : { decoderNormPenalty: { coefficients: openingSums, scale: lambda / tokens } }),
    };
  },
});

function softGatedLatents({ kernels, parameters: p }: Forward<SoftGatedParameter>, input: Tensor): SoftGatedLatents {
  const magnitude = kernels.encode(input, p.encoder, p.encoderBias, { select: "all" });
  const gate = kernels.encode(input, p.gateEncoder, p.gateBias, { select: "all" });
  using gates = kernels.entries(gate, "preActivations");
  const opening = kernels.entryFunction(gates, "sigmoid");
  using magnitudes = kernels.entries(magnitude, "values");
  using values = kernels.entryProduct(magnitude, { a: magnitudes, b: opening });
  const codes = kernels.withValues(magnitude, { values });
  return { codes, magnitude, gate, opening };
}
