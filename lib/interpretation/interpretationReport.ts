import type { ClientActivity } from "./chatClient.js";
import type { Interpretation, InterpretedLatents, Scorer } from "./interpret.js";
import type { NoAnswerCounts } from "./judgeAnswer.js";
import { jsonLine, type TokenText } from "./promptData.js";
import { mean } from "./statistics.js";

/** What a page of interpretations shows. Every string in it may be hostile: it is escaped where it is written. */
export interface InterpretationReport extends InterpretedLatents {
  readonly title: string;
  /** Short facts under the title, such as ["judge", "qwen3-8b"]. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly scorers: readonly Scorer[];
  readonly activity: ClientActivity;
  readonly tokenText: TokenText;
}

/** A score in words. */
export interface ScoreText {
  readonly name: Scorer;
  /** The number, or why there is none. */
  readonly value: string;
  /** What it rests on, and what was not answered. */
  readonly detail: string;
}

/** What the numbers mean, for whoever reads a page. */
export const SCORE_MEANINGS: Readonly<Record<Scorer, string>> = {
  detection: "texts told right by the explanation; 0.5 is chance",
  fuzzing: "marked tokens told right by the explanation; 0.5 is chance",
  simulation: "correlation of predicted and true activations",
  surprisal: "texts told right by how much the explanation helps the model; 0.5 is chance",
};

/** The scores that were asked for, in that order. */
export function scoreTexts({ scores, unscored }: Interpretation, scorers: readonly Scorer[]): readonly ScoreText[] {
  return scorers.flatMap((name): ScoreText[] => {
    const why = unscored[name];
    if (why !== undefined) return [{ name, value: "-", detail: why }];
    const score = scores[name];
    return score === undefined ? [] : [{ name, value: score.score.toFixed(2), detail: detailOf(name, scores) }];
  });
}

function detailOf(name: Scorer, { detection, fuzzing, simulation, surprisal }: Interpretation["scores"]): string {
  if (name === "surprisal") {
    const { activeReduction, silentReduction, isCut } = surprisal!;
    const cut = isCut ? ", explanation cut" : "";
    return `loss falls by ${activeReduction.toFixed(2)} where active, ${silentReduction.toFixed(2)} where not${cut}`;
  }
  if (name === "simulation") {
    const { examples, unanswered, noAnswers } = simulation!;
    return `${examples} examples${unansweredText(unanswered, noAnswers)}`;
  }
  const score = (name === "detection" ? detection : fuzzing)!;
  const { truePositives, falseNegatives, trueNegatives, falsePositives, unanswered, noAnswers } = score;
  const open = unanswered.positive + unanswered.negative;
  return `${truePositives}/${truePositives + falseNegatives} yes and ${trueNegatives}/${trueNegatives + falsePositives} no right${unansweredText(open, noAnswers)}`;
}

function unansweredText(examples: number, noAnswers: NoAnswerCounts): string {
  if (examples === 0) return "";
  const reasons = Object.entries(noAnswers).map(([reason, count]) => `${reason} ${count}`);
  return `, ${examples} unanswered (replies: ${reasons.join(", ")})`;
}

/** The mean of each score over the latents that have it; undefined where none has. */
export function meanScores(report: InterpretationReport): readonly { name: Scorer; mean: number; latents: number }[] {
  return report.scorers.flatMap((name) => {
    const found = report.interpretations.flatMap(({ scores }) => scores[name]?.score ?? []);
    return found.length === 0 ? [] : [{ name, mean: mean(found), latents: found.length }];
  });
}

export function latentCount(count: number): string {
  return count === 1 ? "1 latent" : `${count} latents`;
}

/** Which latents a cap on tokens or cost left no room for, and what the next request would have cost. */
export function leftOutText({ leftOut, leftOutBecause }: InterpretedLatents): string {
  const because = leftOutBecause === undefined ? "" : `; ${leftOutBecause}`;
  return `left out, as the cap was reached: latents ${leftOut.join(", ")}${because}`;
}

/** Why there is no explanation at all; undefined where there is one. */
export function nothingExplained(report: InterpretedLatents): string | undefined {
  const { interpretations, leftOut } = report;
  if (interpretations.some(({ explanation }) => explanation !== undefined)) return undefined;
  const [first] = interpretations;
  const reasons = [
    ...(first === undefined ? [] : [`latent ${first.latent}: ${first.unexplained}`]),
    ...(leftOut.length === 0 ? [] : [leftOutText(report)]),
  ];
  return `none of ${latentCount(interpretations.length + leftOut.length)} was explained; ${reasons.join("; ")}`;
}

/** What was asked of the judge and paid. */
export function activityText({ answered, cached, repeated, failed, usage, cost }: ClientActivity): string {
  return [
    `${answered} ${answered === 1 ? "request" : "requests"} answered`,
    ...(cached === 0 ? [] : [`${cached} from the cache`]),
    ...(repeated === 0 ? [] : [`${repeated} repeated`]),
    ...(failed === 0 ? [] : [`${failed} failed`]),
    `${usage.inputTokens} + ${usage.outputTokens} tokens`,
    ...(cost === undefined ? [] : [`cost ${cost.toFixed(4)}`]),
  ].join(", ");
}

/** The report as one line of JSON in which nothing hostile stands unescaped: it may be printed on a terminal. */
export function interpretationJson(report: InterpretationReport): string {
  const { title, facts, activity, leftOut, leftOutBecause, interpretations, tokenText } = report;
  return jsonLine({
    title,
    facts: Object.fromEntries(facts),
    scores: Object.fromEntries(meanScores(report).map(({ name, mean, latents }) => [name, { mean, latents }])),
    requests: activity,
    leftOut,
    ...(leftOutBecause === undefined ? {} : { leftOutBecause }),
    latents: interpretations.map(({ examples, ...known }) => ({
      ...known,
      examples: examples.map(({ document, start, peak, tokens, activations }) => ({
        document,
        start,
        peak,
        tokens: Array.from(tokens, (id) => tokenText(id)),
        activations: Array.from(activations),
      })),
    })),
  });
}
