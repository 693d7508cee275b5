/** A picture as SVG: parts that all pictures of toy models share. */
import { visibleHtml } from "../analysis/visibleText.js";

export interface Picture {
  /** Of a file: letters, digits, hyphens and dots. */
  readonly name: string;
  /** What it shows, for those who cannot see it. */
  readonly label: string;
  readonly width: number;
  readonly height: number;
  /** SVG elements. Their styles are attributes only, so that a page's policy need not allow inline styles. */
  readonly content: string;
}

/** The picture as an element of an HTML page, in the page's text colour. */
export function pictureElement({ label, width, height, content }: Picture): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${fixed(width)} ${fixed(height)}" width="${fixed(width)}" height="${fixed(height)}" role="img" aria-label="${visibleHtml(label)}" fill="currentColor" font-family="system-ui, sans-serif" font-size="11">${content}</svg>`;
}

/** The picture as a file of its own, black on white. */
export function pictureFile(picture: Picture): string {
  const background = `<rect width="100%" height="100%" fill="#fff"/>`;
  return `${pictureElement({ ...picture, content: background + picture.content })}\n`;
}

/** A coordinate, to a hundredth. */
export function fixed(coordinate: number): string {
  return String(Math.round(coordinate * 100) / 100);
}

export function text(
  x: number,
  y: number,
  content: string,
  { anchor = "start", size, bold = false }: { anchor?: "start" | "middle" | "end"; size?: number; bold?: boolean } = {},
): string {
  const attributes = [
    anchor === "start" ? "" : ` text-anchor="${anchor}"`,
    size === undefined ? "" : ` font-size="${size}"`,
    bold ? ' font-weight="600"' : "",
  ].join("");
  return `<text x="${fixed(x)}" y="${fixed(y)}"${attributes}>${visibleHtml(content)}</text>`;
}

/** A thin line in the text's colour. */
export function line(
  [x1, y1]: readonly [number, number],
  [x2, y2]: readonly [number, number],
  { opacity = 1, dashed = false }: { opacity?: number; dashed?: boolean } = {},
): string {
  return `<line x1="${fixed(x1)}" y1="${fixed(y1)}" x2="${fixed(x2)}" y2="${fixed(y2)}" stroke="currentColor"${opacity === 1 ? "" : ` stroke-opacity="${opacity}"`}${dashed ? ' stroke-dasharray="3 3"' : ""}/>`;
}

/** Powers of ten from `low` to `high`, and between them 2 and 5 times a power when there are few. */
export function logarithmicTicks(low: number, high: number): readonly number[] {
  const decades = Math.log10(high / low);
  const ticks: number[] = [];
  for (let exponent = Math.floor(Math.log10(low)); exponent <= Math.ceil(Math.log10(high)); exponent++) {
    for (const factor of decades > 2.5 ? [1] : [1, 2, 5]) {
      const tick = exponent < 0 ? factor / 10 ** -exponent : factor * 10 ** exponent;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

/** The colour of a feature by its superposition: blue when it is alone, over red to yellow from 1 on. */
export function superpositionColour(superposition: number): string {
  const place = Math.min(1, Math.max(0, superposition)) * (SUPERPOSITION_COLOURS.length - 1);
  const index = Math.min(SUPERPOSITION_COLOURS.length - 2, Math.floor(place));
  return mixedColour(SUPERPOSITION_COLOURS[index]!, SUPERPOSITION_COLOURS[index + 1]!, place - index);
}

type Colour = readonly [red: number, green: number, blue: number];

const SUPERPOSITION_COLOURS: readonly Colour[] = [
  [52, 84, 190],
  [128, 62, 178],
  [204, 66, 118],
  [240, 128, 72],
  [246, 196, 60],
];

export function mixedColour(from: Colour, to: Colour, share: number): string {
  const channels = from.map((channel, index) => Math.round(channel + (to[index]! - channel) * share));
  return `#${channels.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}
