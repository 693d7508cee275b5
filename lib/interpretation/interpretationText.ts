import { exampleLine, type FeatureTextOptions, textStyle } from "../analysis/featureText.js";
import { visibleText } from "../analysis/visibleText.js";
import { wrappedText } from "../analysis/wrappedText.js";
import type { Example } from "./examples.js";
import type { Interpretation } from "./interpret.js";
import {
  activityText,
  type InterpretationReport,
  latentCount,
  leftOutText,
  meanScores,
  scoreTexts,
} from "./interpretationReport.js";

/** The interpretations as lines for a terminal, hostile text made harmless. */
export function interpretationText(report: InterpretationReport, options: FeatureTextOptions): string {
  const style = textStyle(options.colour);
  const means = meanScores(report).map(
    ({ name, mean, latents }) => `${name} ${style.bold(mean.toFixed(2))} (${latentCount(latents)})`,
  );
  const latents = report.interpretations.map((interpretation) => {
    const { latent, explanation, unexplained, examples } = interpretation;
    const name = explanation === undefined ? "not explained" : visibleText(explanation.name);
    const text =
      explanation === undefined
        ? visibleText(unexplained!)
        : `${visibleText(explanation.explanation)} (confidence ${explanation.confidence.toFixed(2)})`;
    return [
      `${style.bold(`latent ${latent}`)}  ${style.bold(name)}`,
      ...wrappedText(text, options.width - 2).map((line) => `  ${line}`),
      ...scoreLines(interpretation, report).map((line) => style.quiet(line)),
      ...examples
        .slice(0, options.examples)
        .map((example) => exampleLine(shown(example), report, examples[0]!.peak, options.width, style)),
    ].join("\n");
  });
  const leftOut = report.leftOut.length === 0 ? [] : [wrappedText(leftOutText(report), options.width).join("\n")];
  const head = [...(means.length === 0 ? [] : [means.join("   ")]), style.quiet(activityText(report.activity))];
  return `${[head.join("\n"), ...latents, ...leftOut].join("\n\n")}\n`;
}

/** An example as the feature pages show it. */
export function shown({ tokens, activations, peak }: Example): Parameters<typeof exampleLine>[0] {
  return { tokens, activations, activation: peak, peak: activations.indexOf(peak) };
}

function scoreLines(interpretation: Interpretation, { scorers }: InterpretationReport): readonly string[] {
  return scoreTexts(interpretation, scorers).map(
    ({ name, value, detail }) => `  ${name.padEnd(10)} ${value.padStart(5)}  ${detail}`,
  );
}
