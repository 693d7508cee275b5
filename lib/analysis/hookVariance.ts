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

/** Σ over tokens of one hook's activations; f64. */
interface HookSums {
  /** Per column, [width] */
  readonly target: Tensor;
  /** Σ |y|² and Σ |x̂ - y|², [1]: of products in f64, as f32 ones would leave nothing of a variance beside a large mean. */
  readonly squaredTarget: Tensor;
  readonly squaredError: Tensor;
}

/** Explained variance of each hook of a crosscoder: one hook of large activations hides what happens at the others. */
export class HookVarianceAccumulator {
  readonly #device: Device;
  readonly #hooks: readonly ActivationHook[];
  readonly #sums: readonly HookSums[];
  #rows = 0;

  /** @param hooks whose columns lie side by side, in this order */
  constructor(device: Device, hooks: readonly ActivationHook[]) {
    this.#device = device;
    this.#hooks = hooks;
    const zeros = (size: number): Tensor => device.zeros([size], "f64");
    this.#sums = hooks.map(({ width }) => ({
      target: zeros(width),
      squaredTarget: zeros(1),
      squaredError: zeros(1),
    }));
  }

  /** @param target what was to be reconstructed, as `reconstruction` [rows, sum of the widths] */
  add(target: Tensor, reconstruction: Tensor): void {
    const { kernels } = this.#device;
    using residual = kernels.add(reconstruction, target, { scale: -1 });
    let first = 0;
    for (const [hook, { width }] of this.#hooks.entries()) {
      const sums = this.#sums[hook]!;
      using ofTarget = kernels.sliceColumns(target, first, width);
      using ofResidual = kernels.sliceColumns(residual, first, width);
      kernels.accumulateColumnSums(ofTarget, sums.target);
      kernels.dot(ofTarget, ofTarget, sums.squaredTarget);
      kernels.dot(ofResidual, ofResidual, sums.squaredError);
      first += width;
    }
    this.#rows += target.shape[0]!;
  }

  async read(): Promise<readonly HookVariance[]> {
    return await Promise.all(
      this.#hooks.map(async ({ name }, hook) => {
        const { target, squaredTarget, squaredError } = this.#sums[hook]!;
        const [sums, squares, error] = await Promise.all([
          target.read(),
          squaredTarget.readScalar(),
          squaredError.readScalar(),
        ]);
        const meanSquare = squares / this.#rows;
        const variance = Array.from(sums).reduce((rest, sum) => rest - (sum / this.#rows) ** 2, meanSquare);
        const varies = variance > roundingOfVariance * meanSquare;
        return { hook: name, explainedVariance: varies ? 1 - error / this.#rows / variance : null };
      }),
    );
  }

  [Symbol.dispose](): void {
    for (const { target, squaredTarget, squaredError } of this.#sums) {
      for (const sum of [target, squaredTarget, squaredError]) sum.dispose();
    }
  }
}
