import { type TextFeatureOptions, textFeatures } from "../analysis/textFeatures.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { RecordedPrompt } from "./report.js";

export interface RecordPromptOptions extends Omit<TextFeatureOptions, "text" | "top"> {
  /** The text. */
  readonly prompt: string;
  /** Latents recorded per token, the largest activations. Default 12. */
  readonly latentsPerToken?: number;
}

const optionNames: OptionNames<RecordPromptOptions> = {
  prompt: true,
  latentsPerToken: true,
  sae: true,
  model: true,
  hook: true,
  allowMismatch: "boolean",
};

/**
 * Which latents are active on a text, for a report to show without the model.
 *
 * @throws MonosemError as `textFeatures`
 */
export async function recordPrompt(options: RecordPromptOptions): Promise<RecordedPrompt> {
  checkOptions("recordPrompt", options, optionNames);
  const { prompt, latentsPerToken = 12, ...reading } = options;
  const tokens = await textFeatures({ ...reading, text: prompt, top: latentsPerToken });
  return { text: prompt, tokens: tokens.map(({ token, latents }) => ({ token, latents })) };
}
