import type { Json } from "../activations/source.js";

/** One number of an audit, and what it is to be compared with. */
export interface AuditFigure {
  readonly name: string;
  /** Null where there was nothing to measure it on. */
  readonly value: number | null;
  /** "share" of 1, shown in percent; "number" as it is. */
  readonly unit: "share" | "number";
  /** What the number would be by chance, or without the thing that it is to show. */
  readonly baseline: { readonly name: string; readonly value: number | null };
  /** How many things of what kind it is measured on. */
  readonly sample: { readonly count: number; readonly of: string };
}

export type AuditTopic =
  | "consistency"
  | "counterfactuals"
  | "effects"
  | "overlap"
  | "fragmentation"
  | "absorption"
  | "firing";

export interface AuditSection {
  readonly topic: AuditTopic;
  readonly title: string;
  /** What is measured and how, so that the numbers can be read without the program. */
  readonly definition: string;
  readonly figures: readonly AuditFigure[];
  /** Single cases, such as the latents that do worst; may hold tokens, which are of unknown origin. */
  readonly cases: readonly string[];
  /** Why there are no figures. */
  readonly notMeasured?: string | undefined;
  /** The numbers behind the figures, such as those of each latent. */
  readonly data: Json;
}

export interface AuditReport {
  readonly title: string;
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly sections: readonly AuditSection[];
}

export function auditJson(report: AuditReport): string {
  return JSON.stringify({ title: report.title, facts: Object.fromEntries(report.facts), sections: report.sections });
}

/** As a reader wants it: "94.3%", "0.0021". */
export function figureText(value: number | null, unit: AuditFigure["unit"]): string {
  if (value === null) return "-";
  if (unit === "share") return `${(100 * value).toFixed(1)}%`;
  return value === 0 ? "0" : Number(value.toPrecision(3)).toString();
}

/** What a sample is of: the first word for one thing. */
export function named(count: number, one: string, several: string): string {
  return count === 1 ? one : several;
}

/** "1 pair", "2 pairs"; for words whose plural ends in s. */
export function counted(count: number, one: string): string {
  return `${count} ${named(count, one, `${one}s`)}`;
}

/** The middle value; of an even number the mean of the two; null of none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
