import { exampleLine, textStyle } from "../analysis/featureText.js";
import { quotedText } from "../analysis/visibleText.js";
import { singleToken } from "../attribution/nextToken.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { FeatureStore } from "../features/featureStore.js";
import { type PromptFeatures, type PromptRanking, promptFeatures } from "../features/promptFeatures.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { type FeaturesFlags, loadSaeInModel, required } from "./featureFlags.js";
import { refuseEmpty } from "./promptLength.js";
import { printedColumns, printsColour } from "./terminal.js";

/** `features --prompt`: the latents that are active on a text, ranked. */
export async function featuresOfPrompt(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  refuseEmpty("--prompt", required(flags, "prompt"));
  using loaded = await loadSaeInModel(flags, device, signal);
  const { sae, model, chosen } = loaded;
  const store = flags.from === undefined ? undefined : await FeatureStore.open(flags.from);
  try {
    const ranking = rankingOf(flags, model, store);
    const found = await promptFeatures({ sae, model, ...chosen, text: required(flags, "prompt"), ranking });
    process.stdout.write(promptText(found, ranking, flags, model, store));
  } finally {
    await store?.close();
  }
}

function rankingOf(flags: FeaturesFlags, model: HookedTransformer, store: FeatureStore | undefined): PromptRanking {
  const { by = "activation" } = flags;
  if (flags.target !== undefined && by !== "logit") {
    throw new MonosemError("ERR_CONFIG", "--target is what --by logit ranks by");
  }
  if (by === "activation") return { by };
  if (by === "quantile") {
    required(flags, "from", ": quantiles are those of a store");
    return { by, store: store! };
  }
  const target = required(flags, "target", ": the token whose logit to rank by");
  return { by, target: singleToken(model.tokenizer, target) };
}

const meanings = {
  activation: "ranked by their strongest activation on the text",
  quantile: "ranked by about the share of their firings in the store's corpus that are at most as strong",
  logit: "ranked by what they add, from the last token and directly, to the logit of the target",
} as const;

/** A line for each latent: its score, the latent, and the text with its activations. */
function promptText(
  { tokens, texts, latents }: PromptFeatures,
  ranking: PromptRanking,
  { top }: FeaturesFlags,
  { tokenizer }: HookedTransformer,
  store: FeatureStore | undefined,
): string {
  const style = textStyle(printsColour());
  const { by } = ranking;
  const goal = by === "logit" ? ` ${quotedText(tokenizer.tokenText(ranking.target))}, over the mean of all logits` : "";
  const lines = [style.quiet(`${latents.length} latents are active, ${meanings[by]}${goal}`)];
  for (const { latent, activation, activations, peak, score } of latents.slice(0, top)) {
    const label = `${by === "activation" ? "" : `${scoreText(score, by)}  `}${style.bold(`latent ${latent}`.padEnd(13))}`;
    const strongest = store?.summary.maxActivations[latent] ?? 0;
    const line = exampleLine(
      { tokens: Int32Array.from(tokens.keys()), activations, peak, activation },
      { tokenText: (index) => texts[index]! },
      Math.max(strongest, Math.abs(activation)),
      printedColumns() - 24,
      style,
    );
    lines.push(`${label} ${line}`);
  }
  return `${lines.join("\n")}\n`;
}

function scoreText(score: number, by: PromptRanking["by"]): string {
  return by === "quantile" ? `${(100 * score).toFixed(1)}%`.padStart(7) : score.toFixed(3).padStart(7);
}
