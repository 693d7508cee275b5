import { mapLogitEffects } from "../analysis/logitEffects.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { checkOneOf, checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import {
  activationsOnText,
  contextsOf,
  type FeatureActivationOptions,
  type FeatureActivations,
  type LatentOnText,
} from "./featureActivations.js";
import type { FeatureStore } from "./featureStore.js";
import { shareAtMost } from "./histogramShare.js";
import { checkStore } from "./storeSae.js";

/**
 * How latents on a text are ranked:
 *
 * - `activation`: by the magnitude of their strongest activation on it;
 * - `quantile`: by the share of their firings on a store's corpus that are at most as strong as that (1: stronger than ever
 *   there), read off the store's histogram, within whose bins firings count as evenly spread; of equals by activation. What fires on everything ranks low, what hardly ever fires so strongly ranks high;
 * - `logit`: by what they add directly to the logit of a target as the next token, over what they add to the mean logit of
 *   the vocabulary (`logitEffects`): their activation on the last token times the effect of their decoder direction, divided
 *   by the scale of the final norm at that token, which is taken as given; largest first. What they do through later layers,
 *   or from earlier tokens, is not in it, nor is a cap on the logits.
 */
export type PromptRanking =
  | { readonly by: "activation" }
  | { readonly by: "quantile"; readonly store: FeatureStore }
  | { readonly by: "logit"; readonly target: number };

const rankings: Readonly<Record<PromptRanking["by"], true>> = { activation: true, quantile: true, logit: true };

export interface PromptFeatures extends Omit<FeatureActivations, "latents"> {
  /** Highest score first, of equals the lower latent. */
  readonly latents: readonly (LatentOnText & { readonly score: number })[];
}

const optionNames: OptionNames<FeatureActivationOptions & { readonly ranking: PromptRanking }> = {
  sae: true,
  model: true,
  text: true,
  hook: true,
  allowMismatch: "boolean",
  ranking: true,
};

/**
 * Which latents are active on a text, ranked.
 *
 * @throws MonosemError as `featureActivations`; ERR_CONFIG for a store of another SAE; ERR_UNSUPPORTED for logit
 * effects outside of the residual stream; ERR_INVALID_ARGUMENT for an unknown ranking, and a target that is no token of the model
 */
export async function promptFeatures(
  options: FeatureActivationOptions & { readonly ranking: PromptRanking },
): Promise<PromptFeatures> {
  checkOptions("promptFeatures", options, optionNames);
  const { ranking } = options;
  if (typeof ranking !== "object" || ranking === null) refuseArgument("promptFeatures: ranking", "an object", ranking);
  checkOneOf("promptFeatures: ranking: by", ranking.by, rankings);
  const found = await activationsOnText(options);
  const scores = await scoresOf(found, options, ranking);
  const latents = found.latents.map((latent, index) => ({ ...latent, score: scores[index]! }));
  latents.sort((a, b) => b.score - a.score || Math.abs(b.activation) - Math.abs(a.activation) || a.latent - b.latent);
  return { ...found, latents };
}

async function scoresOf(
  { tokens, latents }: FeatureActivations,
  options: FeatureActivationOptions,
  ranking: PromptRanking,
): Promise<number[]> {
  if (ranking.by === "activation") return latents.map(({ activation }) => Math.abs(activation));
  if (ranking.by === "quantile") {
    await checkStore(ranking.store, options.sae, options);
    const scores: number[] = [];
    for (const { latent, activation } of latents) {
      const share = shareAtMost((await ranking.store.latent(latent)).histogram, activation);
      scores.push(activation < 0 ? 1 - share : share);
    }
    return scores;
  }
  const { target } = ranking;
  const { vocabularySize } = options.model.config;
  if (!Number.isInteger(target) || target < 0 || target >= vocabularySize) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no token ${target}: the model has ${vocabularySize}`);
  }
  const effects = await mapLogitEffects(
    { ...options, latents: latents.map(({ latent }) => latent) },
    (all) => all[target]!,
  );
  const factor = await lastTokenFactor(options);
  return latents.map(({ activations }, index) => activations[tokens.length - 1]! * effects[index]! * factor);
}

/**
 * What `logitEffects` leave out, of the last token of a text: by how much the SAE scales what it decodes there, over the scale
 * of the final norm.
 */
async function lastTokenFactor(options: FeatureActivationOptions): Promise<number> {
  const { model, sae } = options;
  const isText = (token: number): boolean => !model.tokenizer.specialTokenIds.has(token);
  const context = contextsOf(options).findLast((tokens) => tokens.some(isText));
  if (context === undefined) return 1; // a text of special tokens alone has no latents
  const { input } = hooksForSae(model, sae, options.hook, options);
  const row = context.findLastIndex(isText);
  using x = await model.activations([context], input);
  using outputScales = sae.outputScales(x);
  using normScales = await model.activations([context], "ln_final.hook_scale");
  const outputScale = outputScales === undefined ? 1 : (await outputScales.readFloat32())[row]!;
  return outputScale / (await normScales.readFloat32())[row]!;
}
