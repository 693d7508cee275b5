import { decimal, loneToken } from "../analysis/featureReport.js";
import { exampleLine, type FeatureTextOptions, textStyle } from "../analysis/featureText.js";
import type { TokenEffect } from "../analysis/logitEffects.js";
import { visibleText } from "../analysis/visibleText.js";
import { type FeatureReport, type ReportedLatent, strongestOf } from "./report.js";

/** The latents of a report as lines for a terminal, hostile token text made harmless. */
export async function featureReportText(report: FeatureReport, options: FeatureTextOptions): Promise<string> {
  const style = textStyle(options.colour);
  const parts = [
    report.summary.map(({ name, value }) => `${visibleText(name)} ${style.bold(visibleText(value))}`).join("   "),
  ];
  for (const index of report.latents) {
    const latent = await report.latent(index);
    const { examples, negativeExamples, logits, decoderNorms = [] } = latent;
    const shown = [examples, negativeExamples].flatMap((list) => list.slice(0, options.examples));
    const strongest = strongestOf(latent);
    const lines = [
      `${style.bold(`latent ${index}`)}  ${style.quiet(firingText(latent))}`,
      // Hook points have long names, so that each stands on a line of its own.
      ...decoderNorms.map(({ hook, norm }) =>
        style.quiet(`  decoder norm ${decimal(norm)} at ${visibleText(hook, 80)}`),
      ),
      ...(logits === undefined ? [] : [style.quiet(effectLine("raises", logits.raised, report, options.width))]),
      ...shown.map((example) => exampleLine(example, report, strongest, options.width, style)),
    ];
    parts.push(lines.join("\n"));
  }
  return `${parts.join("\n\n")}\n`;
}

/** Where activations are negative, too, how far they go on both sides. */
function firingText({ density, maxActivation, minActivation }: ReportedLatent): string {
  const firing = `fires on ${Number((100 * density).toPrecision(2))}% of tokens`;
  return minActivation < 0 ? `${firing}, from ${decimal(minActivation)} to ${decimal(maxActivation)}` : firing;
}

function effectLine(verb: string, effects: readonly TokenEffect[], report: FeatureReport, width: number): string {
  let line = `  ${verb}`;
  for (const { token } of effects) {
    const text = loneToken(report.tokenText(token)).trim();
    if (line.length + text.length + 2 > width) break;
    line += `  ${text}`;
  }
  return line;
}
