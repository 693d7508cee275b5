import { requirePair } from "../analysis/checkPair.js";
import { checkContexts, type PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";

export interface FeatureActivationOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly text: string;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
}

/** A text, and the latents that are active on it. */
export interface FeatureActivations {
  /** Ids, special tokens left out. */
  readonly tokens: Int32Array;
  readonly texts: readonly string[];
  /** In ascending order. */
  readonly latents: readonly LatentOnText[];
}

export interface LatentOnText {
  readonly latent: number;
  /** On each of `tokens`; 0 where it is not active. */
  readonly activations: Float32Array;
  /** The token on which its activation is the strongest, of equals the first. */
  readonly peak: number;
  /** There; negative where the architecture lets it be. */
  readonly activation: number;
}

const optionNames: OptionNames<FeatureActivationOptions> = {
  sae: true,
  model: true,
  text: true,
  hook: true,
  allowMismatch: "boolean",
};

/**
 * The activations of all latents of an SAE on a text. It is read as the SAE's training read texts: cut into contexts of that
 * length (with `allowMismatch`, or where it is not known, of the model's), each of which begins with BOS where the training's
 * did, or where that is not known if the model has one. No context sees the one before. Special tokens are left out of the
 * result.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together; ERR_INVALID_ARGUMENT for a text without
 * tokens; ERR_NON_FINITE
 */
export async function featureActivations(options: FeatureActivationOptions): Promise<FeatureActivations> {
  checkOptions("featureActivations", options, optionNames);
  return await activationsOnText(options);
}

/** The same of options that may have others among them. */
export async function activationsOnText(options: FeatureActivationOptions): Promise<FeatureActivations> {
  const { model, sae, text } = options;
  requirePair(model, sae);
  if (typeof text !== "string") refuseArgument("the option text", "a text", text);
  const { input } = hooksForSae(model, sae, options.hook, options);
  const contexts = contextsOf(options);
  if (!options.allowMismatch) checkContexts(model, sae, contexts);
  const tokens: number[] = [];
  const entries: Entry[] = [];
  for (const context of contexts) {
    for (const entry of await activeEntries(model, sae, input, context, tokens)) entries.push(entry);
  }
  const found = new Map<number, Float32Array>();
  for (const { latent, place, value } of entries) {
    const activations = found.get(latent) ?? new Float32Array(tokens.length);
    activations[place] = value;
    found.set(latent, activations);
  }
  const latents = [...found].map(([latent, activations]) => {
    const peak = activations.reduce(
      (best, value, index) => (Math.abs(value) > Math.abs(activations[best]!) ? index : best),
      0,
    );
    return { latent, activations, peak, activation: activations[peak]! };
  });
  return {
    tokens: Int32Array.from(tokens),
    texts: model.tokenizer.tokenTexts(tokens),
    latents: latents.sort((a, b) => a.latent - b.latent),
  };
}

/**
 * The contexts in which `featureActivations` reads a text, BOS included.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a text without tokens
 */
export function contextsOf({ model, sae, text, allowMismatch }: FeatureActivationOptions): Int32Array[] {
  const { bosTokenId, contextSize: longest } = model.config;
  const { prependBos = true, contextSize = longest } = sae.metadata;
  const beginning = prependBos && bosTokenId !== undefined ? [bosTokenId] : [];
  const room = (allowMismatch ? longest : Math.min(contextSize, longest)) - beginning.length;
  const size = Math.max(1, room); // `checkContexts` refuses contexts that hold BOS and nothing else
  const ids = model.tokenizer.encode(text);
  if (ids.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "the text has no tokens");
  return Array.from({ length: Math.ceil(ids.length / size) }, (_, i) =>
    Int32Array.from([...beginning, ...ids.slice(i * size, (i + 1) * size)]),
  );
}

/** An activation of a latent at a place among the tokens of the text. */
interface Entry {
  readonly latent: number;
  readonly place: number;
  readonly value: number;
}

/** What is active in a context, whose tokens, special ones left out, are appended to `tokens`. */
async function activeEntries(
  model: HookedTransformer,
  sae: Sae,
  input: readonly string[],
  context: Int32Array,
  tokens: number[],
): Promise<Entry[]> {
  using x = await model.activations([context], input);
  using codes = sae.encode(x);
  const { rowOffsets, features, values } = await codes.read();
  const entries: Entry[] = [];
  for (const [row, token] of context.entries()) {
    if (model.tokenizer.specialTokenIds.has(token)) continue;
    const place = tokens.push(token) - 1;
    for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
      const [latent, value] = [features[entry]!, values[entry]!];
      if (value === 0) continue; // selected, but not active
      if (!Number.isFinite(value)) {
        throw new MonosemError(
          "ERR_NON_FINITE",
          `latent ${latent} has activation ${value} at token ${place} of the text`,
        );
      }
      entries.push({ latent, place, value });
    }
  }
  return entries;
}
