/** What latents read and write on a prompt: the parts of which interventions on latents are made. */

import { refuseArgument } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

/** Hooks that add `change` [rows, the hook points' widths side by side] to the activations. */
export function addingHooks(model: HookedTransformer, output: readonly string[], change: Tensor): readonly NamedHook[] {
  const { kernels } = model.device;
  let column = 0;
  return output.map((name) => {
    const [from, width] = [column, model.hookWidth(name)];
    column += width;
    return {
      name,
      hook: (activation: Tensor) => {
        using part = kernels.sliceColumns(change, from, width);
        using shaped = part.reshape(activation.shape);
        return kernels.add(activation, shaped);
      },
    };
  });
}

/** The activations of every latent that fires at a position that counts, [positions]. */
export async function activationsByLatent(
  sae: Sae,
  x: Tensor,
  tokens: readonly number[],
  special: ReadonlySet<number>,
): Promise<Map<number, Float64Array>> {
  using codes = sae.encode(x);
  const { rowOffsets, features, values } = await codes.read();
  const found = new Map<number, Float64Array>();
  tokens.forEach((token, position) => {
    if (special.has(token)) return;
    for (let entry = rowOffsets[position]!; entry < rowOffsets[position + 1]!; entry++) {
      if (values[entry] === 0) continue;
      const latent = features[entry]!;
      const activations = found.get(latent) ?? new Float64Array(tokens.length);
      activations[position] = values[entry]!;
      found.set(latent, activations);
    }
  });
  return found;
}

/** What a latent's activation at each position is multiplied by besides its decoder row: not 1 where the SAE normalises activations. */
export async function outputScales(sae: Sae, x: Tensor): Promise<Float32Array> {
  using scales = sae.outputScales(x);
  return (await scales?.readFloat32()) ?? new Float32Array(x.shape[0]!).fill(1);
}

/**
 * @throws MonosemError ERR_INVALID_ARGUMENT for a latent that the SAE does not have, for one named twice, and for none
 */
export function checkLatents(latents: readonly number[], dSae: number): void {
  if (!Array.isArray(latents)) refuseArgument("latents", "a list of numbers of latents", latents);
  for (const [index, latent] of latents.entries()) {
    if (!Number.isInteger(latent) || latent < 0 || latent >= dSae) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `there is no latent ${String(latent)}; the SAE has ${dSae}, numbered 0 to ${dSae - 1}`,
      );
    }
    if (latents.indexOf(latent) !== index) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `latent ${latent} is named twice`);
    }
  }
  if (latents.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no latents were named");
}
