/** From an architecture's gradient, stated as paths through codes, to the gradients of the four parameters. */
import type { RowGradient } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";
import type { GradientStep, Gradients } from "./architecture.js";

/** The rows of encoder and decoder as sums that the row kernels evaluate; the biases as vectors. */
export interface ParameterGradients {
  readonly encoder: RowGradient;
  readonly encoderBias: Tensor;
  readonly decoder: RowGradient;
  readonly decoderBias: Tensor;
}

/**
 * With dz = dLoss/dz and dOut = dLoss/dOutput, per path and summed over paths:
 *
 *     encoder row i     = Σ_t dz[t,i] input[t]            encoder bias = Σ_t dz[t]
 *     decoder row i     = Σ_t f[t,i] dOut[t]              decoder bias = Σ_t dOut[t] - Σ_i (Σ_t dz[t,i]) encoder_i
 *
 * plus the gradient of the decoder-norm penalty; the last term of the decoder bias only where the bias is subtracted
 * from the encoder's input. With `decoderUnitNorm` each decoder row's gradient loses its component along the row.
 */
export function parameterGradients(
  step: GradientStep,
  gradients: Gradients,
  applyBDecToInput: boolean,
): ParameterGradients {
  const { kernels, parameters: p, keep } = step;
  const { paths, decoderNormPenalty } = gradients;

  const encoderBias = sum(
    step,
    paths.map((path) => keep(kernels.featureSums(path.codes, { coefficients: path.dPreActivations }))),
  );
  const decoderBiasTerms = paths
    .filter((path) => path.throughDecoderBias)
    .map((path) => keep(kernels.columnSums(path.dOutput, { scale: path.scale })));
  if (applyBDecToInput) {
    decoderBiasTerms.push(keep(kernels.weightedRowSum(encoderBias, p.encoder, { scale: -1 })));
  }

  return {
    encoder: {
      terms: paths.map((path) => ({ codes: path.codes, coefficients: path.dPreActivations, dense: step.input })),
    },
    encoderBias,
    decoder: {
      terms: paths.map((path) => ({ codes: path.codes, dense: path.dOutput, scale: path.scale })),
      ...(decoderNormPenalty === undefined
        ? {}
        : { rowCoefficients: decoderNormPenalty.coefficients, rowScale: decoderNormPenalty.scale }),
      projectOutRow: step.decoderUnitNorm,
    },
    decoderBias: sum(step, decoderBiasTerms),
  };
}

/** The sum of vectors, in the first one's memory. */
function sum(step: GradientStep, [first, ...rest]: Tensor[]): Tensor {
  if (first === undefined) throw new Error("an architecture's gradient has no path through its parameters");
  for (const term of rest) step.kernels.add(first, term, { out: first });
  return first;
}
