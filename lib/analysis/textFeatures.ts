import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { activationsOnText, type FeatureActivationOptions } from "../features/featureActivations.js";

export interface TextFeatureOptions extends FeatureActivationOptions {
  /** Latents per token at most. Default 5. */
  readonly top?: number;
}

const optionNames: OptionNames<TextFeatureOptions> = {
  model: true,
  sae: true,
  text: true,
  top: true,
  hook: true,
  allowMismatch: "boolean",
};

/** A token of a text, and the latents that are active on it, the largest values first. */
export interface TokenFeatures {
  readonly token: number;
  readonly text: string;
  readonly latents: readonly { readonly latent: number; readonly value: number }[];
}

/**
 * Which latents of an SAE are active on a text, token by token: `featureActivations` seen from the tokens.
 *
 * @throws MonosemError as `featureActivations`; ERR_INVALID_ARGUMENT for a `top` that is no natural number
 */
export async function textFeatures(options: TextFeatureOptions): Promise<readonly TokenFeatures[]> {
  checkOptions("textFeatures", options, optionNames);
  const { top = 5 } = options;
  if (!Number.isSafeInteger(top) || top < 0) refuseArgument("textFeatures: top", "a natural number", top);
  const { tokens, texts, latents } = await activationsOnText(options);
  return Array.from(tokens, (token, index) => ({
    token,
    text: texts[index]!,
    latents: latents
      .map(({ latent, activations }) => ({ latent, value: activations[index]! }))
      .filter(({ value }) => value !== 0)
      .sort((a, b) => b.value - a.value || a.latent - b.latent)
      .slice(0, top),
  }));
}
