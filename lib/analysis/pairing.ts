/**
 * Whether an SAE and a model, and the text that goes through them, belong together: what the SAE's metadata say of its
 * training is compared with what is there. An SAE in the wrong place gives numbers like any other.
 */
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { isSameModel } from "../models/locateModel.js";
import type { ModelConfig } from "../models/modelConfig.js";
import type { ProcessingOptions } from "../models/processing.js";
import type { Sae } from "../sae/sae.js";

export interface PairingOptions {
  /**
   * Let an SAE be used with another model, hook point, processing of weights, BOS policy or context size than it was
   * trained with. Widths must fit all the same. Default false.
   */
  readonly allowMismatch?: boolean | undefined;
}

/** Names of TransformerLens' options, which SAELens keeps, and what the model says of them; where they change activations. */
const processingOptions = [
  ["center_writing_weights", "centerWritingWeights", /(^|\.)hook_(embed|pos_embed|resid_\w+|attn_out|mlp_out)$/],
  ["fold_value_biases", "foldValueBiases", /\.hook_[vz]$/],
  ["fold_ln", "foldLn", /\.mlp\.hook_in$/],
] as const;

/**
 * The processing of a model's weights that SAEs were trained behind, as far as they say so and it is one of the model: what to
 * load it with (`processingFor`). Where they contradict each other, `checkModel` refuses those that do not fit.
 */
export function processingOfSaes(saes: readonly Sae[]): (config: ModelConfig) => ProcessingOptions {
  return ({ normalization }) =>
    Object.fromEntries(
      processingOptions
        .filter(([, option]) => option !== "centerWritingWeights" || normalization === "layer")
        .filter(([key]) => saes.some((sae) => trainedBehind(sae, key)))
        .map(([, option]) => [option, true]),
    );
}

/** Undefined where the SAE does not say. */
function trainedBehind({ metadata }: Sae, key: string): boolean | undefined {
  const flags = metadata.model_from_pretrained_kwargs as Readonly<Record<string, unknown>> | null | undefined;
  const trained = flags?.[key];
  return typeof trained === "boolean" ? trained : undefined;
}

/**
 * Compares an SAE with a model.
 *
 * @param hooks - where the SAE is to read and write
 * @throws MonosemError ERR_CONFIG naming both sides
 */
export function checkModel(model: HookedTransformer, sae: Sae, hooks: readonly string[]): void {
  const { modelName, contextSize, prependBos } = sae.metadata;
  const { name, normalization, processing, bosTokenId } = model.config;
  if (modelName !== undefined && !isSameModel(modelName, name)) {
    mismatch(`the SAE was trained on model "${modelName}", but the model given is "${name}" (the name of its folder)`);
  }
  for (const [key, option, changed] of processingOptions) {
    const trained = trainedBehind(sae, key);
    if (trained === undefined || !hooks.some((hook) => changed.test(hook))) continue;
    // RMSNorm keeps the mean: TransformerLens centres only what LayerNorm reads
    if (option === "centerWritingWeights" && normalization !== "layer") continue;
    if (trained !== processing[option]) {
      mismatch(
        `the SAE was trained on a model with ${option} ${trained}, but "${name}" was loaded with ${processing[option]}: load it with { ${option}: ${trained} }`,
      );
    }
  }
  if (prependBos && bosTokenId === undefined) {
    mismatch(`the SAE was trained on contexts that begin with BOS, but model "${name}" has no BOS token`);
  }
  if (contextSize !== undefined && contextSize > model.config.contextSize) {
    mismatch(
      `the SAE was trained on contexts of ${contextSize} tokens, but model "${name}" reads ${model.config.contextSize} at most`,
    );
  }
}

/**
 * Compares an SAE with the contexts that go through it. Shorter ones than those of its training are fine.
 *
 * @throws MonosemError ERR_CONFIG naming both sides
 */
export function checkContexts(model: HookedTransformer, sae: Sae, contexts: readonly Int32Array[]): void {
  const { contextSize, prependBos } = sae.metadata;
  const longest = Math.max(0, ...contexts.map(({ length }) => length));
  if (contextSize !== undefined && longest > contextSize) {
    mismatch(`the SAE was trained on contexts of ${contextSize} tokens, but one of ${longest} is given`);
  }
  const { bosTokenId } = model.config;
  if (prependBos === undefined || bosTokenId === undefined) return;
  const beginning = contexts.filter(([first]) => first === bosTokenId).length;
  if (prependBos && beginning < contexts.length) {
    mismatch("the SAE was trained on contexts that begin with BOS (prependBos), but one that does not is given");
  }
  // One may have a BOS of its own at this place; that all have it is a policy.
  if (!prependBos && contexts.length > 0 && beginning === contexts.length) {
    mismatch("the SAE was trained on contexts without BOS (prependBos false), but all that are given begin with it");
  }
}

/** @throws MonosemError ERR_CONFIG */
export function mismatch(message: string): never {
  throw new MonosemError("ERR_CONFIG", `${message} (allowMismatch, on the command line --allow-mismatch, permits it)`);
}
