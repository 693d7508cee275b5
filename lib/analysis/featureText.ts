import type { LatentDecoderNorms } from "./decoderNorms.js";
import { type FeatureReport, LONGEST_TOKEN, type ShownExample, shade } from "./featureReport.js";
import { type FeatureStatistics, strongestActivation } from "./features.js";
import type { TokenEffect } from "./logitEffects.js";
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

/** The features of a report as lines for a terminal, hostile token text made harmless. */
export function featureReportText(report: FeatureReport, options: FeatureTextOptions): string {
  const style = textStyle(options.colour);
  const numbers = report.summary.map(({ name, value }) => `${visibleText(name)} ${style.bold(visibleText(value))}`);
  const features = report.latents.map((latent, index) => {
    const { statistics } = report;
    const shown = [statistics.examples(latent), statistics.negativeExamples(latent)].flatMap((examples) =>
      examples.slice(0, options.examples),
    );
    const effects = report.logitEffects?.[index];
    const norms = report.decoderNorms?.[index];
    return [
      `${style.bold(`latent ${latent}`)}  ${style.quiet(firingText(statistics, latent))}`,
      ...(norms === undefined ? [] : decoderNormLines(norms).map((line) => style.quiet(line))),
      ...(effects === undefined ? [] : [style.quiet(effectLine("raises", effects.raised, report, options.width))]),
      ...shown.map((example) =>
        exampleLine(example, report, strongestActivation(statistics, latent), options.width, style),
      ),
    ].join("\n");
  });
  return `${[numbers.join("   "), ...features].join("\n\n")}\n`;
}

/** Where activations are negative, too, how far they go on both sides. */
function firingText(
  { firingCounts, tokens, maxActivations, minActivations }: FeatureStatistics,
  latent: number,
): string {
  const density = (100 * firingCounts[latent]!) / tokens;
  const firing = `fires on ${Number(density.toPrecision(2))}% of tokens`;
  const [largest, smallest] = [maxActivations[latent]!, minActivations[latent]!];
  return smallest < 0 ? `${firing}, from ${smallest.toFixed(2)} to ${largest.toFixed(2)}` : firing;
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

/** Hook points have long names, so that each stands on a line of its own. */
function decoderNormLines({ norms }: LatentDecoderNorms): readonly string[] {
  return norms.map(({ hook, norm }) => `  decoder norm ${norm.toFixed(2)} at ${visibleText(hook, 80)}`);
}

function effectLine(verb: string, effects: readonly TokenEffect[], report: FeatureReport, width: number): string {
  let line = `  ${verb}`;
  for (const { token } of effects) {
    const text = visibleText(report.tokenText(token), LONGEST_TOKEN).trim();
    if (line.length + text.length + 2 > width) break;
    line += `  ${text}`;
  }
  return line;
}

/** The activation, and as many tokens on both sides of the peak as the line holds. */
export function exampleLine(
  { tokens, activations, peak, activation }: ShownExample,
  { tokenText }: Pick<FeatureReport, "tokenText">,
  strongest: number,
  width: number,
  style: TextStyle,
): string {
  const label = activation.toFixed(2).padStart(8);
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
