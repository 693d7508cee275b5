import type { Device } from "../engine/device.js";
import type { KeptGradient } from "../engine/keptGradient.js";
import type { AdamStep, Clip, Moments } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";
import { parameterNames, type SaeParameters } from "../sae/architecture.js";
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
  readonly encoder: KeptGradient;
  readonly decoder: KeptGradient;
}

/**
 * Adam as torch.optim.Adam defines it, after clipping by the global norm as torch.nn.utils.clip_grad_norm_ does it.
 * No gradient of a weight matrix is ever stored: the row kernels form each row's gradient, clip it, update moments and
 * weights, and renormalise in one pass.
 */
export class Optimizer {
  readonly moments: Readonly<Record<keyof SaeParameters, Moments>>;
  readonly #device: Device;
  readonly #parameters: SaeParameters;
  readonly #options: AdamOptions & { readonly decoderUnitNorm: boolean };

  constructor(parameters: SaeParameters, device: Device, options: AdamOptions & { readonly decoderUnitNorm: boolean }) {
    const zero = (parameter: Tensor): Moments => ({
      m: device.zeros(parameter.shape),
      v: device.zeros(parameter.shape),
    });
    this.moments = {
      encoder: zero(parameters.encoder),
      encoderBias: zero(parameters.encoderBias),
      decoder: zero(parameters.decoder),
      decoderBias: zero(parameters.decoderBias),
    };
    this.#device = device;
    this.#parameters = parameters;
    this.#options = options;
  }

  /** The norm of these gradients; the caller's to dispose. */
  norm(gradients: ParameterGradients): GradientNorm {
    const { kernels } = this.#device;
    const squared = this.#device.zeros([1], "f64");
    const encoder = kernels.rowGradientSquaredNorm(gradients.encoder, this.#parameters.encoder, squared);
    const decoder = kernels.rowGradientSquaredNorm(gradients.decoder, this.#parameters.decoder, squared);
    kernels.dot(gradients.encoderBias, gradients.encoderBias, squared);
    kernels.dot(gradients.decoderBias, gradients.decoderBias, squared);
    const dispose = (): void => {
      for (const handle of [squared, encoder, decoder]) handle.dispose();
    };
    return { squared, encoder, decoder, [Symbol.dispose]: dispose };
  }

  /**
   * @param norm what `norm` gave for these gradients; only clipping needs it
   * @param step counted from 0
   */
  step(gradients: ParameterGradients, norm: GradientNorm | undefined, step: number, learningRate: number): void {
    const { kernels } = this.#device;
    const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: epsilon, clipGradNorm, decoderUnitNorm } = this.#options;
    const p = this.#parameters;
    const adam: AdamStep = { learningRate, beta1, beta2, epsilon, step: step + 1 };
    const clipping: { clip?: Clip } =
      clipGradNorm === null || norm === undefined ? {} : { clip: { squaredNorm: norm.squared, maxNorm: clipGradNorm } };
    kernels.stepRows(gradients.encoder, p.encoder, this.moments.encoder, adam, { ...clipping, kept: norm?.encoder });
    kernels.stepRows(gradients.decoder, p.decoder, this.moments.decoder, adam, {
      ...clipping,
      kept: norm?.decoder,
      unitNorm: decoderUnitNorm,
    });
    kernels.stepVector(gradients.encoderBias, p.encoderBias, this.moments.encoderBias, adam, clipping);
    kernels.stepVector(gradients.decoderBias, p.decoderBias, this.moments.decoderBias, adam, clipping);
  }

  dispose(): void {
    for (const name of parameterNames) {
      this.moments[name].m.dispose();
      this.moments[name].v.dispose();
    }
  }
}
