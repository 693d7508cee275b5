import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { SuperpositionMeasures } from "./superpositionMeasures.js";
import type { SuperpositionModel } from "./superpositionModel.js";
import { fixed, line, type Picture, superpositionColour, text } from "./superpositionPicture.js";

export interface ModelPictureOptions {
  /** Of the file. */
  readonly name: string;
  /** Above the picture, such as "S = 0.9". */
  readonly title: string;
  /** The longest |W_i| that the axes have room for, so that several pictures can be compared. Default: the model's. */
  readonly largestNorm?: number | undefined;
}

const GAP = 22;
const TOP = 46;
const BOTTOM = 22;
const BARS_WIDTH = 96;

/** Feature numbers are written beside arrows and rows of models that are not larger. */
const NUMBERED_FEATURES = 15;

/** Shorter arrows would be dots on top of each other. */
const SHORTEST_ARROW = 0.1;

const optionNames: OptionNames<ModelPictureOptions> = {
  name: true,
  title: true,
  largestNorm: true,
};

/**
 * One model as the paper draws it: in two dimensions the directions W_i as arrows, WᵀW and b as heat maps (blue: 1, red:
 * -1), and |W_i| as bars whose colour is the superposition.
 */
export function superpositionModelPicture(
  model: SuperpositionModel,
  measures: SuperpositionMeasures,
  options: ModelPictureOptions,
): Picture {
  checkOptions("superpositionModelPicture", options, optionNames);
  const { name, title, largestNorm = 0 } = options;
  const { features, dimensions } = model;
  const reach = Math.max(1.1, largestNorm, ...measures.norms);
  const side = Math.min(360, Math.max(150, 3 * features));
  const cell = side / features;
  const biasWidth = Math.max(8, Math.min(cell, 16));

  const parts: string[] = [text(2, 14, title, { size: 13, bold: true })];
  let left = 2;
  if (dimensions === 2) {
    parts.push(columnTitle(left + side / 2, "features in the plane"), arrows(model, measures, { left, side, reach }));
    left += side + GAP;
  }
  const numbers = features <= NUMBERED_FEATURES;
  if (numbers) {
    const size = Math.min(10, cell + 1);
    for (let i = 0; i < features; i++) {
      parts.push(text(left + 10, TOP + (i + 0.5) * cell + size * 0.36, String(i), { anchor: "end", size }));
    }
    left += 14;
  }
  parts.push(columnTitle(left + side / 2, "WᵀW"), frame(left, side, side));
  parts.push(heatMap(measures.interference, features, { left, width: cell, height: cell }));
  left += side + 10;
  parts.push(columnTitle(left + biasWidth / 2, "b"), frame(left, biasWidth, side));
  parts.push(heatMap(model.bias, 1, { left, width: biasWidth, height: cell }));
  left += biasWidth + 14;
  parts.push(columnTitle(left + BARS_WIDTH / 2, "|Wᵢ|"), bars(measures, { left, cell, reach }));
  left += BARS_WIDTH;

  return {
    name,
    label: `${title}: ${dimensions === 2 ? "directions of the features, " : ""}interference matrix, bias and norms`,
    width: left + 4,
    height: TOP + side + BOTTOM,
    content: parts.join(""),
  };
}

/** What the colours mean. */
export function superpositionLegend(): Picture {
  const swatches = Array.from({ length: 11 }, (_, index) => {
    const x = 110 + 14 * index;
    return `<rect x="${x}" y="4" width="14" height="10" fill="${superpositionColour(index / 10)}"/>`;
  });
  const heat = Array.from({ length: 11 }, (_, index) => {
    const value = (index - 5) / 5;
    return `<rect x="${450 + 14 * index}" y="4" width="14" height="10" ${heatFill(value)}/>`;
  });
  return {
    name: "legend",
    label: "Colours: superposition from 0, blue, to 1 and more, yellow; matrices from -1, red, to 1, blue",
    width: 640,
    height: 20,
    content: [
      text(106, 13, "superposition: 0", { anchor: "end" }),
      ...swatches,
      text(270, 13, "≥ 1"),
      text(444, 13, "WᵀW and b: ≤ −1", { anchor: "end" }),
      ...heat,
      text(610, 13, "≥ 1"),
    ].join(""),
  };
}

function columnTitle(x: number, title: string): string {
  return text(x, TOP - 8, title, { anchor: "middle" });
}

function frame(left: number, width: number, height: number): string {
  return `<rect x="${fixed(left)}" y="${TOP}" width="${fixed(width)}" height="${fixed(height)}" fill="none" stroke="currentColor" stroke-opacity="0.25"/>`;
}

function arrows(
  { weights, features }: SuperpositionModel,
  { norms, superposition }: SuperpositionMeasures,
  { left, side, reach }: { left: number; side: number; reach: number },
): string {
  const [x0, y0] = [left + side / 2, TOP + side / 2];
  const scale = (side / 2 - 9) / reach;
  const parts = [
    line([left, y0], [left + side, y0], { opacity: 0.2 }),
    line([x0, TOP], [x0, TOP + side], { opacity: 0.2 }),
    `<circle cx="${fixed(x0)}" cy="${fixed(y0)}" r="${fixed(scale)}" fill="none" stroke="currentColor" stroke-opacity="0.35" stroke-dasharray="2 3"/>`,
  ];
  for (let i = 0; i < features; i++) {
    if (norms[i]! < SHORTEST_ARROW) continue;
    const [w0, w1] = [weights[2 * i]!, weights[2 * i + 1]!];
    const [x, y] = [x0 + scale * w0, y0 - scale * w1];
    const colour = superpositionColour(superposition[i]!);
    parts.push(
      `<line x1="${fixed(x0)}" y1="${fixed(y0)}" x2="${fixed(x)}" y2="${fixed(y)}" stroke="${colour}" stroke-width="2"/>`,
      `<circle cx="${fixed(x)}" cy="${fixed(y)}" r="3.5" fill="${colour}"><title>feature ${i}: |W| ${norms[i]!.toFixed(3)}</title></circle>`,
    );
    if (features <= NUMBERED_FEATURES) {
      const away = 10 / norms[i]!;
      parts.push(text(x + away * w0, y - away * w1 + 3.5, String(i), { anchor: "middle", size: 10 }));
    }
  }
  return parts.join("");
}

function bars(
  { norms, superposition }: SuperpositionMeasures,
  { left, cell, reach }: { left: number; cell: number; reach: number },
): string {
  const scale = BARS_WIDTH / reach;
  const bottom = TOP + norms.length * cell;
  const gap = cell > 4 ? 0.15 * cell : 0;
  const rows = Array.from(
    norms,
    (norm, i) =>
      `<rect x="${fixed(left)}" y="${fixed(TOP + i * cell + gap / 2)}" width="${fixed(norm * scale)}" height="${fixed(cell - gap)}" fill="${superpositionColour(superposition[i]!)}"><title>feature ${i}: |W| ${norm.toFixed(3)}, superposition ${superposition[i]!.toFixed(3)}</title></rect>`,
  );
  return [
    ...rows,
    line([left, TOP], [left, bottom], { opacity: 0.5 }),
    line([left + scale, TOP], [left + scale, bottom], { opacity: 0.5, dashed: true }),
    text(left, bottom + 14, "0", { anchor: "middle" }),
    text(left + scale, bottom + 14, "1", { anchor: "middle" }),
  ].join("");
}

/** Shades between nothing and full colour. */
const HEAT_LEVELS = 20;

/** A row-major matrix as one path per shade, in which neighbours of the same shade are one rectangle. */
function heatMap(
  values: ArrayLike<number>,
  columns: number,
  { left, width, height }: { left: number; width: number; height: number },
): string {
  const paths = new Map<number, string[]>();
  for (let start = 0; start < values.length; ) {
    const level = heatLevel(values[start]!);
    const column = start % columns;
    let run = 1;
    while (column + run < columns && heatLevel(values[start + run]!) === level) run += 1;
    if (level !== 0) {
      if (!paths.has(level)) paths.set(level, []);
      const y = TOP + Math.floor(start / columns) * height;
      const [w, h] = [fixed(run * width), fixed(height)];
      paths.get(level)!.push(`M${fixed(left + column * width)} ${fixed(y)}h${w}v${h}h-${w}z`);
    }
    start += run;
  }
  const shades = [...paths].sort(([a], [b]) => a - b);
  return shades
    .map(([level, rectangles]) => `<path ${heatFill(level / HEAT_LEVELS)} d="${rectangles.join("")}"/>`)
    .join("");
}

function heatLevel(value: number): number {
  return Math.round(Math.min(1, Math.max(-1, value)) * HEAT_LEVELS);
}

function heatFill(value: number): string {
  return `fill="${value < 0 ? "#d5493a" : "#2f6fd0"}" fill-opacity="${fixed(Math.abs(value))}"`;
}
