import { printableText, visibleText } from "../analysis/visibleText.js";
import type { SteeredTexts } from "./steering.js";

/** What steering did, for people. Strings may be of any origin: they are made harmless where they are shown. */
export interface SteeringReport {
  readonly title: string;
  /** Names and values above the numbers. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly prompt: string;
  /** Text of the target token, where there is one. */
  readonly target: string | undefined;
  readonly trials: readonly SteeredTexts[];
}

/** A table of numbers: what its columns are called, and a row for each trial. */
export function steeringTable({ trials, target }: SteeringReport): {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
} {
  const latents = trials[0]?.activations.map(({ latent }) => latent).slice(0, MOST_LATENTS) ?? [];
  return {
    columns: [
      "",
      "perplexity",
      ...latents.map((latent) => `latent ${latent}`),
      ...(target === undefined ? [] : [`P(${JSON.stringify(target)})`]),
    ],
    rows: trials.map(({ label, perplexity, activations, targetProbability }) => [
      label,
      perplexity < 1e4 ? perplexity.toFixed(2) : perplexity.toExponential(2),
      ...latents.map((_, i) => activations[i]!.mean.toFixed(3)),
      ...(targetProbability === undefined ? [] : [`${(100 * targetProbability).toFixed(1)}%`]),
    ]),
  };
}

const MOST_LATENTS = 4;

/**
 * Facts, the numbers, and the first text of each trial: two of them side by side, more one below the other.
 *
 * @param options.width - columns of the terminal
 */
export function steeringText(report: SteeringReport, options: { readonly width: number }): string {
  const { facts, trials, prompt } = report;
  const nameWidth = Math.max(0, ...facts.map(([name]) => name.length));
  const head = facts.map(([name, value]) => `${name.padEnd(nameWidth)}  ${visibleText(value)}`);
  const { columns, rows } = steeringTable(report);
  const table = [columns, ...rows].map((row) => row.map((cell) => visibleText(cell)));
  const widths = columns.map((_, i) => Math.max(...table.map((row) => [...row[i]!].length)));
  const lines = table.map((row) =>
    row.map((cell, i) => (i === 0 ? padEnd(cell, widths[i]!) : padStart(cell, widths[i]!))).join("  "),
  );
  const texts = trials.map(({ label, texts: [text = ""] }) => ({
    label: visibleText(label),
    text: printableText(`${prompt}${text}`),
  }));
  return `${[...head, "", ...lines, "", ...textLines(texts, options.width)].join("\n")}\n`;
}

const GAP = 3;

function textLines(
  texts: readonly { readonly label: string; readonly text: string }[],
  width: number,
): readonly string[] {
  if (texts.length !== 2) {
    return texts.flatMap(({ label, text }, i) => [...(i === 0 ? [] : [""]), `[${label}]`, ...wrapped(text, width)]);
  }
  const half = Math.floor((width - GAP) / 2);
  const [left, right] = texts.map(({ label, text }) => [`[${label}]`, ...wrapped(text, half)]) as [string[], string[]];
  return Array.from({ length: Math.max(left.length, right.length) }, (_, i) =>
    `${padEnd(left[i] ?? "", half + GAP)}${right[i] ?? ""}`.trimEnd(),
  );
}

/** Lines of `width` characters at most, broken at spaces where there are any. */
export function wrapped(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let line = "";
    for (const word of paragraph.replaceAll("\t", " ").split(" ")) {
      const joined = line === "" ? word : `${line} ${word}`;
      if ([...joined].length <= width) {
        line = joined;
        continue;
      }
      if (line !== "") lines.push(line);
      const characters = [...word];
      while (characters.length > width) lines.push(characters.splice(0, width).join(""));
      line = characters.join("");
    }
    return [...lines, line];
  });
}

function padEnd(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - [...text].length));
}

function padStart(text: string, width: number): string {
  return " ".repeat(Math.max(0, width - [...text].length)) + text;
}
