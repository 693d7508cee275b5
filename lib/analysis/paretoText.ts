import {
  l0Text,
  nameText,
  paretoFront,
  placeTexts,
  qualitiesOf,
  qualityNames,
  qualityText,
  type SweepPoint,
  sortedForTable,
  unmarkedText,
} from "./pareto.js";
import { visibleText } from "./visibleText.js";

/**
 * A sweep as a table for a terminal, by ascending L0 (at each place in the model, where there are several); `*` marks
 * what no other SAE at the same place dominates.
 */
export function paretoText(points: readonly SweepPoint[]): string {
  const shown = qualitiesOf(points);
  const fronts = shown.map((quality) => new Set(paretoFront(points, quality)));
  const placeText = placeTexts(points);
  const rows = sortedForTable(points).map((point) => [
    nameText(point),
    ...(placeText === undefined ? [] : [placeText(point)]),
    visibleText(point.architecture, 40),
    String(point.dSae),
    l0Text(point),
    ...shown.map((quality, index) => `${qualityText(point, quality)} ${fronts[index]!.has(point) ? "*" : " "}`),
  ]);
  const names = ["SAE", ...(placeText === undefined ? [] : ["hook"]), "architecture"];
  const header = [...names, "latents", "L0", ...shown.map((quality) => `${qualityNames[quality]}  `)];
  const table = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...table.map((row) => [...row[column]!].length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const padding = " ".repeat(widths[column]! - [...cell].length);
        return column < names.length ? cell + padding : padding + cell;
      })
      .join("  ")
      .trimEnd();
  const criteria = shown.map((quality) => qualityNames[quality]).join(" or ");
  return `${table.map(line).join("\n")}\n* no other SAE${placeText === undefined ? "" : " at the same hook"} has as low an L0 and as much ${criteria}${unmarkedText(points)}\n`;
}
