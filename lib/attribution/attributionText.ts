import { visibleText } from "../analysis/visibleText.js";

/** A player, and what it does to the score. */
export interface AttributedPlayer {
  /** Text of any origin. */
  readonly label: string;
  readonly value: number;
  /** Of the value, where it is an estimate from samples. */
  readonly standardError?: number;
}

/** What LIME or SHAP found, for people. */
export interface AttributionReport {
  /** Names and values above the table. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  /** In the order in which they are shown. */
  readonly players: readonly AttributedPlayer[];
}

/** A label longer than this many code points is cut. */
export const LONGEST_LABEL = 48;
const LONGEST_BAR = 24;

/**
 * Lines for a terminal, hostile labels made harmless: facts, then for each player its value, a bar and its label.
 *
 * @param options.colour - orange bars for what raises the score, blue ones for what lowers it, as in `features`
 */
export function attributionText({ facts, players }: AttributionReport, options: { readonly colour: boolean }): string {
  const nameWidth = Math.max(...facts.map(([name]) => name.length));
  const head = facts.map(([name, value]) => `${name.padEnd(nameWidth)}  ${visibleText(value)}`);
  const numbers = players.map(valueText);
  const numberWidth = Math.max(0, ...numbers.map(({ length }) => length));
  const largest = Math.max(...players.map(({ value }) => Math.abs(value)));
  const rows = players.map(({ value, label }, index) => {
    const length = largest === 0 ? 0 : Math.round((LONGEST_BAR * Math.abs(value)) / largest);
    const bar = (value < 0 ? "░" : "█").repeat(length);
    const shown = options.colour && length > 0 ? `\u001b[38;5;${value < 0 ? 39 : 208}m${bar}\u001b[0m` : bar;
    const padding = " ".repeat(LONGEST_BAR - length);
    return `${numbers[index]!.padStart(numberWidth)}  ${shown}${padding}  ${visibleText(label, LONGEST_LABEL)}`;
  });
  return `${head.join("\n")}\n\n${rows.join("\n")}\n`;
}

/** The value with its sign, and its standard error where it has one. */
export function valueText({ value, standardError }: AttributedPlayer): string {
  return standardError === undefined || Number.isNaN(standardError)
    ? signed(value)
    : `${signed(value)} ± ${standardError.toFixed(4)}`;
}

function signed(value: number): string {
  const text = value.toFixed(4);
  return value < 0 ? text : `+${text}`;
}
