import { visibleText } from "../analysis/visibleText.js";
import type { ProbeOutcome } from "./probe.js";

/** A probe, and which features it saw. */
export interface NamedProbe {
  /** Such as "all 768" or "2 latents". */
  readonly name: string;
  readonly outcome: ProbeOutcome;
  /** The features of a k-sparse probe, in the order of its weights. */
  readonly features?: readonly number[];
}

/** What a table or a page of probes shows. Strings may be hostile. */
export interface ProbeReport {
  /** Names and values above the table. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly probes: readonly NamedProbe[];
}

const columns = ["features", "penalty", "accuracy", "AUROC", "F1", "train acc.", "control", "selectivity"] as const;

/** A table for a terminal: for each probe how it does on the test part, then the features of the sparse ones. */
export function probeText({ facts, probes }: ProbeReport): string {
  const nameWidth = Math.max(...facts.map(([name]) => name.length));
  const head = facts.map(([name, value]) => `${name.padEnd(nameWidth)}  ${visibleText(value)}`);
  const rows = probes.map(({ name, outcome: { penalty, test, train, control } }) => [
    visibleText(name),
    String(penalty),
    percent(test.accuracy),
    test.auroc.toFixed(3),
    test.f1.toFixed(3),
    percent(train.accuracy),
    control === undefined ? "-" : percent(control.accuracy),
    control === undefined ? "-" : `${(100 * control.selectivity).toFixed(1)}`,
  ]);
  const widths = columns.map((column, i) => Math.max(column.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd();
  const chosen = probes.flatMap(({ name, features, outcome }) =>
    features === undefined
      ? []
      : [
          `${visibleText(name)}: ${features
            .slice(0, MOST_SHOWN)
            .map((feature, i) => `${feature} (${signedWeight(outcome.probe.weights[i]!)})`)
            .join(", ")}${features.length > MOST_SHOWN ? ", ..." : ""}`,
        ],
  );
  return `${[...head, "", line(columns), ...rows.map(line), ...(chosen.length === 0 ? [] : ["", ...chosen])].join("\n")}\n`;
}

const MOST_SHOWN = 10;

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

export function signedWeight(weight: number): string {
  return `${weight < 0 ? "" : "+"}${Number(weight.toPrecision(3))}`;
}
