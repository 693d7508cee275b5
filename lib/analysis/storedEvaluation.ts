/** An SAE on stored activations: what `evaluate` measures, which rows of the file are none, and a crosscoder's hooks. */
import type { ActivationHook } from "../activations/source.js";
import type { StoredActivations } from "../activations/storedActivations.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type Evaluation, EvaluationAccumulator } from "../sae/evaluation.js";
import { type ReconstructionOptions, reconstructions, requireWidth } from "../sae/reconstructions.js";
import type { Sae } from "../sae/sae.js";
import { type HookVariance, HookVarianceAccumulator } from "./hookVariance.js";
import type { SaeHooks } from "./saeHook.js";

export interface StoredEvaluation {
  readonly reconstruction: Evaluation;
  /** Of a crosscoder. */
  readonly explainedVariancePerHook?: readonly HookVariance[];
}

/**
 * The tensors that `sae` reads and reconstructs.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH if they are not as wide as the SAE, or a crosscoder's not as wide as its hooks.
 */
export function tensorsForSae(sae: Sae, source: StoredActivations): SaeHooks {
  requireWidth(sae, source);
  const { dIn, transcoder, hookWidths } = sae.config;
  const { hooks } = source;
  const widths = hooks.map(({ width }) => width);
  if (hookWidths !== undefined && hooks.length > 1 && widths.join() !== hookWidths.join()) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `the tensors are [${widths.join(", ")}] wide, but the crosscoder's hooks [${hookWidths.join(", ")}]`,
    );
  }
  const names = hooks.map(({ name }) => name);
  const ends = hooks.map((_, index) => widths.slice(0, index + 1).reduce((sum, width) => sum + width, 0));
  // one tensor may hold both what a transcoder reads and what it writes
  if (!transcoder || !ends.includes(dIn)) return { input: names, output: names };
  const read = ends.indexOf(dIn) + 1;
  return { input: names.slice(0, read), output: names.slice(read) };
}

/**
 * Evaluates an SAE on all rows, once.
 *
 * @throws MonosemError ERR_NON_FINITE naming the first row that holds NaN or infinity, as `tensorsForSae`, and as
 *   `evaluate`.
 */
export async function evaluateOnStored(
  sae: Sae,
  source: StoredActivations,
  options: Omit<ReconstructionOptions, "tokens">,
): Promise<StoredEvaluation> {
  tensorsForSae(sae, source);
  const hooks = crosscoderHooks(sae, source);
  using evaluation = new EvaluationAccumulator(sae.device, sae.config.dOut, sae.config.dSae);
  using perHook = new HookVarianceAccumulator(sae.device, hooks);
  const inspect = (batch: Tensor): Promise<void> => refuseNonFiniteRows(batch, source);
  for await (const batch of reconstructions(sae, source, { ...options, tokens: source.rows }, inspect)) {
    if (hooks.length > 0) perHook.add(batch.target, batch.reconstruction);
    await evaluation.add(batch);
  }
  const reconstruction = await evaluation.read();
  return hooks.length === 0 ? { reconstruction } : { reconstruction, explainedVariancePerHook: await perHook.read() };
}

/** The hooks by the names of their tensors; all in one tensor, by those in the metadata; none for other SAEs. */
function crosscoderHooks({ config, metadata }: Sae, source: StoredActivations): readonly ActivationHook[] {
  const { hookWidths = [] } = config;
  const names: readonly unknown[] =
    source.hooks.length > 1
      ? source.hooks.map(({ name }) => name)
      : Array.isArray(metadata.hookNames)
        ? metadata.hookNames
        : [];
  return hookWidths.map((width, index) => ({ name: String(names[index] ?? `hook ${index + 1}`), width }));
}

/** A norm is finite where all numbers of a row are, unless it overflows: then there is nothing to refuse. */
async function refuseNonFiniteRows(batch: Tensor, source: StoredActivations): Promise<void> {
  using norms = batch.device.kernels.rowNorms(batch);
  if ((await norms.readFloat32()).every(Number.isFinite)) return;
  const where = await source.findNonFinite(batch.shape[0]!);
  if (where !== undefined) throw new MonosemError("ERR_NON_FINITE", `${where} holds NaN or infinity`);
}
