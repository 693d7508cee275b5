/**
 * JumpReLU SAE: every latent has a threshold θ of its own. With z = W_enc (x - b_dec) + b_enc:
 *
 *     f = z 1[z > θ]             x̂ = f W_dec + b_dec             loss = |x̂ - x|² + λ (sparsity)
 *
 *     sparsity "step"            L0 = Σ 1[z_i > θ_i]
 *              "quadratic"       (L0 / targetL0 - 1)², L0 the mean over the batch
 *              "tanh"            Σ tanh(c f_i |W_dec,i|)
 *
 * Neither jump nor step has a useful slope in θ. Their straight-through gradients, with bandwidth ε and the rectangle
 * K(u) = 1[|u| < 1/2], are those of the expected loss, estimated from the z that fall near θ:
 *
 *     ∂f/∂θ = -(θ/ε) K((z - θ)/ε)          ∂1[z > θ]/∂θ = -(1/ε) K((z - θ)/ε)
 *     ∂f/∂z = 1[z > θ]                     ∂1[z > θ]/∂z = 0
 *
 * So entries within ε/2 below the threshold are selected too: they are inactive, but they have a say in its gradient.
 * Dead latents, which no gradient reaches, can be brought back by the pre-activation loss, whose gradients are true:
 * coefficient * Σ_dead ReLU(θ_i - z_i) |W_dec,i|.
 *
 * Rajamanoharan et al. 2024, "Jumping Ahead", arXiv:2407.14435: jump, estimators and the step penalty. Quadratic to a
 * target: as in dictionary_learning and Gemma Scope 2. Tanh and pre-activation loss: Anthropic's Circuits Updates of
 * January 2025 (there for all latents; here, as in SAELens, for the dead ones).
 *
 * θ itself is the parameter, kept at 0 or above: as exp(log θ), which the paper takes, Adam moves it by a factor of at
 * most 1 + lr a step, so that a small θ hardly ever grows (SAELens had that until 6.48). Where the peers differ:
 * SAELens' quadratic penalty is 2 targetL0 times ours and takes the square per token, so that its minimum also counts
 * how L0 varies from token to token; dictionary_learning takes the window of f instead of z, which leaves out what is
 * below the threshold.
 *
 * With `shifted` the latents are f = ReLU(z - θ), without a jump. f has true gradients then, -1[z > θ] to θ; only the
 * step keeps its estimator. At inference that is a ReLU with bias b_enc - θ: so "step" and "quadratic", which reach θ
 * alone, do little there, since b_enc makes up for whatever they do to θ. "tanh" reaches all parameters.
 */
import { z } from "zod";
import type { EntryValues } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import {
  type Architecture,
  defineArchitecture,
  type Encoded,
  type EncoderPath,
  type Forward,
  type GradientStep,
  type Loss,
  nonNegative,
  positive,
} from "./architecture.js";
import { decoderNorms, dotProduct, ones, reconstruct, zeroSum } from "./lossTerms.js";

export interface JumpReluOptions {
  /** f = ReLU(z - θ) instead of z 1[z > θ]. Default: false. */
  readonly shifted?: boolean | undefined;
}

export interface JumpReluTrainingOptions {
  /** ε, in the scale of the pre-activations. */
  readonly bandwidth: number;
  /** θ at the start. */
  readonly initialThreshold: number;
  readonly sparsityLoss: "quadratic" | "step" | "tanh";
  /** λ */
  readonly l0Coefficient: number;
  /** Active latents per token that "quadratic" aims at; the others do not look at it. */
  readonly targetL0?: number | undefined;
  /** c of "tanh". */
  readonly tanhScale: number;
  /** Of the pre-activation loss of dead latents (Anthropic takes 3e-6); 0 turns it off. */
  readonly preActivationCoefficient: number;
}

type JumpReluParameter = "encoderBias" | "threshold";

/** Codes hold the entries above the thresholds, active, and those up to half a bandwidth below, inactive. */
interface JumpReluEncoded extends Encoded {
  /** Where the codes' pre-activations jump, [dSae]: θ; or 0 where they are shifted by -θ already. */
  readonly thresholds: Tensor;
  /** What was added to the encoder product, [dSae]. */
  readonly bias: Tensor;
}

type Step = GradientStep<JumpReluParameter, never, JumpReluEncoded> & {
  readonly options: JumpReluOptions & JumpReluTrainingOptions;
};

/** What a loss term besides the reconstruction adds to the gradient. */
interface Term {
  readonly losses: Readonly<Record<string, Loss>>;
  /** To f, at every entry of the codes. */
  readonly dValues?: EntryValues;
  readonly encoderPaths?: readonly EncoderPath[];
  /** To θ, [dSae]. */
  readonly dThreshold?: Tensor;
  /** To |W_dec,i|, [dSae]. */
  readonly dNorms?: Tensor;
}

const defaultThreshold = 0.01;

export const jumprelu: Architecture<"jumprelu", JumpReluOptions, JumpReluTrainingOptions> = defineArchitecture<
  "jumprelu",
  JumpReluOptions,
  JumpReluTrainingOptions,
  JumpReluParameter,
  never,
  JumpReluEncoded
>({
  name: "jumprelu",
  options: {
    shifted: z.boolean().default(false).describe("Latents ReLU(z − θ) instead of z where z > θ."),
  },
  trainingOptions: {
    sparsityLoss: z
      .enum(["quadratic", "step", "tanh"])
      .default("quadratic")
      .describe("(L0 / targetL0 − 1)², L0 itself, or Σ tanh(tanhScale f_i ‖W_dec,i‖)."),
    l0Coefficient: nonNegative.describe(
      "Weight of the sparsity loss. For `quadratic` 1 to 10; the larger, the sooner L0 is at its target.",
    ),
    targetL0: positive.optional().describe("Active latents per token that `quadratic` aims at, and needs."),
    bandwidth: positive
      .default(0.05)
      .describe(
        "Width of the window around the threshold from which its gradient is estimated, in the scale of z. With normalised activations and unit-norm decoder rows 0.5, from an initialThreshold of 0.5, is quickest to the target.",
      ),
    initialThreshold: nonNegative.default(defaultThreshold).describe("The thresholds at the start."),
    tanhScale: positive.default(4).describe("Of `tanh`."),
    preActivationCoefficient: nonNegative
      .default(0)
      .describe("Weight of the loss that brings dead latents back by their pre-activations (3e-6 is usual); 0: none."),
  },
  parameters: {
    encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" },
    threshold: {
      shape: "latents",
      initial: ({ initialThreshold = defaultThreshold }) => initialThreshold,
      savedAs: "threshold",
    },
  },
  initialDecoderNorm: 0.1, // as SAELens
  decoderUnitNorm: true, // as the paper; with free rows (SAELens) L0 takes several times as many steps to its target
  saved: { name: "jumprelu", variants: { "shifted-jumprelu": { shifted: true } } },
  check: ({ sparsityLoss, targetL0, dSae }) => {
    if (sparsityLoss === "quadratic" && targetL0 === undefined) {
      return [["targetL0", 'is needed by sparsityLoss "quadratic"']];
    }
    return targetL0 !== undefined && targetL0 > dSae ? [["targetL0", `must be at most dSae (${dSae})`]] : [];
  },

  encode({ kernels, parameters: p, options }, input) {
    if (!options.shifted) {
      return kernels.encode(input, p.encoder, p.encoderBias, { select: "above", thresholds: p.threshold });
    }
    using bias = shiftedBias({ kernels, parameters: p });
    return kernels.encode(input, p.encoder, bias, { select: "positive" });
  },

  encodeForTraining(step) {
    const { kernels, parameters: p, options, input, device, keep } = step;
    const bias = options.shifted ? keep(shiftedBias(step)) : p.encoderBias;
    const thresholds = options.shifted ? keep(device.zeros(bias.shape)) : p.threshold;
    const margin = options.bandwidth / 2;
    return {
      codes: keep(kernels.encode(input, p.encoder, bias, { select: "above", thresholds, margin })),
      thresholds,
      bias,
    };
  },

  gradients(step) {
    const { kernels, parameters: p, options, codes, tokens, decoderUnitNorm, keep } = step;
    const norms = decoderNorms(step);
    const { residual, squaredError } = reconstruct(step);
    const scale = 2 / tokens;
    const sparsity = options.sparsityLoss === "tanh" ? tanhTerm(step, norms) : stepTerm(step);
    const preActivation = preActivationTerm(step, norms);

    // dLoss/df = 2/N (x̂ - x) . W_dec,i + dsparsity/df, and dLoss/dz is the same where z > θ
    const dReconstruction = keep(kernels.decodeGradient(codes, p.decoder, residual, { scale, every: true }));
    const dValues =
      sparsity.dValues === undefined
        ? dReconstruction
        : keep(kernels.entryProduct(codes, { a: dReconstruction, plus: sparsity.dValues }));
    const values = keep(kernels.entries(codes, "values"));
    const active = keep(kernels.entryFunction(values, "heaviside"));
    const dPreActivations = keep(kernels.entryProduct(codes, { a: dValues, b: active }));
    const dThreshold = throughLatents(step, dValues, dPreActivations);

    const dNorms = total(step, [sparsity.dNorms, preActivation.dNorms]);
    return {
      losses: {
        reconstruction: { sum: squaredError, scale: 1 / tokens },
        ...sparsity.losses,
        ...preActivation.losses,
      },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }],
      encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }, ...(preActivation.encoderPaths ?? [])],
      vectors: { threshold: total(step, [dThreshold, sparsity.dThreshold, preActivation.dThreshold])! },
      ...(dNorms === undefined || decoderUnitNorm ? {} : { decoderNormPenalty: { coefficients: dNorms, scale: 1 } }),
    };
  },

  afterStep({ kernels, parameters: { threshold } }) {
    using clamped = kernels.activation(threshold, "relu");
    kernels.scale(clamped, 1, { out: threshold });
  },
});

/** b_enc - θ */
function shiftedBias({ kernels, parameters: p }: Forward<JumpReluParameter>): Tensor {
  return kernels.add(p.encoderBias, p.threshold, { scale: -1 });
}

/** The gradient that reaches θ through f: the jump's estimator, or the slope -1[z > θ] of shifted latents. */
function throughLatents(step: Step, dValues: EntryValues, dPreActivations: EntryValues): Tensor {
  const { kernels, parameters: p, options, codes, keep } = step;
  if (options.shifted) return keep(kernels.featureSums(codes, { coefficients: dPreActivations, scale: -1 }));
  const { bandwidth } = options;
  const sums = keep(
    kernels.windowSums(codes, p.threshold, bandwidth, { coefficients: dValues, scale: -1 / bandwidth }),
  );
  return keep(kernels.multiply(p.threshold, sums));
}

/** "step": λ L0; "quadratic": λ (L0 / targetL0 - 1)². L0 stays on the device. */
function stepTerm(step: Step): Term {
  const { kernels, options, codes, tokens, encoded, keep } = step;
  const { bandwidth, sparsityLoss } = options;
  const lambda = options.l0Coefficient * step.sparsityScale;
  const counts = keep(kernels.featureCounts(codes));

  // dL0/dθ = -1/N Σ_t K((z - θ)/ε)/ε
  const slopeOfL0 = (scale: number): Tensor =>
    keep(kernels.windowSums(codes, encoded.thresholds, bandwidth, { scale: -scale / (tokens * bandwidth) }));

  if (sparsityLoss === "step") {
    const activeEntries = zeroSum(step);
    kernels.sum(counts, activeEntries);
    return {
      losses: { sparsity: { sum: activeEntries, scale: lambda / tokens } },
      dThreshold: slopeOfL0(lambda),
    };
  }

  const targetL0 = options.targetL0!; // `check` asks for it
  const column = keep(counts.reshape([codes.dSae, 1]));
  const ratio = keep(kernels.columnSums(column, { scale: 1 / (tokens * targetL0) }));
  const excess = keep(kernels.add(ratio, ones(step, 1), { scale: -1 })); // L0 / targetL0 - 1
  return {
    losses: { sparsity: { sum: dotProduct(step, excess, excess), scale: lambda } },
    dThreshold: keep(kernels.scaleRows(slopeOfL0((2 * lambda) / targetL0), excess)),
  };
}

/** λ Σ tanh(c f_i n_i), n the decoder norms; dtanh(u)/du = 1 - tanh²(u). */
function tanhTerm(step: Step, norms: Tensor): Term {
  const { kernels, options, codes, tokens, keep } = step;
  const { tanhScale } = options;
  const lambda = options.l0Coefficient * step.sparsityScale;
  const values = keep(kernels.entries(codes, "values"));
  const scaled = keep(kernels.entryProduct(codes, { a: values, perFeature: norms, scale: tanhScale }));
  const scores = keep(kernels.entryFunction(scaled, "tanh"));
  const one = keep(kernels.entryProduct(codes, {}));
  const slopes = keep(kernels.entryProduct(codes, { a: scores, b: scores, scale: -1, plus: one }));
  const scale = (lambda * tanhScale) / tokens;
  const valuesTimesSlopes = keep(kernels.entryProduct(codes, { a: values, b: slopes }));

  const sum = zeroSum(step);
  kernels.sum(keep(kernels.featureSums(codes, { coefficients: scores })), sum);
  return {
    losses: { sparsity: { sum, scale: lambda / tokens } },
    dValues: keep(kernels.entryProduct(codes, { a: slopes, perFeature: norms, scale })),
    dNorms: keep(kernels.featureSums(codes, { coefficients: valuesTimesSlopes, scale })),
  };
}

/** coefficient * Σ_dead ReLU(θ_i - z_i) n_i, n the decoder norms. */
function preActivationTerm(step: Step, norms: Tensor): Term {
  const { kernels, parameters: p, options, input, tokens, encoded, keep } = step;
  if (options.preActivationCoefficient === 0) return { losses: {} };
  const deadLatents = step.deadLatents();
  if (deadLatents === undefined) return { losses: { preActivation: { sum: zeroSum(step), scale: 0 } } };
  const scale = options.preActivationCoefficient / tokens;

  const all = keep(kernels.encode(input, p.encoder, encoded.bias, { select: "all", features: deadLatents }));
  const preActivations = keep(kernels.entries(all, "preActivations"));
  const thresholds = keep(kernels.entryProduct(all, { perFeature: encoded.thresholds }));
  const distances = keep(kernels.entryProduct(all, { a: preActivations, scale: -1, plus: thresholds })); // θ - z
  const below = keep(kernels.entryFunction(distances, "heaviside"));
  const depths = keep(kernels.entryProduct(all, { a: distances, b: below })); // ReLU(θ - z)
  const depthSums = keep(kernels.featureSums(all, { coefficients: depths }));
  const dPreActivations = keep(kernels.entryProduct(all, { a: below, perFeature: norms, scale: -scale }));
  return {
    losses: { preActivation: { sum: dotProduct(step, depthSums, norms), scale, latents: deadLatents } },
    encoderPaths: [{ codes: all, dPreActivations, bias: "encoderBias" }],
    dThreshold: keep(kernels.featureSums(all, { coefficients: dPreActivations, scale: -1 })),
    dNorms: keep(kernels.scale(depthSums, scale)),
  };
}

/** The sum of those that are there; undefined for none. */
function total({ kernels, keep }: Step, gradients: readonly (Tensor | undefined)[]): Tensor | undefined {
  return gradients.reduce((sum, gradient) => {
    if (sum === undefined || gradient === undefined) return sum ?? gradient;
    return keep(kernels.add(sum, gradient));
  }, undefined);
}
