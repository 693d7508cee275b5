import { percentText } from "../analysis/percentText.js";
import { visibleText } from "../analysis/visibleText.js";

/** What a reconstruction that is worse than the mean activation does; undefined for any other, and where nothing is known. */
export function worseThanMean(explainedVariance: number): string | undefined {
  if (!(explainedVariance < 0)) return undefined;
  return `leaves ${percentText(1 - explainedVariance, 0)} of the variance unexplained, where the mean activation would leave 100%`;
}

/** Such a reconstruction says nothing of what its latents could be: a line on the standard error. */
export function warnOfBadReconstruction(name: string, explainedVariance: number): void {
  const problem = worseThanMean(explainedVariance);
  if (problem === undefined) return;
  const causes = "a training that has diverged, a wrong hook or a wrong scale?";
  process.stderr.write(`${visibleText(`warning: ${name} ${problem}: ${causes}`)}\n`);
}
