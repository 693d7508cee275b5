import type { ActivationHook } from "../activations/source.js";
import type { Sae } from "../sae/sae.js";

/** How strongly a latent of a crosscoder writes at each of its hooks. */
export interface LatentDecoderNorms {
  readonly latent: number;
  readonly norms: readonly { readonly hook: string; readonly norm: number }[];
}

/**
 * Norms of the parts of decoder rows that belong to each hook (Lindsey et al. 2024, Sparse Crosscoders): they tell the
 * latents that all hooks share from those of one hook alone.
 *
 * @param hooks whose columns lie side by side in the decoder rows, in this order
 * @returns one entry per latent asked for, in that order
 */
export async function decoderNormsPerHook(
  sae: Sae,
  hooks: readonly ActivationHook[],
  latents: readonly number[],
): Promise<readonly LatentDecoderNorms[]> {
  if (latents.length === 0) return [];
  const { device, parameters, config } = sae;
  using indices = device.tensor(Int32Array.from(latents), [latents.length]);
  using rows = device.kernels.gatherRows(parameters.decoder, indices);
  const values = await rows.readFloat32();
  return latents.map((latent, index) => {
    let column = index * config.dOut;
    const norms = hooks.map(({ name, width }) => {
      const part = values.subarray(column, column + width);
      column += width;
      return { hook: name, norm: Math.hypot(...part) };
    });
    return { latent, norms };
  });
}
