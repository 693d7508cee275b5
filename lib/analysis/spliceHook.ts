import type { Tensor } from "../engine/tensor.js";
import type { Hook } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

/** The hook that puts the SAE's reconstruction in the activation's place, except in rows where `replaced` is 0. */
export function spliceHook(sae: Sae, replaced?: Tensor): Hook {
  return (activation) => {
    const { kernels } = sae.device;
    using rows = activation.reshape([activation.size / sae.config.dIn, sae.config.dIn]);
    using reconstruction = sae.reconstruct(rows);
    if (replaced === undefined) return reconstruction.reshape(activation.shape);
    // x + replaced * (reconstruction - x): with `replaced` 0 exactly x.
    using difference = kernels.add(reconstruction, rows, { scale: -1 });
    kernels.scaleRows(difference, replaced, { out: difference });
    kernels.add(rows, difference, { out: difference });
    return difference.reshape(activation.shape);
  };
}
