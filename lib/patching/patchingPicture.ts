import { escapeHtml, visibleText } from "../analysis/visibleText.js";
import { fixed, type Picture, text } from "../toy/superpositionPicture.js";
import { effectText } from "./patchingReport.js";
import type { PatchingMap } from "./patchingSweep.js";

const CELL = { width: 46, height: 26 } as const;
const TOP = 30;
const CHARACTER = 6.2;
const LONGEST_LABEL = 22;
/** Of labels that stand on end, so that long tokens fit over narrow columns. */
const SLOPE = Math.SQRT1_2;

/** A map as a picture: the stronger the colour, the larger the effect; orange above 0, blue below, full at 1. */
export function patchingPicture(map: PatchingMap): Picture {
  const rows = map.rows.map((row) => visibleText(row, LONGEST_LABEL));
  const columns = map.columns.map((column) => visibleText(column.trim(), LONGEST_LABEL));
  const longest = (labels: readonly string[]): number =>
    CHARACTER * Math.max(0, ...labels.map((label) => [...label].length));
  const left = 16 + longest([...rows, map.rowTitle]);
  const top = TOP + 12 + SLOPE * longest(columns);
  const cells = map.effects.flatMap((effects, row) =>
    effects.map((effect, column) => {
      const [x, y] = [left + column * CELL.width, top + row * CELL.height];
      const title = `${map.rowTitle} ${rows[row]!}, ${columns[column]!}: ${effect.toFixed(4)}`;
      const place = `x="${fixed(x)}" y="${fixed(y)}" width="${CELL.width - 1}" height="${CELL.height - 1}"`;
      return `<g><title>${escapeHtml(title)}</title><rect ${place} ${fill(effect)}/>${text(x + CELL.width / 2, y + 17, effectText(effect), { anchor: "middle", size: 10 })}</g>`;
    }),
  );
  const content = [
    text(8, 18, map.title, { size: 13, bold: true }),
    text(left - 8, top - 6, map.rowTitle, { anchor: "end" }),
    ...rows.map((row, index) => text(left - 8, top + index * CELL.height + 17, row, { anchor: "end" })),
    ...columns.map((column, index) => {
      const [x, y] = [left + (index + 0.45) * CELL.width, top - 6];
      return `<text transform="translate(${fixed(x)} ${fixed(y)}) rotate(-45)">${escapeHtml(column)}</text>`;
    }),
    ...cells,
  ];
  const overhang = SLOPE * CHARACTER * Math.max(0, [...(columns.at(-1) ?? "")].length - 3);
  return {
    name: "patching",
    label: `${map.title}: effects of patches, ${map.rows.length} rows and ${map.columns.length} columns`,
    width: Math.max(left + columns.length * CELL.width + overhang + 12, 16 + 7.2 * [...map.title].length),
    height: top + rows.length * CELL.height + 10,
    content: content.join(""),
  };
}

function fill(effect: number): string {
  if (Math.abs(effect) < 0.005) return 'fill="currentColor" fill-opacity="0.04"';
  return `fill="${effect < 0 ? "#2f6fd0" : "#e8710a"}" fill-opacity="${fixed(0.05 + 0.85 * Math.min(1, Math.abs(effect)))}"`;
}

/** Several maps in one picture, one below the other. */
export function patchingPictures(maps: readonly PatchingMap[]): Picture {
  const pictures = maps.map(patchingPicture);
  let y = 0;
  const content = pictures.map((picture) => {
    const moved = `<g transform="translate(0 ${fixed(y)})">${picture.content}</g>`;
    y += picture.height;
    return moved;
  });
  return {
    name: "patching",
    label: pictures.map(({ label }) => label).join("; "),
    width: Math.max(0, ...pictures.map(({ width }) => width)),
    height: y,
    content: content.join(""),
  };
}
