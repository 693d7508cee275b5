import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import type { GradientStep, SaeParameters } from "../../lib/sae/architecture.js";
import { type SaeTrainingConfig, trainingOf } from "../../lib/sae/config.js";
import { parameterGradients } from "../../lib/sae/gradients.js";

export interface StepResult {
  readonly losses: Record<string, number>;
  readonly gradients: Record<keyof SaeParameters, Float32Array>;
}

/** Losses and gradients of one batch, read back whole: what training only ever evaluates row by row. */
export async function gradientStep(
  config: SaeTrainingConfig,
  parameters: SaeParameters,
  x: Tensor,
  device: Device,
  options: { sparsityScale?: number; dead?: readonly number[]; project?: boolean } = {},
): Promise<StepResult> {
  const { kernels } = device;
  const architecture = trainingOf(config);
  const input = config.applyBDecToInput ? kernels.addRow(x, parameters.decoderBias, { scale: -1 }) : x;
  const codes = architecture.encode({ kernels, parameters }, input);
  const since = Float64Array.from({ length: config.dSae }, (_, i) => (options.dead?.includes(i) ? 1 : 0));
  const step: GradientStep = {
    device,
    kernels,
    parameters,
    x,
    input,
    tokens: codes.rows,
    codes,
    deadLatents: options.dead && kernels.featuresNotFiredFor(device.tensor(since, [config.dSae]), 1),
    decoderUnitNorm: config.decoderUnitNorm,
    sparsityScale: options.sparsityScale ?? 1,
    keep: (handle) => handle,
  };
  const result = architecture.gradients(step);
  const rows = parameterGradients(step, result, config.applyBDecToInput);
  const decoder = { ...rows.decoder, projectOutRow: options.project ?? false };
  const losses: Record<string, number> = {};
  for (const [name, { sum, scale }] of Object.entries(result.losses)) losses[name] = scale * (await sum.readScalar());
  return {
    losses,
    gradients: {
      encoder: await kernels.rowGradient(rows.encoder, parameters.encoder).readFloat32(),
      encoderBias: await rows.encoderBias.readFloat32(),
      decoder: await kernels.rowGradient(decoder, parameters.decoder).readFloat32(),
      decoderBias: await rows.decoderBias.readFloat32(),
    },
  };
}
