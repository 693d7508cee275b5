import type { ActivationHook } from "../activations/source.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";

/** How well the activations at one of a crosscoder's hooks are reconstructed. */
export interface HookVariance {
  readonly hook: string;
  /** 1 - E|y - x̂|² / (E|y|² - |E y|²) over the hook's columns; null where its activations do not vary. */
  readonly explainedVariance: number | null;
}

/** A variance below this part of E|y|² is rounding, as in the metrics of all hooks together. */
const roundingOfVariance = 1e-12;

/** Explained variance of each hook of a crosscoder: one hook of large activations hides what happens at the others. */
export class HookVarianceAccumulator {
  readonly #device: Device;
  readonly #hooks: readonly ActivationHook[];
  /** Per column, f64 [sum of the widths]. */
  readonly #sums: Readonly<Record<"target" | "squaredTarget" | "squaredError", Tensor>>;
  #rows = 0;

  /** @param hooks whose columns lie side by side, in this order */
  constructor(device: Device, hooks: readonly ActivationHook[]) {
    this.#device = device;
    this.#hooks = hooks;
    const columns = hooks.reduce((sum, { width }) => sum + width, 0);
    const zeros = (): Tensor => device.zeros([columns], "f64");
    this.#sums = { target: zeros(), squaredTarget: zeros(), squaredError: zeros() };
  }

  /** @param target what was to be reconstructed, as `reconstruction` [rows, sum of the widths] */
  add(target: Tensor, reconstruction: Tensor): void {
    const { kernels } = this.#device;
    using residual = kernels.add(reconstruction, target, { scale: -1 });
    using squaredError = kernels.multiply(residual, residual);
    using squaredTarget = kernels.multiply(target, target);
    kernels.accumulateColumnSums(target, this.#sums.target);
    kernels.accumulateColumnSums(squaredTarget, this.#sums.squaredTarget);
    kernels.accumulateColumnSums(squaredError, this.#sums.squaredError);
    this.#rows += target.shape[0]!;
  }

  async read(): Promise<readonly HookVariance[]> {
    const { target, squaredTarget, squaredError } = this.#sums;
    const [sums, squares, errors] = await Promise.all([target.read(), squaredTarget.read(), squaredError.read()]);
    let column = 0;
    return this.#hooks.map(({ name, width }) => {
      let [meanSquare, squaredMean, error] = [0, 0, 0];
      for (const end = column + width; column < end; column++) {
        meanSquare += squares[column]! / this.#rows;
        squaredMean += (sums[column]! / this.#rows) ** 2;
        error += errors[column]! / this.#rows;
      }
      const variance = meanSquare - squaredMean;
      return {
        hook: name,
        explainedVariance: variance > roundingOfVariance * meanSquare ? 1 - error / variance : null,
      };
    });
  }

  [Symbol.dispose](): void {
    for (const sum of Object.values(this.#sums)) sum.dispose();
  }
}
