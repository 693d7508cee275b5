/**
 * Latents of an SAE changed while a model runs or generates. The hooks made here go wherever hooks go: into `forward`,
 * `loss`, `generate` and `stream` of a model, with or without other SAEs in it.
 */

import type { PairingOptions } from "../analysis/pairing.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Hook, HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { changeColumns, changedLatents, checkChanges, type LatentChange } from "./latentChange.js";

export interface InterventionOptions extends PairingOptions {
  /** The hook point that the SAE reads; by default that of its metadata. */
  readonly hook?: string | undefined;
  /**
   * Keep what the SAE does not reconstruct, so that only what the changed latents write changes (default). Without it, the
   * activations at the chosen positions become the SAE's reconstruction by the changed latents.
   */
  readonly errorTerm?: boolean | undefined;
  /** Where; by default everywhere. The other positions stay as they are, to the bit. See {@link ChosenPositions}. */
  readonly positions?: ChosenPositions | undefined;
}

/**
 * Positions of a run, from 0: those of the prompt (BOS included, and the padding before shorter prompts of a batch), then
 * those of the tokens that are generated.
 */
export type ChosenPositions = readonly number[] | ((position: number) => boolean);

const optionNames: OptionNames<InterventionOptions> = {
  hook: true,
  errorTerm: "boolean",
  positions: true,
  allowMismatch: "boolean",
};

/**
 * Hooks that change latents. With `positions` they count those that they have seen: make new ones for each run.
 *
 * @throws MonosemError as `hooksForSae` and `checkChanges`; ERR_UNSUPPORTED for a crosscoder over several hook points;
 *   ERR_INVALID_ARGUMENT for an empty list of positions, and for what is no natural number in it
 */
export function interventions(
  model: HookedTransformer,
  sae: Sae,
  changes: readonly LatentChange[],
  options: InterventionOptions = {},
): readonly NamedHook[] {
  checkOptions("interventions", options, optionNames);
  const { hook, allowMismatch, errorTerm = true } = options;
  const { input, output } = hooksForSae(model, sae, hook, { allowMismatch });
  if (input.length > 1) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      "latents of a crosscoder over several hook points cannot be changed in a run: they are known only at the last one",
    );
  }
  checkChanges(changes, sae.config.dSae);
  const rowsOf = chosenRows(options.positions);
  const change = (activation: Tensor, x: Tensor): Tensor | undefined => {
    const rows = rowsOf(activation);
    if (rows?.length === 0) return undefined;
    return changedActivation(sae, changes, { activation, x, rows, errorTerm });
  };
  const [reads, writes] = [input[0]!, output[0]!];
  if (reads === writes) return [{ name: writes, hook: (activation) => change(activation, activation) }];
  let transcoderInput: Tensor | undefined;
  return [
    {
      name: reads,
      hook: (activation) => {
        transcoderInput?.dispose();
        transcoderInput = activation.reshape(activation.shape);
      },
    },
    {
      name: writes,
      hook: (activation) => {
        using x = transcoderInput!;
        transcoderInput = undefined;
        return change(activation, x);
      },
    },
  ];
}

const latentInterventionOptions: OptionNames<Pick<InterventionOptions, "positions">> = {
  positions: true,
};

/**
 * The same as a hook for `H.hook_sae_acts_post` of a `HookedSaeTransformer`, where the SAE stands in the model anyway
 * (H: where it writes).
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT as `checkChanges`, when it runs; for an empty list of positions, and for what is no
 *   natural number in it
 */
export function latentIntervention(
  changes: readonly LatentChange[],
  options: Pick<InterventionOptions, "positions"> = {},
): Hook {
  checkOptions("latentIntervention", options, latentInterventionOptions);
  const { positions } = options;
  const rowsOf = chosenRows(positions);
  return (latents) => {
    const dSae = latents.shape.at(-1)!;
    checkChanges(changes, dSae);
    const rows = rowsOf(latents);
    if (rows?.length === 0) return undefined;
    using all = latents.reshape([latents.size / dSae, dSae]);
    using result = withRows(all, rows, (chosen) => changedMatrix(chosen, changes));
    return result.reshape(latents.shape);
  };
}

/**
 * The rows of an activation [batch, positions, ...] that are chosen, sequence after sequence; undefined for all. Every call
 * goes on where the one before it ended, as the passes of a generation do.
 */
function chosenRows(positions: ChosenPositions | undefined): (activation: Tensor) => Int32Array | undefined {
  if (positions === undefined) return () => undefined;
  if (typeof positions !== "function") {
    const isPosition = (at: unknown): boolean => Number.isSafeInteger(at) && (at as number) >= 0;
    if (!Array.isArray(positions)) refuseArgument("positions", "a list of positions, or a function of one", positions);
    const wrong = positions.findIndex((at) => !isPosition(at));
    if (wrong !== -1) refuseArgument(`positions[${wrong}]`, "a natural number", positions[wrong]);
  }
  if (typeof positions !== "function" && positions.length === 0) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", "positions: none are chosen; leave it out to choose all");
  }
  const isChosen = typeof positions === "function" ? positions : (at: number): boolean => positions.includes(at);
  let first = 0;
  return ({ shape }) => {
    const [batch = 0, count = 0] = shape;
    const chosen = Array.from({ length: count }, (_, index) => index).filter((index) => isChosen(first + index));
    first += count;
    return Int32Array.from(
      Array.from({ length: batch }, (_, sequence) => chosen.map((index) => sequence * count + index)).flat(),
    );
  };
}

/** `all` [rows, width] with `rows` (undefined: all) replaced by what `change` makes of them. */
function withRows(all: Tensor, rows: Int32Array | undefined, change: (chosen: Tensor) => Tensor): Tensor {
  if (rows === undefined) return change(all);
  const { kernels } = all.device;
  using places = all.device.tensor(rows, [rows.length]);
  using chosen = kernels.gatherRows(all, places);
  using changed = change(chosen);
  const result = kernels.scale(all, 1);
  kernels.scatterRows(changed, places, result);
  return result;
}

function changedActivation(
  sae: Sae,
  changes: readonly LatentChange[],
  {
    activation,
    x,
    rows,
    errorTerm,
  }: {
    readonly activation: Tensor;
    readonly x: Tensor;
    readonly rows: Int32Array | undefined;
    readonly errorTerm: boolean;
  },
): Tensor {
  const { kernels } = sae.device;
  const { dIn, dOut } = sae.config;
  using allInputs = x.reshape([x.size / dIn, dIn]);
  using places = rows === undefined ? undefined : sae.device.tensor(rows, [rows.length]);
  using inputs = places === undefined ? allInputs.reshape(allInputs.shape) : kernels.gatherRows(allInputs, places);
  using codes = sae.encode(inputs);
  using latents = kernels.densify(codes);
  using all = activation.reshape([activation.size / dOut, dOut]);
  using result = withRows(all, rows, (chosen) => {
    if (errorTerm) return withDifference(sae, changes, { latents, inputs, target: chosen });
    using changed = changedMatrix(latents, changes);
    return sae.decodeDense(changed, inputs);
  });
  return result.reshape(activation.shape);
}

/** target + (changed latents - latents) W_dec, times `outputScales` of the inputs where the SAE normalises them. */
function withDifference(
  sae: Sae,
  changes: readonly LatentChange[],
  { latents, inputs, target }: { readonly latents: Tensor; readonly inputs: Tensor; readonly target: Tensor },
): Tensor {
  const { device } = sae;
  const { kernels } = device;
  const touched = changedLatents(changes);
  using before = columnsOf(latents, touched);
  using after = changeColumns(kernels, before, touched, changes);
  using difference = kernels.add(after, before, { scale: -1 });
  using scales = sae.outputScales(inputs);
  if (scales !== undefined) kernels.scaleRows(difference, scales, { out: difference });
  using chosen = device.tensor(Int32Array.from(touched), [touched.length]);
  using directions = kernels.gatherRows(sae.parameters.decoder, chosen);
  using weights = kernels.transpose(directions); // [dOut, latents]
  return kernels.linear(difference, weights, { residual: target });
}

/** Latents [rows, dSae] with changes. */
function changedMatrix(latents: Tensor, changes: readonly LatentChange[]): Tensor {
  const { kernels } = latents.device;
  const touched = changedLatents(changes);
  using columns = columnsOf(latents, touched);
  using changed = changeColumns(kernels, columns, touched, changes);
  const result = kernels.scale(latents, 1);
  for (const [place, latent] of touched.entries()) {
    using column = kernels.sliceColumns(changed, place, 1);
    kernels.copyColumns(column, result, latent);
  }
  return result;
}

/** Some columns of a matrix [rows, columns], side by side. */
function columnsOf(matrix: Tensor, columns: readonly number[]): Tensor {
  const { device } = matrix;
  const result = device.empty([matrix.shape[0]!, columns.length]);
  for (const [place, index] of columns.entries()) {
    using column = device.kernels.sliceColumns(matrix, index, 1);
    device.kernels.copyColumns(column, result, place);
  }
  return result;
}
