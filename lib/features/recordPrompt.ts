import { type TextFeatureOptions, textFeatures } from "../analysis/textFeatures.js";
import type { RecordedPrompt } from "./report.js";

export interface RecordPromptOptions extends Omit<TextFeatureOptions, "text" | "top"> {
  /** The text. */
  readonly prompt: string;
  /** Latents recorded per token, the largest activations. Default 12. */
  readonly latentsPerToken?: number;
}

/**
 * Which latents are active on a text, for a report to show without the model.
 *
 * @throws MonosemError as `textFeatures`
 */
export async function recordPrompt({
  prompt,
  latentsPerToken = 12,
  ...options
}: RecordPromptOptions): Promise<RecordedPrompt> {
  const tokens = await textFeatures({ ...options, text: prompt, top: latentsPerToken });
  return { text: prompt, tokens: tokens.map(({ token, latents }) => ({ token, latents })) };
}
