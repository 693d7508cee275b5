import { l0Text, nameText, paretoFront, qualitiesOf, qualityNames, qualityText, type SweepPoint } from "./pareto.js";
import { visibleText } from "./visibleText.js";

/** A sweep as a table for a terminal, by ascending L0; `*` marks what no other SAE dominates. */
export function paretoText(points: readonly SweepPoint[]): string {
  const shown = qualitiesOf(points);
  const fronts = shown.map((quality) => new Set(paretoFront(points, quality)));
  const rows = points
    .toSorted((a, b) => a.l0 - b.l0)
    .map((point) => [
      nameText(point),
      visibleText(point.architecture, 40),
      String(point.dSae),
      l0Text(point),
      ...shown.map((quality, index) => `${qualityText(point, quality)} ${fronts[index]!.has(point) ? "*" : " "}`),
    ]);
  const header = ["SAE", "architecture", "latents", "L0", ...shown.map((quality) => `${qualityNames[quality]}  `)];
  const table = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...table.map((row) => [...row[column]!].length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const padding = " ".repeat(widths[column]! - [...cell].length);
        return column < 2 ? cell + padding : padding + cell;
      })
      .join("  ")
      .trimEnd();
  const criteria = shown.map((quality) => qualityNames[quality]).join(" or ");
  return `${table.map(line).join("\n")}\n* no other SAE has as low an L0 and as much ${criteria}\n`;
}
