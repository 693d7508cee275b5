import { MonosemError } from "../errors.js";
import { type NativeKeptGradient, native } from "./addon.js";
import type { RowGradient } from "./kernels.js";
import type { Tensor } from "./tensor.js";

let handleOf: (kept: KeptGradient, what: string) => NativeKeptGradient;

/**
 * What {@link Kernels.rowGradientSquaredNorm} leaves for {@link Kernels.stepRows}: the gradient's rows where making them
 * again would cost more than memory (codes that are dense, or many entries per latent), nothing otherwise.
 */
export class KeptGradient {
  /** @internal */
  readonly gradient: RowGradient;
  /** @internal */
  readonly weights: Tensor;
  #handle: NativeKeptGradient | undefined;

  static {
    handleOf = (kept, what) => {
      if (kept.#handle === undefined) throw new MonosemError("ERR_DISPOSED", `${what} (a kept gradient) was disposed`);
      return kept.#handle;
    };
  }

  /** @internal */
  constructor(gradient: RowGradient, weights: Tensor, handle: NativeKeptGradient) {
    this.gradient = gradient;
    this.weights = weights;
    this.#handle = handle;
  }

  /** Gives the handle back. Queued work that uses it still completes; a second call does nothing. */
  dispose(): void {
    if (this.#handle === undefined) return;
    native.disposeHandle(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`. */
export function keptGradientHandle(kept: KeptGradient, what: string): NativeKeptGradient {
  return handleOf(kept, what);
}
