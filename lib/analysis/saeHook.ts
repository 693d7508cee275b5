import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

/**
 * The hook point of `model` that `sae` reads: `hook`, or where it is not given the one in the SAE's metadata.
 *
 * @throws MonosemError ERR_CONFIG if neither names one, if the SAE was trained on another model or at another hook
 * point, or if the hook point's width is not the SAE's dIn; ERR_NOT_FOUND if the model has no such hook point.
 */
export function hookForSae(model: HookedTransformer, sae: Sae, hook?: string): string {
  const { hookName, modelName } = sae.metadata;
  const chosen = hook ?? hookName;
  if (chosen === undefined) {
    throw new MonosemError("ERR_CONFIG", "the SAE does not say which hook point it was trained on: name it");
  }
  if (hookName !== undefined && chosen !== hookName) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the SAE was trained on hook point "${hookName}", but "${chosen}" was asked for`,
    );
  }
  if (modelName !== undefined && baseName(modelName) !== baseName(model.config.name)) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the SAE was trained on model "${modelName}", but the model given is "${model.config.name}" (the name of its folder)`,
    );
  }
  const width = model.hookWidth(chosen);
  if (width !== sae.config.dIn) {
    throw new MonosemError(
      "ERR_CONFIG",
      `hook point "${chosen}" of model "${model.config.name}" is ${width} wide, but the SAE reads ${sae.config.dIn} inputs`,
    );
  }
  return chosen;
}

/** Where an SAE reads, and where its output belongs: the same hook point, but for a transcoder. */
export interface SaeHooks {
  readonly input: string;
  readonly output: string;
}

/**
 * The hook points of `model` that `sae` reads (see {@link hookForSae}) and whose activations it reconstructs.
 *
 * @throws MonosemError as `hookForSae`; ERR_CONFIG for a transcoder whose metadata do not say which activations it
 * reconstructs, or if those have another width than its dOut.
 */
export function hooksForSae(model: HookedTransformer, sae: Sae, hook?: string): SaeHooks {
  const input = hookForSae(model, sae, hook);
  if (!sae.config.transcoder) return { input, output: input };
  const output = sae.metadata.hookNameOut;
  if (output === undefined) {
    throw new MonosemError("ERR_CONFIG", "the transcoder does not say which hook point's activations it reconstructs");
  }
  const width = model.hookWidth(output);
  if (width !== sae.config.dOut) {
    throw new MonosemError(
      "ERR_CONFIG",
      `hook point "${output}" of model "${model.config.name}" is ${width} wide, but the transcoder writes ${sae.config.dOut} outputs`,
    );
  }
  return { input, output };
}

/** "openai-community/gpt2" and TransformerLens' "gpt2-small" are "gpt2". */
function baseName(modelName: string): string {
  const last = modelName.split("/").at(-1)!.toLowerCase();
  return last === "gpt2-small" ? "gpt2" : last;
}
