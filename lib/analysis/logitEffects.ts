import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import type { PairingOptions } from "./pairing.js";
import { type HookChoice, hooksForSae } from "./saeHook.js";

/** A token and how much a latent, active at 1, adds to its logit. */
export interface TokenEffect {
  readonly token: number;
  readonly effect: number;
}

/** The tokens that a latent makes likelier and less likely, strongest first. */
export interface LatentLogitEffects {
  readonly latent: number;
  readonly raised: readonly TokenEffect[];
  readonly lowered: readonly TokenEffect[];
}

export interface LogitEffectOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
  /** Which latents. */
  readonly latents: readonly number[];
  /** Tokens at either end. Default 10. */
  readonly count?: number;
}

/** Hook points whose activations are, or are added to, the residual stream. */
const WRITES_TO_RESIDUAL = /(^|\.)hook_(embed|pos_embed|resid_pre|resid_mid|resid_post|attn_out|mlp_out)$/;

/** Latents whose logits are held at a time: [block, vocabulary]. */
const BLOCK = 64;

/** Whether the SAE's decoder writes to the residual stream, so that its directions have an effect on the logits. */
export function hasLogitEffects(
  model: HookedTransformer,
  sae: Sae,
  hook?: HookChoice,
  pairing: PairingOptions = {},
): boolean {
  const { output } = hooksForSae(model, sae, hook, pairing);
  return output.length === 1 && WRITES_TO_RESIDUAL.test(output[0]!);
}

/**
 * The direct effect of latents on the next token (nostalgebraist's logit lens, read for decoder directions as feature
 * dashboards do): decoder direction . W_U, the final LayerNorm's weight folded into W_U, its centring and that of the logits applied,
 * its division by the standard deviation left out (it depends on the text, and does not change the order).
 *
 * @returns one entry per latent asked for, in that order
 * @throws MonosemError ERR_UNSUPPORTED at a hook point outside of the residual stream, ERR_CONFIG if model, hook and
 * SAE do not belong together, ERR_INVALID_ARGUMENT for a latent that does not exist
 */
export async function logitEffects(options: LogitEffectOptions): Promise<readonly LatentLogitEffects[]> {
  const { sae, model, latents, count = 10 } = options;
  const { dSae } = sae.config;
  const { kernels } = sae.device;
  if (!hasLogitEffects(model, sae, options.hook, options)) {
    const { output } = hooksForSae(model, sae, options.hook, options);
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `"${output.join('" with "')}" is not part of the residual stream: its directions have no logits`,
    );
  }
  for (const latent of latents) {
    if (!Number.isInteger(latent) || latent < 0 || latent >= dSae) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no latent ${latent}: the SAE has ${dSae}`);
    }
  }
  const effects: LatentLogitEffects[] = [];
  for (let first = 0; first < latents.length; first += BLOCK) {
    const block = latents.slice(first, first + BLOCK);
    using rows = sae.device.tensor(Int32Array.from(block), [block.length]);
    using directions = kernels.gatherRows(sae.parameters.decoder, rows);
    using logits = model.directionLogits(directions);
    const values = await logits.readFloat32();
    const width = values.length / block.length;
    block.forEach((latent, row) => {
      effects.push({ latent, ...extremes(values.subarray(row * width, (row + 1) * width), count) });
    });
  }
  return effects;
}

/** The `count` largest and smallest logits, less their mean (a shift of all logits changes no probability). */
function extremes(logits: Float32Array, count: number): Pick<LatentLogitEffects, "raised" | "lowered"> {
  const mean = logits.reduce((sum, logit) => sum + logit, 0) / logits.length;
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const effect = (token: number): TokenEffect => ({ token, effect: logits[token]! - mean });
  return {
    raised: Array.from(order.subarray(0, count), effect),
    lowered: Array.from(order.subarray(Math.max(0, order.length - count)), effect).reverse(),
  };
}
