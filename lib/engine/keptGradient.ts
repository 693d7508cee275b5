import type { NativeKeptGradient } from "./addon.js";
import { Handle } from "./handle.js";
import type { RowGradient } from "./kernels.js";
import type { Tensor } from "./tensor.js";

/**
 * What {@link Kernels.rowGradientSquaredNorm} leaves for {@link Kernels.stepRows}: the gradient's rows where making them
 * again would cost more than memory (codes that are dense, or many entries per latent), nothing otherwise.
 */
export class KeptGradient extends Handle<NativeKeptGradient> {
  /** @internal */
  readonly gradient: RowGradient;
  /** @internal */
  readonly weights: Tensor;

  /** @internal */
  constructor(gradient: RowGradient, weights: Tensor, handle: NativeKeptGradient) {
    super(handle);
    this.gradient = gradient;
    this.weights = weights;
  }

  /** @internal */
  override describe(): string {
    return "a kept gradient";
  }
}
