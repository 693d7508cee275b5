import type { Metrics } from "../sae/metrics.js";
import type { SummaryNumber } from "./featureReport.js";
import type { FeatureStatistics } from "./features.js";
import type { ModelEvaluation } from "./modelEvaluation.js";
import { percentText } from "./percentText.js";

/** The numbers at the head of a feature page, from whatever has been measured. */
export function featureSummary(measured: {
  readonly statistics: FeatureStatistics;
  readonly metrics: Pick<Metrics, "explainedVariance">;
  readonly evaluation?: ModelEvaluation;
}): readonly SummaryNumber[] {
  const { statistics, evaluation, metrics } = measured;
  const numbers: SummaryNumber[] = [];
  if (evaluation !== undefined) {
    numbers.push({
      name: "loss recovered",
      value: percent(evaluation.lossRecovered),
      meaning: `cross-entropy ${evaluation.ceClean.toFixed(3)} clean, ${evaluation.ceSae.toFixed(3)} with the SAE, ${evaluation.ceZero.toFixed(3)} with zeros`,
    });
  }
  numbers.push(
    {
      name: "explained variance",
      value: percent(metrics.explainedVariance),
      meaning: "of the activations' variance, by the reconstruction",
    },
    { name: "L0", value: statistics.l0.toFixed(1), meaning: "latents active on a token, on average" },
    {
      name: "dead latents",
      value: percent(statistics.deadLatents / statistics.dSae),
      meaning: `of ${statistics.dSae} never fire in ${statistics.tokens} tokens`,
    },
  );
  return numbers;
}

function percent(share: number): string {
  return percentText(share, 1);
}
