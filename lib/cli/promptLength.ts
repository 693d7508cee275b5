import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";

/**
 * Refuses a text of nothing, such as that of a shell's variable that is not set, by the flag that gave it.
 *
 * @throws MonosemError ERR_CONFIG
 */
export function refuseEmpty(flag: string, text: string): void {
  if (text !== "") return;
  throw new MonosemError("ERR_CONFIG", `${flag} is empty: expected a text of at least one token`);
}

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
