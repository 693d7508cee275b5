import { visibleText } from "../analysis/visibleText.js";
import { wrappedText } from "../analysis/wrappedText.js";
import { type AuditReport, type AuditSection, figureText } from "./auditReport.js";

export interface AuditTextOptions {
  /** Columns of the terminal. */
  readonly width: number;
}

/** An audit for a terminal: of each section what it means, its figures beside their baselines, and single cases. */
export function auditText({ title, facts, sections }: AuditReport, { width }: AuditTextOptions): string {
  const nameWidth = Math.max(0, ...facts.map(([name]) => name.length));
  const head = [
    visibleText(title),
    "",
    ...facts.map(([name, value]) => `${name.padEnd(nameWidth)}  ${visibleText(value)}`),
  ];
  return `${[...head, ...sections.flatMap((section) => ["", ...sectionLines(section, width)])].join("\n")}\n`;
}

function sectionLines({ title, definition, figures, cases, notMeasured }: AuditSection, width: number): string[] {
  const rows = figures.map(({ name, value, unit, baseline, sample }) => [
    visibleText(name),
    figureText(value, unit),
    figureText(baseline.value, unit),
    baseline.name,
    `${sample.count} ${sample.of}`,
  ]);
  const columns = ["", "here", "baseline", "", "on"];
  const widths = columns.map((column, i) => Math.max(column.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    `  ${cells
      .map((cell, i) => (i === 1 || i === 2 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd()}`;
  return [
    title.toUpperCase(),
    ...wrappedText(definition, width - 2).map((text) => `  ${text}`),
    ...(notMeasured === undefined
      ? []
      : ["", ...wrappedText(`not measured: ${visibleText(notMeasured)}`, width - 2).map((text) => `  ${text}`)]),
    ...(rows.length === 0 ? [] : ["", line(columns), ...rows.map(line)]),
    ...(cases.length === 0 ? [] : ["", ...cases.map((text) => `  ${visibleText(text)}`)]),
  ];
}
