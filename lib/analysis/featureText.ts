import { decimal, LONGEST_TOKEN, type ShownExample, shade } from "./featureReport.js";
import { visibleText } from "./visibleText.js";

export interface FeatureTextOptions {
  /**
   * Shade tokens by ANSI background colours, blue where the activation is negative; without it strongly active tokens
   * stand in [brackets], strongly negative ones in {braces}.
   */
  readonly colour: boolean;
  /** Columns that a line may take. */
  readonly width: number;
  /** Examples per latent, and per sign of its activations. */
  readonly examples: number;
}

/** As `FeatureTextOptions.colour` says. */
export function textStyle(colour: boolean): TextStyle {
  return colour ? coloured : plain;
}

export interface TextStyle {
  /** @param level - how strongly to mark it, as `shade` says */
  token(text: string, level: number): string;
  bold(text: string): string;
  quiet(text: string): string;
  /** Columns that marking a token may add. */
  readonly markWidth: number;
}

/** From pale to strong orange in the 256-colour palette; black text is legible on all of them. */
const BACKGROUNDS = [230, 230, 229, 223, 222, 221, 215, 214, 208, 202] as const;
/** The same in blue. */
const NEGATIVE_BACKGROUNDS = [195, 195, 159, 159, 153, 153, 117, 117, 75, 39] as const;

const coloured: TextStyle = {
  token: (text, level) => {
    if (level === 0) return text;
    const background = (level > 0 ? BACKGROUNDS : NEGATIVE_BACKGROUNDS)[Math.abs(level) - 1];
    return `\u001b[38;5;16;48;5;${background}m${text}\u001b[0m`;
  },
  bold: (text) => `\u001b[1m${text}\u001b[0m`,
  quiet: (text) => `\u001b[2m${text}\u001b[0m`,
  markWidth: 0,
};

const MARKED_FROM = 4;

const plain: TextStyle = {
  // The leading space of a word stays outside of the brackets.
  token: (text, level) => {
    if (Math.abs(level) < MARKED_FROM) return text;
    const word = text.trimStart() || text;
    return `${text.slice(0, text.length - word.length)}${level > 0 ? `[${word}]` : `{${word}}`}`;
  },
  bold: (text) => text,
  quiet: (text) => text,
  markWidth: 2,
};

/** The activation, and as many tokens on both sides of the peak as the line holds. */
export function exampleLine(
  { tokens, activations, peak, activation }: ShownExample,
  { tokenText }: { readonly tokenText: (id: number) => string },
  strongest: number,
  width: number,
  style: TextStyle,
): string {
  const label = decimal(activation).padStart(8);
  const levels = Array.from(activations, (value) => shade(value, strongest));
  const texts = Array.from(tokens, (id) => visibleText(tokenText(id), LONGEST_TOKEN));
  const columns = (index: number): number =>
    [...texts[index]!].length + (Math.abs(levels[index]!) >= MARKED_FROM ? style.markWidth : 0);
  let room = width - label.length - 2 - columns(peak);
  let [first, last] = [peak, peak];
  // Two tokens before the peak for each one after it: what comes before is what the model had seen.
  for (let turn = 0, blocked = 0; blocked < 3; turn++) {
    const next = turn % 3 === 2 ? last + 1 : first - 1;
    if (next < 0 || next >= tokens.length || columns(next) > room) {
      blocked += 1;
      continue;
    }
    blocked = 0;
    room -= columns(next);
    if (next > last) last = next;
    else first = next;
  }
  const shadedTokens = texts.slice(first, last + 1).map((text, index) => style.token(text, levels[first + index]!));
  return `${label}  ${shadedTokens.join("")}`;
}
