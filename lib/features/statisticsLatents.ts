import { decoderNormsPerHook } from "../analysis/decoderNorms.js";
import type { FeatureStatistics } from "../analysis/features.js";
import { hasLogitEffects } from "../analysis/logitEffects.js";
import type { PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { latentLogits } from "./latentLogits.js";
import type { ReportedLatent } from "./report.js";

/**
 * Latents for a report from statistics in memory (`collectFeatures`).
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a latent that does not exist
 */
export function statisticsLatents(statistics: FeatureStatistics): (latent: number) => ReportedLatent {
  return (latent) => ({
    latent,
    histogram: statistics.activationHistogram(latent), // refuses a latent that does not exist
    firingCount: statistics.firingCounts[latent]!,
    density: statistics.tokens === 0 ? 0 : statistics.firingCounts[latent]! / statistics.tokens,
    maxActivation: statistics.maxActivations[latent]!,
    minActivation: statistics.minActivations[latent]!,
    meanActivation: statistics.meanActivations[latent]!,
    examples: statistics.examples(latent),
    negativeExamples: statistics.negativeExamples(latent),
  });
}

export interface LatentsInModelOptions extends PairingOptions {
  readonly statistics: FeatureStatistics;
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
}

const optionNames: OptionNames<LatentsInModelOptions> = {
  statistics: true,
  sae: true,
  model: true,
  hook: true,
  allowMismatch: "boolean",
};

/**
 * The same with what the weights say of a latent, computed when it is asked for: its effects on the logits where the SAE
 * writes to the residual stream, of a crosscoder its decoder norms at each hook.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together
 */
export function latentsInModel(options: LatentsInModelOptions): (latent: number) => Promise<ReportedLatent> {
  checkOptions("latentsInModel", options, optionNames);
  const { statistics, sae, model, hook } = options;
  const inStatistics = statisticsLatents(statistics);
  const withLogits = hasLogitEffects(model, sae, hook, options);
  return withDecoderNorms(options, async (latent) => {
    const known = inStatistics(latent);
    const [logits] = withLogits ? await latentLogits({ ...options, latents: [latent] }) : [];
    return { ...known, logits };
  });
}

/**
 * Latents with their decoder norms at each hook, if the SAE is a crosscoder.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together
 */
export function withDecoderNorms(
  options: Omit<LatentsInModelOptions, "statistics">,
  latentOf: (latent: number) => Promise<ReportedLatent>,
): (latent: number) => Promise<ReportedLatent> {
  const { sae, model, hook } = options;
  const { output } = hooksForSae(model, sae, hook, options);
  if (output.length === 1) return latentOf;
  const hooks = output.map((name) => ({ name, width: model.hookWidth(name) }));
  return async (latent) => {
    const known = await latentOf(latent);
    const [norms] = await decoderNormsPerHook(sae, hooks, [latent]);
    return { ...known, decoderNorms: norms?.norms };
  };
}
