import type { ActivationSource } from "../activations/source.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { SaeTrainingConfig } from "../sae/config.js";

/** Neighbouring columns of a source's batches. */
export interface Columns {
  /** The hook's, where the source names it. */
  readonly name?: string;
  readonly from: number;
  readonly width: number;
}

/** Where in a source's batches an SAE finds what it encodes, hook by hook, and what it reconstructs. */
export interface SaeColumns {
  readonly input: readonly Columns[];
  /** The input's, unless the SAE is a transcoder. */
  readonly target: readonly Columns[];
}

/**
 * The columns that an SAE's `hook` and `targetHook` name.
 *
 * @param path what messages call the configuration
 * @throws MonosemError ERR_CONFIG for a hook that the source does not have, or widths that are not the SAE's.
 */
export function columnsOf(config: SaeTrainingConfig, source: ActivationSource, path: string): SaeColumns {
  const { hook, targetHook, dIn, dOut = dIn, transcoder = false } = config;
  if (transcoder !== (targetHook !== undefined)) {
    throw new MonosemError(
      "ERR_CONFIG",
      transcoder
        ? `${path}: a transcoder needs a targetHook: the activations that it reconstructs`
        : `${path}.targetHook is ${targetHook}, but the SAE is not a transcoder`,
    );
  }
  const input = named(hook === undefined ? undefined : [hook].flat(), source, path);
  const target = targetHook === undefined ? input : named([targetHook], source, path);
  for (const [key, columns, width] of [
    ["dIn", input, dIn],
    ["dOut", target, dOut],
  ] as const) {
    const widths = columns.map((range) => range.width);
    if (widths.reduce((sum, one) => sum + one, 0) !== width) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${path}.${key} is ${width}, but the activations are ${sumText(widths)} wide`,
      );
    }
  }
  const widths = config.hookWidths;
  if (widths !== undefined && widths.join() !== input.map((range) => range.width).join()) {
    throw new MonosemError(
      "ERR_CONFIG",
      `${path}.hookWidths is [${widths.join(", ")}], but the hooks are [${input.map((range) => range.width).join(", ")}] wide`,
    );
  }
  return { input, target };
}

/** "384", or "192 + 192 = 384". */
export function sumText(widths: readonly number[]): string {
  const sum = widths.reduce((total, width) => total + width, 0);
  return widths.length === 1 ? String(sum) : `${widths.join(" + ")} = ${sum}`;
}

function named(
  names: readonly string[] | undefined,
  { dIn, hooks }: ActivationSource,
  path: string,
): readonly Columns[] {
  if (names === undefined && (hooks === undefined || hooks.length === 1)) return [{ from: 0, width: dIn }];
  let from = 0;
  const all = new Map<string, Columns>();
  for (const { name, width } of hooks ?? []) {
    all.set(name, { name, from, width });
    from += width;
  }
  return (names ?? [...all.keys()]).map((name) => {
    const columns = all.get(name);
    if (columns !== undefined) return columns;
    throw new MonosemError(
      "ERR_CONFIG",
      `${path}: the activations have no hook "${name}"; they have ${[...all.keys()].join(", ") || "one without a name"}`,
    );
  });
}

/** Those columns of a batch, side by side; the batch itself where they are all of it. */
export function pickColumns(
  batch: Tensor,
  columns: readonly Columns[],
  device: Device,
  keep: <T extends Disposable>(handle: T) => T,
): Tensor {
  const { kernels } = device;
  const [rows, total] = batch.shape as [number, number];
  const [first] = columns;
  if (columns.length === 1 && first!.width === total) return batch;
  if (columns.length === 1) return keep(kernels.sliceColumns(batch, first!.from, first!.width));
  const picked = keep(device.empty([rows, columns.reduce((sum, { width }) => sum + width, 0)]));
  let at = 0;
  for (const { from, width } of columns) {
    using part = kernels.sliceColumns(batch, from, width);
    kernels.copyColumns(part, picked, at);
    at += width;
  }
  return picked;
}
