import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import type { SaeTrainingConfig } from "../sae/config.js";
import { layerNormEpsilon, normalisedRows } from "../sae/sae.js";
import type { SaeColumns } from "./hookColumns.js";

/** Factors on the activations, one per hook. */
export interface InputScales {
  readonly input: readonly number[];
  readonly output: readonly number[];
}

type Keep = <T extends Disposable>(handle: T) => T;

/** How activations are scaled before an SAE is trained on them (`normalizeActivations`). */
export class InputScaling {
  readonly scales: InputScales;
  readonly #device: Device;
  readonly #layerNorm: boolean;
  /** Per column; undefined: all 1. */
  readonly #input: Tensor | undefined;
  readonly #output: Tensor | undefined;

  constructor(
    { normalizeActivations }: Pick<SaeTrainingConfig, "normalizeActivations">,
    scales: InputScales,
    columns: SaeColumns,
    device: Device,
  ) {
    this.scales = scales;
    this.#device = device;
    this.#layerNorm = normalizeActivations === "layer-norm";
    const perColumn = (factors: readonly number[], ranges: SaeColumns["input"]): Tensor | undefined => {
      if (factors.every((factor) => factor === 1)) return undefined;
      const values = ranges.flatMap(({ width }, hook) => new Array<number>(width).fill(factors[hook]!));
      return device.tensor(Float32Array.from(values), [values.length]);
    };
    this.#input = perColumn(scales.input, columns.input);
    this.#output = perColumn(scales.output, columns.target);
  }

  /** x [tokens, dIn] as the SAE is trained on it. */
  scaleInput(x: Tensor, keep: Keep): Tensor {
    return this.#scale(x, this.#input, keep);
  }

  /** y [tokens, dOut] as the SAE is trained to reconstruct it. */
  scaleTarget(y: Tensor, keep: Keep): Tensor {
    return this.#scale(y, this.#output, keep);
  }

  /** An error [tokens, dOut] in the scale of the targets `y` as they came. */
  unscaleError(error: Tensor, y: Tensor, keep: Keep): Tensor {
    const { kernels } = this.#device;
    if (this.#layerNorm) {
      const { normalized, mean, standardDeviation } = kernels.standardiseRows(y, { epsilon: layerNormEpsilon });
      for (const handle of [normalized, mean, standardDeviation]) keep(handle);
      const scaled = keep(kernels.scaleRows(error, standardDeviation));
      // y is (standardDeviation + ε) normalized + mean, but an SAE's reconstruction is taken back by the deviation alone.
      return kernels.add(scaled, normalized, { scale: -layerNormEpsilon, out: scaled });
    }
    if (this.#output === undefined) return error;
    const one = keep(this.#device.empty(this.#output.shape));
    kernels.fill(one, 1);
    return keep(kernels.scaleColumns(error, keep(kernels.divide(one, this.#output))));
  }

  #scale(activations: Tensor, factors: Tensor | undefined, keep: Keep): Tensor {
    if (this.#layerNorm) return keep(normalisedRows(activations, this.#device));
    return factors === undefined ? activations : keep(this.#device.kernels.scaleColumns(activations, factors));
  }

  dispose(): void {
    this.#input?.dispose();
    this.#output?.dispose();
  }
}
