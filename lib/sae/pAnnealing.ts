/**
 * p-annealing: the L1 penalty of a ReLU SAE becomes an Lp penalty whose p falls from 1 to pEnd < 1, ever closer to L0.
 *
 *     penalty = λ c Σ_i (f_i n_i)^p over the active latents          n_i = |W_dec,i|
 *     gradient to f_i:  λ c p (f_i n_i)^(p-1) n_i        to n_i:  λ c p (f_i n_i)^(p-1) f_i
 *
 * p falls in `pAnnealUpdates` equal decrements, the j-th from step pAnnealStart + floor(j pAnnealSteps / pAnnealUpdates)
 * on. So that a new p does not mean a penalty of another size, c (1 at first) is then multiplied by A / B, where
 *
 *     A = Σ (f_i n_i)^p   and   B = Σ (f_i n_i)^p'       p the old exponent, p' the new one,
 *
 * both over the latents of the last 10 steps before, or of those since the last change where they are fewer.
 *
 * Karvonen et al. 2024, "Measuring Progress in Dictionary Learning for Language Model Interpretability with Board Game
 * Models", arXiv:2408.00113, section 4. dictionary_learning takes f_i for f_i n_i, its decoder rows having norm 1.
 *
 * c never leaves the device: the sums are kept in the architecture's state, and only in the steps that count.
 */
import { z } from "zod";
import type { EntryValues } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import {
  type CheckedWith,
  type Encoded,
  type GradientStep,
  type Gradients,
  type Loss,
  naturalNumber,
  type OptionShape,
  positiveInteger,
} from "./architecture.js";
import { dotProduct, ones } from "./lossTerms.js";

export interface PAnnealingOptions {
  /** The last p, in (0, 1]; 1 turns p-annealing off. */
  readonly pEnd: number;
  /** The step from which p's decrements are counted. */
  readonly pAnnealStart: number;
  /** The number of steps after that at which p has reached `pEnd`; 0: at once. Needed where `pEnd` is below 1. */
  readonly pAnnealSteps?: number | undefined;
  readonly pAnnealUpdates: number;
}

export const pAnnealingOptions: OptionShape<PAnnealingOptions> = {
  pEnd: z
    .number()
    .positive()
    .max(1)
    .default(1)
    .describe("p-annealing: the penalty's exponent goes from 1 to pEnd; 1: it stays."),
  pAnnealStart: naturalNumber.default(0).describe("The step at which p-annealing begins."),
  pAnnealSteps: naturalNumber
    .optional()
    .describe("Steps from there to pEnd; needed where pEnd is below 1, and within the run. 0: pEnd at once."),
  pAnnealUpdates: positiveInteger.default(10).describe("Number of equal decrements of p."),
};

/** A and B so far, and c; 0 stands for c = 1, which it is until the first change. */
export const pAnnealingState = { powerSum: 1, nextPowerSum: 1, coefficient: 1 } as const;

export interface NormedEncoding extends Encoded {
  /** n_i as they are before the optimizer changes the decoder, [dSae]. */
  readonly norms: Tensor;
}

export type PenaltyStep = GradientStep<"encoderBias", keyof typeof pAnnealingState, NormedEncoding> & {
  readonly options: PAnnealingOptions;
};

/** A sparsity penalty, and what reconstruction and penalty together give the latents. */
export interface Penalised {
  readonly sparsity: Loss;
  readonly dValues: EntryValues;
  readonly decoderNormPenalty: NonNullable<Gradients["decoderNormPenalty"]>;
}

/** Steps before a change whose latents decide how c changes. */
const window = 10;

/** Complaints about options as [option, message]. */
export function checkPAnnealing({
  pEnd = 1,
  pAnnealStart = 0,
  pAnnealSteps,
  steps = Number.POSITIVE_INFINITY,
}: Partial<PAnnealingOptions> & CheckedWith): readonly (readonly [string, string])[] {
  if (pEnd === 1) return [];
  if (pAnnealSteps === undefined) {
    return [["pAnnealSteps", `is needed to anneal p to pEnd (${pEnd}): how many steps that takes, 0 for pEnd at once`]];
  }
  if (pAnnealStart >= steps) return [["pAnnealStart", `must be less than the run's steps (${steps}): p would stay 1`]];
  const left = steps - pAnnealStart;
  if (pAnnealSteps < left) return [];
  const from = pAnnealStart === 0 ? "" : " after pAnnealStart";
  return [["pAnnealSteps", `must be less than the run's steps${from} (${left}): it would end before p is ${pEnd}`]];
}

/** p at a step (0-based). */
export function exponentAt(
  { pEnd, pAnnealStart, pAnnealSteps = 0, pAnnealUpdates }: PAnnealingOptions,
  step: number,
): number {
  if (pEnd === 1) return 1;
  let decrements = 0;
  while (
    decrements < pAnnealUpdates &&
    step >= pAnnealStart + Math.floor(((decrements + 1) * pAnnealSteps) / pAnnealUpdates)
  ) {
    decrements++;
  }
  return 1 - ((1 - pEnd) * decrements) / pAnnealUpdates;
}

/** λ c Σ (f_i n_i)^p, and dLoss/df = 2/N (x̂ - x) . W_dec,i + λ/N c p (f_i n_i)^(p-1) n_i. */
export function powerPenalty(step: PenaltyStep, residual: Tensor, lambda: number, p: number): Penalised {
  const { kernels, parameters, codes, encoded, tokens, keep } = step;
  const c = coefficient(step);
  const scaledNorms = timesScalar(step, encoded.norms, c);
  const slopes = keep(kernels.entryFunction(normWeighted(step), "power", { exponent: p - 1 }));
  const ofReconstruction = keep(kernels.decodeGradient(codes, parameters.decoder, residual, { scale: 2 / tokens }));
  const scale = (lambda * p) / tokens;
  const dValues = kernels.entryProduct(codes, { a: slopes, perFeature: scaledNorms, scale, plus: ofReconstruction });
  // per latent Σ_t (f n)^(p-1) f, of which n times is Σ_t (f n)^p
  const summands = keep(kernels.entryProduct(codes, { a: slopes, b: keep(kernels.entries(codes, "values")) }));
  const sums = keep(kernels.featureSums(codes, { coefficients: summands }));
  return {
    sparsity: { sum: dotProduct(step, sums, scaledNorms), scale: lambda / tokens },
    dValues: keep(dValues),
    decoderNormPenalty: { coefficients: timesScalar(step, sums, c), scale },
  };
}

/** After a step: adds to A and B where a change of p is near, and changes c where it comes next. */
export function annealCoefficient(step: PenaltyStep): void {
  const { kernels, options, state, keep } = step;
  const p = exponentAt(options, step.step);
  const nextChange = Array.from({ length: window }, (_, i) => step.step + 1 + i).find(
    (later) => exponentAt(options, later) !== p,
  );
  if (nextChange === undefined) return;

  const weighted = normWeighted(step);
  for (const [exponent, sum] of [
    [p, state.powerSum],
    [exponentAt(options, nextChange), state.nextPowerSum],
  ] as const) {
    const powers = keep(kernels.entryFunction(weighted, "power", { exponent }));
    kernels.sum(keep(kernels.featureSums(step.codes, { coefficients: powers })), sum);
  }
  if (nextChange > step.step + 1) return;

  const [before, after] = [state.powerSum, state.nextPowerSum].map((sum) => keep(kernels.toFloat32(sum)));
  // without a single active latent both are 0, and c stays
  const ratio = oneForZero(step, keep(kernels.divide(before!, oneForZero(step, after!))));
  const changed = keep(kernels.multiply(coefficient(step), ratio));
  for (const sum of Object.values(state)) sum.write(new Float64Array(1));
  kernels.sum(changed, state.coefficient);
}

/** c, f32 [1] */
function coefficient(step: PenaltyStep): Tensor {
  return oneForZero(step, step.keep(step.kernels.toFloat32(step.state.coefficient)));
}

/** f_i n_i per entry */
function normWeighted({ kernels, codes, encoded, keep }: PenaltyStep): EntryValues {
  const values = keep(kernels.entries(codes, "values"));
  return keep(kernels.entryProduct(codes, { a: values, perFeature: encoded.norms }));
}

/** A number that is not negative, [1], or 1 in place of 0. */
function oneForZero(step: PenaltyStep, scalar: Tensor): Tensor {
  const { kernels, keep } = step;
  const positive = keep(kernels.activation(scalar, "heaviside"));
  const zero = keep(kernels.add(ones(step, 1), positive, { scale: -1 }));
  return keep(kernels.add(scalar, zero));
}

/** vector [size] times scalar [1] */
function timesScalar({ kernels, keep }: PenaltyStep, vector: Tensor, scalar: Tensor): Tensor {
  const column = keep(vector.reshape([vector.size, 1]));
  return keep(keep(kernels.scaleColumns(column, scalar)).reshape([vector.size]));
}
