import { visibleText } from "../analysis/visibleText.js";
import type { PatchingMap } from "./patchingSweep.js";

/** What patching found, for people. Strings may be of any origin: they are made harmless where they are shown. */
export interface PatchingReport {
  readonly title: string;
  /** Names and values above the maps. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly maps: readonly PatchingMap[];
}

export interface PatchingTextOptions {
  readonly colour: boolean;
  /** Columns of the terminal. */
  readonly width: number;
}

const CELL = 8;
const LONGEST_ROW_LABEL = 24;

/**
 * Heat maps for a terminal: numbers, where there is colour on a background, orange above 0 and blue below. Maps that are
 * wider than the terminal continue below.
 */
export function patchingText({ facts, maps }: PatchingReport, options: PatchingTextOptions): string {
  const nameWidth = Math.max(0, ...facts.map(([name]) => name.length));
  const head = facts.map(([name, value]) => `${name.padEnd(nameWidth)}  ${visibleText(value)}`);
  return `${[...head, ...maps.flatMap((map) => ["", ...mapLines(map, options)])].join("\n")}\n`;
}

function mapLines(map: PatchingMap, { colour, width }: PatchingTextOptions): readonly string[] {
  const names = map.rows.map((row) => visibleText(row, LONGEST_ROW_LABEL));
  const nameWidth = Math.max(map.rowTitle.length, ...names.map((name) => [...name].length));
  const perBlock = Math.max(1, Math.floor((width - nameWidth) / (CELL + 1)));
  const lines = [visibleText(map.title)];
  for (let first = 0; first < map.columns.length; first += perBlock) {
    const columns = map.columns.slice(first, first + perBlock);
    const titles = columns.map((column) => padStart(short(column.trim(), CELL), CELL));
    lines.push(`${map.rowTitle.padEnd(nameWidth)} ${titles.join(" ")}`.trimEnd());
    for (const [row, name] of names.entries()) {
      const cells = map.effects[row]!.slice(first, first + perBlock).map((effect) => cell(effect, colour));
      lines.push(`${padEnd(name, nameWidth)} ${cells.join(" ")}`);
    }
  }
  return lines;
}

function cell(effect: number, colour: boolean): string {
  const text = effectText(effect).padStart(CELL);
  const shade = Math.min(SHADES[0].length, Math.round(Math.abs(effect) * SHADES[0].length));
  if (!colour || shade === 0) return text;
  return `\u001b[48;5;${SHADES[effect < 0 ? 1 : 0][shade - 1]!};38;5;16m${text}\u001b[0m`;
}

/** Of the 256 colours of terminals: light to strong, for effects above 0 and below. */
const SHADES = [
  [230, 223, 216, 209, 202],
  [195, 153, 111, 75, 33],
] as const;

/** To two decimals; a dot where that is 0, so that what is something stands out. */
export function effectText(effect: number): string {
  const text = `${effect < 0 ? "" : "+"}${effect.toFixed(2)}`;
  return Number(text) === 0 ? "·" : text;
}

function short(text: string, width: number): string {
  return [...text].length <= width ? visibleText(text, width) : visibleText(text, width - 1);
}

function padStart(text: string, width: number): string {
  return " ".repeat(Math.max(0, width - [...text].length)) + text;
}

function padEnd(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - [...text].length));
}
