/** Directions of features: random, then pushed apart. */
import type { Device } from "../engine/device.js";
import type { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import { throwIfAborted } from "../errors.js";
import type { SyntheticConfig } from "./syntheticConfig.js";

/** Adam steps queued on the device before waiting for it. */
const stepsTogether = 10;

/**
 * Unit vectors [features, dIn]: normally distributed ones after Adam steps on
 *
 *     sum over i ≠ j of (d_i · d_j)² + features * sum over i of (|d_i|² - 1)²
 *
 * normalised again. Its gradient at d_i is 4 (D Dᵀ D)_i + 4 ((features - 1) |d_i|² - features) d_i: with DᵀD in between
 * it costs features * dIn², not features² * dIn.
 */
export async function separatedDirections(
  { features, dIn, orthogonalisation }: SyntheticConfig,
  random: RandomGenerator,
  device: Device,
  signal?: AbortSignal,
): Promise<Tensor> {
  const { kernels } = device;
  const directions = device.empty([features, dIn]);
  random.normal(directions);
  kernels.normaliseRows(directions, 1, { out: directions });
  using m = device.zeros([features, dIn]);
  using v = device.zeros([features, dIn]);
  for (let step = 1; step <= orthogonalisation.steps; step++) {
    using gradient = separationGradient(directions);
    kernels.stepVector(
      gradient,
      directions,
      { m, v },
      { learningRate: orthogonalisation.lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step },
    );
    if (step % stepsTogether === 0) {
      await device.synchronize();
      throwIfAborted(signal, "making synthetic features");
    }
  }
  kernels.normaliseRows(directions, 1, { out: directions });
  return directions;
}

/** The gradient of the loss above. */
export function separationGradient(directions: Tensor): Tensor {
  const { kernels } = directions.device;
  const features = directions.shape[0]!;
  using columns = kernels.transpose(directions);
  using products = kernels.linear(columns, columns);
  using mixed = kernels.linear(directions, products);
  using norms = kernels.rowNorms(directions);
  using squaredNorms = kernels.multiply(norms, norms);
  using cubed = kernels.scaleRows(directions, squaredNorms);
  using pulled = kernels.add(mixed, cubed, { scale: features - 1 });
  using gradient = kernels.add(pulled, directions, { scale: -features });
  return kernels.scale(gradient, 4);
}
