import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { checkContexts, type PairingOptions } from "./pairing.js";
import { type HookChoice, hooksForSae } from "./saeHook.js";

export interface TextFeatureOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly text: string;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
  /** Latents per token at most. Default 5. */
  readonly top?: number;
}

/** A token of a text, and the latents that are active on it, the largest values first. */
export interface TokenFeatures {
  readonly token: number;
  readonly text: string;
  readonly latents: readonly { readonly latent: number; readonly value: number }[];
}

/**
 * Which latents of an SAE are active on a text, token by token. The text begins with BOS as in the SAE's training, or
 * where that is not known if the model has one; special tokens are left out of the result.
 *
 * @throws MonosemError ERR_CONFIG if model, hook, SAE and text do not belong together; ERR_INVALID_ARGUMENT for a text
 * without tokens or one longer than the model's context
 */
export async function textFeatures(options: TextFeatureOptions): Promise<readonly TokenFeatures[]> {
  const { sae, model, text, top = 5 } = options;
  const { tokenizer, config } = model;
  const { input } = hooksForSae(model, sae, options.hook, options);
  const { prependBos = true } = sae.metadata;
  const tokens = tokenizer.encode(text);
  if (prependBos && config.bosTokenId !== undefined) tokens.unshift(config.bosTokenId);
  if (!options.allowMismatch && tokens.length > 0) checkContexts(model, sae, [Int32Array.from(tokens)]);
  using x = await model.activations([tokens], input);
  using codes = sae.encode(x);
  const { rowOffsets, features, values } = await codes.read();
  return tokens
    .map((token, row) => {
      const entries = Array.from(features.subarray(rowOffsets[row], rowOffsets[row + 1]), (latent, index) => ({
        latent,
        value: values[rowOffsets[row]! + index]!,
      }));
      const latents = entries.sort((a, b) => b.value - a.value || a.latent - b.latent).slice(0, top);
      return { token, text: tokenizer.tokenText(token), latents };
    })
    .filter(({ token }) => !tokenizer.specialTokenIds.has(token));
}
