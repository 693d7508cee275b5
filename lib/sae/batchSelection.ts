/**
 * How BatchTopK and Matryoshka SAEs select their latents: in training over the whole batch, afterwards by a threshold.
 *
 *     training    the floor(k N) largest of ReLU(z) over the N tokens of the batch; equal ones by token, then latent
 *     inference   f = z 1[z > θ], which does not depend on what else is in the batch
 *     θ           a running mean with bias correction of m, the smallest value selected in a step:
 *                 a <- δ a + (1 - δ) m,   b <- δ b + (1 - δ),   θ = a / b,   both 0 at first
 *
 * Bussmann, Leask and Nanda 2024, arXiv:2412.06410, define θ as the expectation of m. The peers estimate it differently:
 * SAELens without the bias correction (δ = 0.99), so that θ is too low for the first few hundred steps;
 * dictionary_learning from step 1000 on and from the value found there (δ = 0.999); the authors' code not at all.
 */
import { z } from "zod";
import type { Codes } from "../engine/codes.js";
import {
  type Forward,
  type GradientStep,
  type OptionShape,
  type ParameterSpecification,
  positive,
  type TrainingStep,
} from "./architecture.js";
import { type AuxOptions, auxOptions } from "./lossTerms.js";

export interface BatchSelectionOptions extends AuxOptions {
  /** Latents per token, on average over a batch; need not be an integer. */
  readonly k: number;
  /** δ */
  readonly thresholdDecay: number;
}

export const batchSelectionOptions: OptionShape<BatchSelectionOptions> = {
  k: positive.describe("Latents per token, on average over the batch; need not be an integer."),
  ...auxOptions,
  thresholdDecay: z
    .number()
    .min(0)
    .lt(1)
    .default(0.99)
    .describe(
      "Per step, of the running mean of the smallest selected value, the threshold at inference. It lags behind the weights: until it has settled, as after a short run, the L0 at inference is below k.",
    ),
};

export type BatchSelectionParameters = "encoderBias" | "threshold";

/** θ is the same for all latents; one per latent makes the trained SAE a JumpReLU, as which it is saved. */
export const batchSelectionParameters: Readonly<Record<BatchSelectionParameters, ParameterSpecification<object>>> = {
  encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" },
  threshold: { shape: "latents", initial: 0, savedAs: "threshold", trained: false },
};

/** a and b */
export const batchSelectionState = { threshold: 2 } as const;

export function checkBatchSelection({
  k,
  dSae,
}: {
  readonly k: number;
  readonly dSae: number;
}): readonly (readonly [string, string])[] {
  return k > dSae ? [["k", `must be at most dSae (${dSae})`]] : [];
}

/** f = z 1[z > θ] */
export function encodeAboveThreshold(
  { kernels, parameters: p }: Forward<BatchSelectionParameters>,
  input: TrainingStep["input"],
): Codes {
  return kernels.encode(input, p.encoder, p.encoderBias, { select: "above", thresholds: p.threshold });
}

/** The floor(k N) largest of ReLU(z). */
export function selectOverBatch(
  step: TrainingStep<BatchSelectionParameters> & { readonly options: BatchSelectionOptions },
): { codes: Codes } {
  const { kernels, parameters: p, options, input, tokens } = step;
  const k = Math.floor(options.k * tokens);
  return { codes: step.keep(kernels.encode(input, p.encoder, p.encoderBias, { select: "batchtopk", k })) };
}

/** Takes the smallest value of the step's codes into θ. */
export function updateThreshold(
  step: GradientStep<BatchSelectionParameters, "threshold"> & { readonly options: BatchSelectionOptions },
): void {
  const { kernels, parameters: p, options, codes, state } = step;
  kernels.updateRunningMinimum(codes, options.thresholdDecay, state.threshold, p.threshold);
}
