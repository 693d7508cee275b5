import type { DensityHistogram } from "../sae/metrics.js";
import { densityShares, dictionarySummary, type EvaluatedSae } from "./coreEvaluation.js";
import { percentText } from "./percentText.js";
import { visibleText } from "./visibleText.js";

type Line = readonly [name: string, value: string, meaning: string];

/** An evaluation as lines for a terminal: what it is, how much, and what that means. */
export function evaluationText({
  reconstruction,
  inModel,
  geometry,
  explainedVariancePerHook = [],
}: EvaluatedSae): string {
  const { latents, deadFraction, densityHistogram, consistency, relativeReconstructionBias } = reconstruction;
  const shares = densityShares(latents.density);
  const dictionary = dictionarySummary(geometry);
  const sections: readonly (readonly [title: string, lines: readonly Line[]])[] = [
    ...(inModel === undefined
      ? []
      : [
          [
            `in the model (cross-entropies over ${inModel.tokens} tokens: the last of a context predicts none)`,
            [
              [
                "loss recovered",
                percent(inModel.lossRecovered),
                `cross-entropy ${number(inModel.ceClean)} untouched, ${number(inModel.ceSae)} with the SAE, ${number(inModel.ceZero)} with zeros`,
              ],
              [
                "from the mean",
                percent(inModel.lossRecoveredFromMean),
                `${number(inModel.ceMean)} with the mean activation`,
              ],
              [
                "KL recovered",
                percent(inModel.klScore),
                `divergence ${number(inModel.klDivergence)} with the SAE, ${number(inModel.klZero)} with zeros`,
              ],
              ["from the mean", percent(inModel.klScoreFromMean), `${number(inModel.klMean)} with the mean activation`],
            ],
          ] as const,
        ]),
    [
      "reconstruction",
      [
        ["explained variance", percent(reconstruction.explainedVariance), "of the activations, by the reconstructions"],
        ...explainedVariancePerHook.map(
          ({ hook, explainedVariance }) =>
            [
              "of one hook",
              explainedVariance === null ? "none" : percent(explainedVariance),
              visibleText(hook, 80),
            ] as const,
        ),
        ["squared error", number(reconstruction.mse), "summed over an activation, averaged over tokens"],
        ["cosine", number(reconstruction.cosine), "between activation and reconstruction"],
        ["norm ratio", number(reconstruction.l2Ratio), "reconstruction to activation; below 1 it is shrunk"],
        ["relative bias", optional(relativeReconstructionBias), "of the reconstructions' scale; 1 is none"],
      ],
    ],
    [
      "sparsity",
      [
        ["L0", number(reconstruction.l0), "latents active on a token"],
        ["L1", number(reconstruction.l1), "sum of their activations"],
        ["alive", percent(1 - deadFraction), `of ${latents.density.length} latents fire on these tokens`],
        ["dense", percent(shares.freq_over_10_percent), "fire on more than 10% of the tokens"],
        ["density", sparkline(densityHistogram), densityRange(latents.density)],
        ...(inModel === undefined
          ? []
          : [
              [
                "consistency",
                optional(consistency),
                "tokens of a context on which a latent fires, if it fires in it",
              ] as const,
            ]),
      ],
    ],
    [
      "dictionary",
      [
        [
          "decoder neighbours",
          optional(dictionary.meanMaxDecoderCosine),
          `largest cosine to another latent, on average; ${optional(dictionary.maxDecoderCosine)} at most`,
        ],
        [
          "encoder neighbours",
          optional(dictionary.meanMaxEncoderCosine),
          `the same; ${optional(dictionary.maxEncoderCosine)} at most`,
        ],
        ["encoder to decoder", optional(dictionary.meanEncoderDecoderCosine), "cosine of a latent's two directions"],
      ],
    ],
  ];
  return sections.map(([title, lines]) => `${title}\n${lines.map(line).join("")}`).join("\n");
}

function line([name, value, meaning]: Line): string {
  return `  ${name.padEnd(20)}${value.padStart(8)}  ${meaning}\n`;
}

function percent(share: number): string {
  return percentText(share, 2);
}

function number(value: number): string {
  return Math.abs(value) >= 10_000 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function optional(value: number | null): string {
  return value === null ? "none" : number(value);
}

const BARS = "▁▂▃▄▅▆▇█";

/** The histogram without its empty ends. */
function sparkline({ counts }: DensityHistogram): string {
  const most = Math.max(...counts);
  if (most === 0) return "none";
  const used = counts.slice(
    counts.findIndex((count) => count > 0),
    counts.findLastIndex((count) => count > 0) + 1,
  );
  return used.map((count) => (count === 0 ? " " : BARS[Math.ceil((count / most) * BARS.length) - 1])).join("");
}

function densityRange(density: Float64Array): string {
  const firing = density.filter((value) => value > 0);
  if (firing.length === 0) return "no latent fires";
  const share = (value: number): string => `${Number((100 * value).toPrecision(2))}%`;
  const least = firing.reduce((smallest, value) => Math.min(smallest, value));
  const most = firing.reduce((largest, value) => Math.max(largest, value));
  return `latents by density, from ${share(least)} (the rarest that fires) to ${share(most)} of the tokens`;
}
