/**
 * TopK SAE: keep the k largest pre-activations of every token, then ReLU; loss = |x̂ - x|² + α |e - ê|².
 *
 * Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv:2406.04093: section 2.3; AuxK in appendix A.2,
 * Multi-TopK in section 5.3. Equal pre-activations are taken in the order of their latents.
 */
import type { Codes } from "../engine/codes.js";
import {
  type Architecture,
  defineArchitecture,
  type Encoded,
  type GradientStep,
  type Gradients,
  naturalNumber,
  nonNegative,
  positiveInteger,
} from "./architecture.js";
import { auxOptions, deadLatentTerm, reconstruct, zeroSum } from "./lossTerms.js";

export interface TopkOptions {
  /** Latents per token. */
  readonly k: number;
}

export interface TopkTrainingOptions {
  /** Dead latents per token that model the residual; 0 turns AuxK off. */
  readonly auxK: number;
  /** α */
  readonly auxCoefficient: number;
  /** Latents per token in the first step; k goes from here to `k` linearly over `kAnnealSteps`. */
  readonly initialK?: number | undefined;
  readonly kAnnealSteps: number;
  /** Weight of the reconstruction by the 4k largest (the paper takes 1/8); 0 turns Multi-TopK off. */
  readonly multiTopkCoefficient: number;
}

interface TopkEncoded extends Encoded {
  /** With Multi-TopK the 4k largest, of which `codes` are the first k. */
  readonly wider?: Codes;
}

/** Multi-TopK's second reconstruction has this many times k latents. */
const widening = 4;

export const topk: Architecture<"topk", TopkOptions, TopkTrainingOptions> = defineArchitecture<
  "topk",
  TopkOptions,
  TopkTrainingOptions,
  "encoderBias",
  never,
  TopkEncoded
>({
  name: "topk",
  options: { k: positiveInteger.describe("Latents per token.") },
  trainingOptions: {
    ...auxOptions,
    initialK: positiveInteger
      .optional()
      .describe("Latents per token in the first step, from where k is annealed; goes with kAnnealSteps."),
    kAnnealSteps: naturalNumber
      .default(0)
      .describe(
        "Steps over which k goes from initialK to k, linearly; 0: none. Goes with initialK, and ends within the run.",
      ),
    multiTopkCoefficient: nonNegative
      .default(0)
      .describe("Multi-TopK: weight of the reconstruction by the 4k largest (the paper takes 1/8); 0: none."),
  },
  parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
  initialDecoderNorm: 1,
  decoderUnitNorm: true,
  saved: { name: "topk", keys: ({ k }) => ({ k, rescale_acts_by_decoder_norm: false }) },
  check({ k, initialK, kAnnealSteps = 0, dSae, steps = Number.POSITIVE_INFINITY }) {
    const atMost = `must be at most dSae (${dSae})`;
    const problems: [string, string][] = [];
    if (k > dSae) problems.push(["k", atMost]);
    if (initialK !== undefined && initialK > dSae) problems.push(["initialK", atMost]);
    if (initialK !== undefined && kAnnealSteps === 0) {
      problems.push(["initialK", "has no effect without kAnnealSteps, over which k goes from there to `k`"]);
    }
    if (initialK === undefined && kAnnealSteps > 0) {
      problems.push(["kAnnealSteps", "has no effect without initialK, from where k is annealed"]);
    }
    if (initialK !== undefined && kAnnealSteps >= steps) {
      problems.push(["kAnnealSteps", `must be less than the run's steps (${steps}): it would end before k is ${k}`]);
    }
    return problems;
  },

  encode: ({ kernels, parameters: p, options }, input) =>
    kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k: options.k }),

  encodeForTraining(step): TopkEncoded {
    const { kernels, parameters: p, options, input, keep } = step;
    const k = annealedK(options, step.step);
    if (options.multiTopkCoefficient === 0) {
      return { codes: keep(kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k })) };
    }
    const wider = keep(kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k: widening * k }));
    return { codes: keep(kernels.selectTop(wider, k)), wider };
  },

  gradients(step) {
    const { kernels, parameters: p, options, codes, tokens } = step;
    const { residual, squaredError } = reconstruct(step);
    const scale = 2 / tokens;
    const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, residual, { scale }));
    const multi = step.encoded.wider && multiTopkTerm(step, step.encoded.wider, options.multiTopkCoefficient);
    const aux = deadLatentTerm(step, residual, options);
    return {
      losses: { reconstruction: { sum: squaredError, scale: 1 / tokens }, ...multi?.losses, ...aux.losses },
      residual,
      decoderPaths: [
        { codes, dOutput: residual, scale, throughDecoderBias: true },
        ...(multi?.decoderPaths ?? []),
        ...aux.decoderPaths,
      ],
      encoderPaths: [
        { codes, dPreActivations, bias: "encoderBias" },
        ...(multi?.encoderPaths ?? []),
        ...aux.encoderPaths,
      ],
    };
  },
});

function annealedK({ k, initialK = k, kAnnealSteps }: TopkOptions & TopkTrainingOptions, step: number): number {
  return step >= kAnnealSteps ? k : Math.round(initialK + ((k - initialK) * step) / kAnnealSteps);
}

/** Multi-TopK: coefficient * |x̂_4k - x|², so that the SAE also works with more latents than it was trained for. */
function multiTopkTerm(
  step: GradientStep<"encoderBias">,
  codes: Codes,
  coefficient: number,
): Pick<Gradients, "losses" | "decoderPaths" | "encoderPaths"> {
  const { kernels, parameters: p, target, tokens, keep } = step;
  const squaredError = zeroSum(step);
  const residual = keep(kernels.decode(codes, p.decoder, { bias: p.decoderBias, target, squaredError }));
  const scale = (2 * coefficient) / tokens;
  const dPreActivations = keep(kernels.decodeGradient(codes, p.decoder, residual, { scale }));
  return {
    losses: { multiTopk: { sum: squaredError, scale: coefficient / tokens } },
    decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }],
    encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }],
  };
}
