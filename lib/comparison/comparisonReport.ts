import { visibleText } from "../analysis/visibleText.js";
import type { Comparison, MethodOutcome } from "./compareMethods.js";

/** Five methods on one prompt, for people. Strings may be of any origin: they are made harmless where they are shown. */
export interface ComparisonReport {
  readonly title: string;
  /** Names and values above the table. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly comparison: Comparison;
}

/** The methods that give every token a number. */
export function methodsByToken({ methods }: Comparison): readonly (MethodOutcome & {
  readonly values: readonly (number | undefined)[];
})[] {
  return methods.flatMap((outcome) => (outcome.values === undefined ? [] : [{ ...outcome, values: outcome.values }]));
}

/** "508 (3.21)  1109 (2.80)": the latents of a token. */
export function latentsText(latents: readonly { readonly latent: number; readonly value: number }[]): string {
  return latents.map(({ latent, value }) => `${latent} (${value.toFixed(2)})`).join("  ");
}

export function valueText(value: number | undefined): string {
  if (value === undefined) return "";
  const text = value.toFixed(3);
  return Number(text) === 0 ? "0.000" : `${value < 0 ? "" : "+"}${text}`;
}

export function costText({ leftOut, forwardPasses, seconds }: MethodOutcome): string {
  if (leftOut !== undefined) return `left out: ${leftOut}`;
  return `${forwardPasses} forward passes, ${seconds.toFixed(2)} s`;
}

const LONGEST_TOKEN = 16;

/** A table for a terminal: a row for each token, then what the score owes to latents, then the methods, their cost and what they ask. */
export function comparisonText({ facts, comparison }: ComparisonReport): string {
  const { tokens, latents, latentEffects, methods } = comparison;
  const shown = methodsByToken(comparison);
  const head = [
    "token",
    ...shown.map(({ method }) => method),
    ...(latents === undefined ? [] : ["latents (activation)"]),
  ];
  const rows = tokens.map((token, position) => [
    visibleText(JSON.stringify(token), LONGEST_TOKEN),
    ...shown.map(({ values }) => valueText(values[position])),
    ...(latents === undefined ? [] : [latentsText(latents[position]!)]),
  ]);
  const costs = methods.map((outcome) => [
    outcome.method,
    costText(outcome),
    outcome.facts.map(([name, value]) => `${name} ${value}`).join("; "),
  ]);
  const effects = latentEffects?.map(({ latent, effect }) => `${latent} ${valueText(effect)}`).join("   ");
  return `${[
    ...table(facts.map(([name, value]) => [name, visibleText(value)])),
    "",
    ...table([head, ...rows], shown.length),
    ...(effects === undefined ? [] : ["", `without a latent the score falls by: ${effects}`]),
    "",
    ...table(costs.map((row) => row.map((cell) => visibleText(cell)))),
    "",
    ...methods.map(({ method, question }) => `${method}: ${question}`),
  ].join("\n")}\n`;
}

/** Columns aligned; those from the second on, `numbers` of them, to the right. */
function table(rows: readonly (readonly string[])[], numbers = 0): readonly string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => [...row[i]!].length)));
  return rows.map((row) =>
    row
      .map((cell, i) => {
        const padding = " ".repeat(widths[i]! - [...cell].length);
        return i >= 1 && i <= numbers ? padding + cell : cell + padding;
      })
      .join("  ")
      .trimEnd(),
  );
}
