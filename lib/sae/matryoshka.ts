/**
 * Matryoshka BatchTopK SAE: every prefix of the latents, of widths w_1 < ... < w_M = dSae, reconstructs by itself.
 *
 *     x̂_m = b_dec + Σ_{i < w_m} f_i W_dec,i        loss = Σ_m c_m |x̂_m - x|² + α |e - ê|²,   e of the full width
 *
 * Bussmann, Nabeshima, Karvonen and Nanda 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders",
 * arXiv:2503.17547. One selection over the batch and all latents, as BatchTopK (batchSelection.ts). As in the paper the
 * levels are summed, each with its own weight c_m (`levelWeights`, 1 by default): SAELens has no weights;
 * dictionary_learning's are 1/M, and it then takes the mean over the levels, which makes 1/M².
 *
 * Each entry is decoded once: x̂_m = x̂_{m-1} + the latents from w_{m-1} to w_m. Latent i of that range is in x̂_m and in
 * all that are wider, so what reaches it is the suffix sum of the residuals, Σ_{j >= m} c_j (x̂_j - x).
 */
import { z } from "zod";
import type { Codes } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import {
  type Architecture,
  type DecoderPath,
  defineArchitecture,
  type EncoderPath,
  type GradientStep,
  type Loss,
  nonNegative,
  positiveInteger,
} from "./architecture.js";
import {
  type BatchSelectionOptions,
  type BatchSelectionParameters,
  batchSelectionOptions,
  batchSelectionParameters,
  batchSelectionState,
  checkBatchSelection,
  encodeAboveThreshold,
  selectOverBatch,
  updateThreshold,
} from "./batchSelection.js";
import { deadLatentTerm, zeroSum } from "./lossTerms.js";

export interface MatryoshkaTrainingOptions extends BatchSelectionOptions {
  /** Widths of the inner prefixes, ascending and below dSae; the full width comes on top. */
  readonly widths: readonly number[];
  /** c_m: one weight per inner width and one for the full width. Default: 1 for each. */
  readonly levelWeights?: readonly number[] | undefined;
}

/** The reconstruction by one prefix of the latents. */
interface Level {
  readonly width: number;
  readonly weight: number;
  /** The latents that it has and the next narrower level has not. */
  readonly codes: Codes;
  /** x̂_m - target */
  readonly residual: Tensor;
  readonly squaredError: Tensor;
}

export const matryoshka: Architecture<"matryoshka", object, MatryoshkaTrainingOptions> = defineArchitecture<
  "matryoshka",
  object,
  MatryoshkaTrainingOptions,
  BatchSelectionParameters,
  "threshold"
>({
  name: "matryoshka",
  options: {},
  trainingOptions: {
    ...batchSelectionOptions,
    widths: z
      .array(positiveInteger)
      .min(1)
      .describe("Widths of the inner prefixes of the latents, ascending and below dSae."),
    levelWeights: z
      .array(nonNegative)
      .optional()
      .describe("Weights of the reconstructions: one per inner width and one for the full width. Default: 1 each."),
  },
  parameters: batchSelectionParameters,
  state: batchSelectionState,
  initialDecoderNorm: 1,
  decoderUnitNorm: true,
  saved: { as: "jumprelu" },
  check(options) {
    const { widths, levelWeights, dSae } = options;
    const problems = [...checkBatchSelection(options)];
    // a trained SAE has forgotten its levels, and is checked too
    if (widths?.some((width, i) => width >= (widths[i + 1] ?? dSae))) {
      problems.push(["widths", `must be strictly ascending and below dSae (${dSae})`]);
    }
    if (levelWeights !== undefined && levelWeights.length !== widths.length + 1) {
      problems.push(["levelWeights", `must be ${widths.length + 1}: one per inner width and one for the full width`]);
    }
    return problems;
  },

  encode: encodeAboveThreshold,
  encodeForTraining: selectOverBatch,

  gradients(step) {
    const { kernels, parameters: p, tokens } = step;
    const levels = reconstructLevels(step, step.options);
    const full = levels.at(-1)!;
    const decoderPaths: DecoderPath[] = [];
    const encoderPaths: EncoderPath[] = [];
    const scale = 2 / tokens;
    let dOutput: Tensor | undefined;
    for (const [m, { codes, residual, weight }] of [...levels.entries()].reverse()) {
      dOutput = step.keep(
        dOutput === undefined ? kernels.scale(residual, weight) : kernels.add(dOutput, residual, { scale: weight }),
      );
      // the narrowest level's suffix sum is that of all levels, which all contain the decoder bias
      decoderPaths.unshift({ codes, dOutput, scale, throughDecoderBias: m === 0 });
      const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, dOutput, { scale }));
      encoderPaths.unshift({ codes, dPreActivations, bias: "encoderBias" });
    }
    const aux = deadLatentTerm(step, full.residual, step.options);
    return {
      losses: { ...levelLosses([full], tokens), ...levelLosses(levels.slice(0, -1), tokens), ...aux.losses },
      residual: full.residual,
      decoderPaths: [...decoderPaths, ...aux.decoderPaths],
      encoderPaths: [...encoderPaths, ...aux.encoderPaths],
    };
  },

  afterStep: updateThreshold,
});

/** From the narrowest level to the full width, each adding its latents to the reconstruction of the one before. */
function reconstructLevels(
  step: GradientStep,
  { widths, levelWeights }: Pick<MatryoshkaTrainingOptions, "widths" | "levelWeights">,
): readonly Level[] {
  const { kernels, parameters: p, target, keep } = step;
  const levels: Level[] = [];
  for (const [m, width] of [...widths, step.codes.dSae].entries()) {
    const narrower = levels.at(-1);
    const codes = keep(kernels.featureRange(step.codes, narrower?.width ?? 0, width));
    const squaredError = zeroSum(step);
    // decode gives what it reconstructs, less a target: with -(x̂_{m-1} - x) for target, that is x̂_m - x
    const options =
      narrower === undefined
        ? { bias: p.decoderBias, target, squaredError }
        : { target: keep(kernels.scale(narrower.residual, -1)), squaredError };
    const residual = keep(kernels.decode(codes, p.decoder, options));
    levels.push({ width, weight: levelWeights?.[m] ?? 1, codes, residual, squaredError });
  }
  return levels;
}

function levelLosses(levels: readonly Level[], tokens: number): Record<string, Loss> {
  return Object.fromEntries(
    levels.map(({ width, weight, codes, squaredError }) => [
      width === codes.dSae ? "reconstruction" : `prefix${width}`,
      { sum: squaredError, scale: weight / tokens },
    ]),
  );
}
