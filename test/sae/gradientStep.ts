import type { Codes } from "../../lib/engine/codes.js";
import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import type { GradientStep, SaeParameters } from "../../lib/sae/architecture.js";
import { architectureNamed } from "../../lib/sae/architectures.js";
import { parseSaeConfig, type SaeTrainingConfig, trainingOf } from "../../lib/sae/config.js";
import { parameterGradients } from "../../lib/sae/gradients.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { DeadLatents } from "../../lib/training/deadLatents.js";

export interface StepResult {
  readonly losses: Record<string, number>;
  /** The latents that the training step selected. */
  readonly codes: Codes;
  readonly gradients: Record<string, Float32Array>;
}

export interface StepOptions {
  /** What a transcoder reconstructs. */
  readonly y?: Tensor;
  readonly sparsityScale?: number;
  readonly step?: number;
  /** Dead latents; by default those that `deadAfterTokens` makes of this one batch. */
  readonly dead?: readonly number[];
  readonly project?: boolean;
}

/** Losses and gradients of one batch, read back whole: what training only ever evaluates row by row. */
export async function gradientStep(
  config: SaeTrainingConfig,
  parameters: SaeParameters,
  x: Tensor,
  device: Device,
  options: StepOptions = {},
): Promise<StepResult> {
  const { kernels } = device;
  const architecture = trainingOf(config);
  const state = Object.entries(architectureNamed(config.architecture).state).map(([name, size]) => [
    name,
    device.zeros([size], "f64"),
  ]);
  const target = options.y ?? x;
  const trainingStep = {
    device,
    kernels,
    parameters,
    input: config.applyBDecToInput ? kernels.addRow(x, parameters.decoderBias, { scale: -1 }) : x,
    target:
      parameters.skip === undefined ? target : kernels.add(target, kernels.linear(x, parameters.skip), { scale: -1 }),
    tokens: x.shape[0]!,
    step: options.step ?? 0,
    decoderUnitNorm: config.decoderUnitNorm,
    hookWidths: config.hookWidths,
    sparsityScale: options.sparsityScale ?? 1,
    state: Object.fromEntries(state),
    keep: <T>(handle: T): T => handle,
  };
  const encoded = architecture.encode(trainingStep);
  const { codes } = encoded;
  const counters = new DeadLatents(device, config.dSae, config.deadAfterTokens);
  counters.record(codes);
  const since = Float64Array.from({ length: config.dSae }, (_, i) => (options.dead?.includes(i) ? 1 : 0));
  const step: GradientStep = {
    ...trainingStep,
    encoded,
    codes,
    deadLatents: () =>
      options.dead === undefined
        ? counters.current()
        : kernels.featuresNotFiredFor(device.tensor(since, [config.dSae]), 1),
  };
  const result = architecture.gradients(step);
  const gradients = parameterGradients(step, result, config.applyBDecToInput);

  const losses: Record<string, number> = {};
  for (const [name, { sum, scale, latents }] of Object.entries(result.losses)) {
    const none = latents !== undefined && (await latents.read()).length === 0;
    losses[name] = none ? 0 : scale * (await sum.readScalar());
  }
  const read: Record<string, Float32Array> = {};
  for (const { name, trained } of parameterLayout(parseSaeConfig(config))) {
    if (!trained) continue;
    const { [name]: rows } = gradients.rows;
    const projection = name === "decoder" ? { projectOutRow: options.project ?? false } : {};
    const gradient =
      rows === undefined
        ? gradients.vectors[name]!
        : kernels.rowGradient({ ...rows, ...projection }, parameters[name]!);
    read[name] = await gradient.readFloat32();
  }
  return { losses, codes, gradients: read };
}
