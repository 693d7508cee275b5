/** From an architecture's gradient, stated as paths through codes, to the gradients of the parameters. */
import type { EntryTerm, RowGradient } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";
import type { GradientStep, Gradients } from "./architecture.js";

/** By parameter: rows of encoder and decoder as sums that the row kernels evaluate; everything else as tensors. */
export interface ParameterGradients {
  readonly rows: Readonly<Record<string, RowGradient>>;
  readonly vectors: Readonly<Record<string, Tensor>>;
}

/**
 * With dz = dLoss/dz and dOut = dLoss/dOutput, per path and summed over paths:
 *
 *     encoder row i     = Σ_t dz[t,i] input[t]            encoder bias = Σ_t dz[t]
 *     decoder row i     = Σ_t f[t,i] dOut[t]              decoder bias = Σ_t dOut[t] - Σ_i (Σ_t dz[t,i]) encoder_i
 *     skip              = Σ_t dOut[t] input[t]ᵀ
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
  const { decoderPaths, encoderPaths, decoderNormPenalty } = gradients;
  const biased = decoderPaths.filter((path) => path.throughDecoderBias);

  const encoders: Record<string, { terms: EntryTerm[]; sums: Tensor[] }> = {};
  const vectors: Record<string, Tensor[]> = {};
  for (const { codes, dPreActivations, rows = "encoder", bias } of encoderPaths) {
    const sums = keep(kernels.featureSums(codes, { coefficients: dPreActivations }));
    encoders[rows] ??= { terms: [], sums: [] };
    encoders[rows].terms.push({ codes, coefficients: dPreActivations, dense: step.input });
    encoders[rows].sums.push(sums);
    if (bias !== undefined) addTerm(vectors, bias, sums);
  }
  for (const [name, gradient] of Object.entries(gradients.vectors ?? {})) addTerm(vectors, name, gradient);
  vectors.decoderBias = biased.map((path) => keep(kernels.columnSums(path.dOutput, { scale: path.scale })));
  if (applyBDecToInput) {
    for (const [rows, { sums }] of Object.entries(encoders)) {
      vectors.decoderBias.push(keep(kernels.weightedRowSum(sum(step, rows, sums), p[rows]!, { scale: -1 })));
    }
  }
  if (p.skip !== undefined) {
    vectors.skip = biased.map((path) => keep(skipGradient(step, path.dOutput, path.scale)));
  }

  return {
    rows: {
      ...Object.fromEntries(Object.entries(encoders).map(([name, { terms }]) => [name, { terms }])),
      decoder: {
        terms: decoderPaths.map((path) => ({ codes: path.codes, dense: path.dOutput, scale: path.scale })),
        ...(decoderNormPenalty === undefined
          ? {}
          : { rowCoefficients: decoderNormPenalty.coefficients, rowScale: decoderNormPenalty.scale }),
        ...(step.hookWidths === undefined ? {} : { blockWidths: step.hookWidths }),
        projectOutRow: step.decoderUnitNorm,
      },
    },
    vectors: Object.fromEntries(Object.entries(vectors).map(([name, terms]) => [name, sum(step, name, terms)])),
  };
}

/** scale * Σ_t dOutput[t] input[t]ᵀ, [dOut, dIn]. A skip transcoder subtracts no bias: `input` are the activations. */
function skipGradient({ kernels, input }: GradientStep, dOutput: Tensor, scale: number): Tensor {
  using outputs = kernels.transpose(dOutput);
  using inputs = kernels.transpose(input);
  const gradient = kernels.linear(outputs, inputs);
  return kernels.scale(gradient, scale, { out: gradient });
}

function addTerm(terms: Record<string, Tensor[]>, name: string, term: Tensor): void {
  terms[name] = [...(terms[name] ?? []), term];
}

/** The sum of tensors, in a new one: an architecture may state the same vector for two parameters. */
function sum({ kernels, keep }: GradientStep, name: string, [first, second, ...rest]: readonly Tensor[]): Tensor {
  if (first === undefined) throw new Error(`an architecture's gradient has no path through ${name}`);
  if (second === undefined) return first;
  const total = keep(kernels.add(first, second));
  for (const term of rest) kernels.add(total, term, { out: total });
  return total;
}
