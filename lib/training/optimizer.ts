import type { Device } from "../engine/device.js";
import type { KeptGradient } from "../engine/keptGradient.js";
import type { AdamStep, Moments } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";
import type { SaeParameters } from "../sae/architecture.js";
import type { ParameterGradients } from "../sae/gradients.js";

export interface AdamOptions {
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  /** Largest global L2 norm of the gradient, over all parameters; null: no clipping. */
  readonly clipGradNorm: number | null;
}

/** The global norm of one step's gradient, and what was kept of the gradient when it was taken. */
export interface GradientNorm extends Disposable {
  /** The squared global L2 norm, after the projection; f64 [1]. */
  readonly squared: Tensor;
  /** By parameter. */
  readonly kept: ReadonlyMap<string, KeptGradient>;
}

/** What one step of the optimizer is told besides the gradients. */
export interface OptimizerStep {
  /** What `norm` gave for these gradients; clipping needs it. */
  readonly norm: GradientNorm | undefined;
  /** f64 [1] that is not finite when the gradients are not: they are refused then, and nothing is changed. */
  readonly guard: Tensor;
  /** Counted from 0. */
  readonly step: number;
  readonly learningRate: number;
}

/**
 * Adam as torch.optim.Adam defines it, after clipping by the global norm as torch.nn.utils.clip_grad_norm_ does it.
 * No gradient of a weight matrix is ever stored: the row kernels form each row's gradient, clip it, update moments and
 * weights, and renormalise in one pass.
 */
export class Optimizer {
  /** By parameter. */
  readonly moments: ReadonlyMap<string, Moments>;
  readonly #device: Device;
  readonly #parameters: SaeParameters;
  readonly #options: AdamOptions & { readonly decoderUnitNorm: boolean };

  /** @param trained the parameters that gradients move */
  constructor(
    parameters: SaeParameters,
    trained: readonly string[],
    device: Device,
    options: AdamOptions & { readonly decoderUnitNorm: boolean },
  ) {
    this.moments = new Map(
      trained.map((name) => {
        const { shape } = parameters[name]!;
        return [name, { m: device.zeros(shape), v: device.zeros(shape) }];
      }),
    );
    this.#device = device;
    this.#parameters = parameters;
    this.#options = options;
  }

  /** The norm of these gradients; the caller's to dispose. */
  norm({ rows, vectors }: ParameterGradients): GradientNorm {
    const { kernels } = this.#device;
    const squared = this.#device.zeros([1], "f64");
    const kept = new Map<string, KeptGradient>();
    for (const name of this.moments.keys()) {
      const gradient = rows[name];
      if (gradient === undefined) continue;
      kept.set(name, kernels.rowGradientSquaredNorm(gradient, this.#parameters[name]!, squared));
    }
    for (const name of this.moments.keys()) {
      const gradient = vectors[name];
      if (gradient !== undefined) kernels.dot(gradient, gradient, squared);
    }
    const dispose = (): void => {
      squared.dispose();
      for (const handle of kept.values()) handle.dispose();
    };
    return { squared, kept, [Symbol.dispose]: dispose };
  }

  /** One step of all trained parameters. The device refuses it with ERR_NON_FINITE where norm or guard is not finite. */
  step({ rows, vectors }: ParameterGradients, { norm, guard, step, learningRate }: OptimizerStep): void {
    const { kernels } = this.#device;
    const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: epsilon, clipGradNorm, decoderUnitNorm } = this.#options;
    const adam: AdamStep = { learningRate, beta1, beta2, epsilon, step: step + 1 };
    const clip =
      clipGradNorm === null || norm === undefined
        ? { squaredNorm: guard, maxNorm: Number.POSITIVE_INFINITY } // no clipping, but a look whether all is finite
        : { squaredNorm: norm.squared, maxNorm: clipGradNorm };
    for (const [name, moments] of this.moments) {
      const parameter = this.#parameters[name]!;
      const [rowGradient, vector] = [rows[name], vectors[name]];
      if (rowGradient !== undefined) {
        const unitNorm = decoderUnitNorm && name === "decoder";
        kernels.stepRows(rowGradient, parameter, moments, adam, { clip, kept: norm?.kept.get(name), unitNorm });
      } else if (vector !== undefined) {
        kernels.stepVector(vector, parameter, moments, adam, { clip });
      } else {
        throw new Error(`the architecture states no gradient of ${name}`);
      }
    }
  }

  dispose(): void {
    for (const { m, v } of this.moments.values()) {
      m.dispose();
      v.dispose();
    }
  }
}
