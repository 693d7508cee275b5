import type { Tensor } from "../engine/tensor.js";
import type { Hook } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

/** The hook that puts the SAE's reconstruction in the activation's place, except in rows where `replaced` is 0. */
export function spliceHook(sae: Sae, replaced?: Tensor): Hook {
  return (activation) => {
    using rows = activation.reshape([activation.size / sae.config.dIn, sae.config.dIn]);
    using reconstruction = sae.reconstruct(rows);
    using mixed = replaced && replacedWhere(replaced, rows, reconstruction);
    return (mixed ?? reconstruction).reshape(activation.shape);
  };
}

/**
 * x + replaced (y - x) for every row of x and y [rows, width]: exactly x where `replaced` [rows] is 0; the caller's to
 * dispose.
 */
export function replacedWhere(replaced: Tensor, x: Tensor, y: Tensor): Tensor {
  const { kernels } = x.device;
  const difference = kernels.add(y, x, { scale: -1 });
  kernels.scaleRows(difference, replaced, { out: difference });
  kernels.add(x, difference, { out: difference });
  return difference;
}
