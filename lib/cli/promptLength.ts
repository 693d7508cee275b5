import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";

/**
 * Refuses a text that is longer than the model's context, BOS included, by the flag that gave it.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function requireFittingPrompt(model: HookedTransformer, flag: string, text: string): void {
  const { contextSize, name } = model.config;
  const { length } = model.promptTokens(text)[0]!;
  if (length <= contextSize) return;
  const message = `${flag} is ${length} tokens long, but the context of model ${name} is ${contextSize}: shorten the text`;
  throw new MonosemError("ERR_INVALID_ARGUMENT", message);
}
