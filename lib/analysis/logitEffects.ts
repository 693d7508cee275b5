import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { requirePair } from "./checkPair.js";
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

const optionNames: OptionNames<LogitEffectOptions> = {
  sae: true,
  model: true,
  hook: true,
  latents: true,
  count: true,
  allowMismatch: "boolean",
};

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
  checkOptions("logitEffects", options, optionNames);
  requirePair(options.model, options.sae);
  return await mapLogitEffects(options, (effects, latent) => ({
    latent,
    raised: largestEffects(effects, options.count ?? 10, 1),
    lowered: largestEffects(effects, options.count ?? 10, -1),
  }));
}

/**
 * What `measure` makes of the effects of each latent on all tokens of the vocabulary, as `logitEffects` defines them; the
 * effects are only there during its call.
 */
export async function mapLogitEffects<Measured>(
  options: Omit<LogitEffectOptions, "count">,
  measure: (effects: Float64Array, latent: number) => Measured,
): Promise<Measured[]> {
  const { sae, model, latents } = options;
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
  const measured: Measured[] = [];
  for (let first = 0; first < latents.length; first += BLOCK) {
    const block = latents.slice(first, first + BLOCK);
    using rows = sae.device.tensor(Int32Array.from(block), [block.length]);
    using directions = kernels.gatherRows(sae.parameters.decoder, rows);
    using logits = model.directionLogits(directions);
    const values = await logits.readFloat32();
    const width = values.length / block.length;
    const effects = new Float64Array(width);
    for (const [row, latent] of block.entries()) {
      let sum = 0;
      for (let token = 0; token < width; token++) sum += values[row * width + token]!;
      const mean = sum / width; // a shift of all logits changes no probability
      for (let token = 0; token < width; token++) effects[token] = values[row * width + token]! - mean;
      measured.push(measure(effects, latent));
    }
  }
  return measured;
}

/** The `count` largest effects, or with sign -1 the smallest, strongest first; of equals the lower token, or with -1 the higher. */
export function largestEffects(effects: Float64Array, count: number, sign: 1 | -1): TokenEffect[] {
  const kept: TokenEffect[] = [];
  let least = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < effects.length; index++) {
    const token = sign > 0 ? index : effects.length - 1 - index;
    const strength = sign * effects[token]!;
    if (strength <= least) continue;
    const after = kept.findIndex(({ effect }) => sign * effect < strength);
    kept.splice(after === -1 ? kept.length : after, 0, { token, effect: effects[token]! });
    if (kept.length > count) kept.pop();
    if (kept.length === count) least = sign * (kept.at(-1)?.effect ?? Number.POSITIVE_INFINITY);
  }
  return kept;
}
