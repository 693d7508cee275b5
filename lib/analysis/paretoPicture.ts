/**
 * A sweep as a picture: one panel for each quality against L0, a line for each architecture (number of latents, place in
 * the model), the SAEs filled that none at the same place dominates.
 */
import {
  l0Text,
  nameText,
  paretoFront,
  placeOf,
  placeTexts,
  type Quality,
  qualitiesOf,
  qualityNames,
  qualityText,
  type SweepPoint,
} from "./pareto.js";
import { escapeHtml, visibleText } from "./visibleText.js";

const panel = { width: 460, height: 320, left: 58, right: 14, top: 34, bottom: 46 } as const;
const legendRow = 20;

/** Okabe and Ito's palette, which colour-blind people can tell apart, without the yellow that white paper swallows. */
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"] as const;

/** Shapes of radius about 1 around the origin: colours repeat after seven series, pairs with shapes after 42. */
const shapes = [
  "M-.9 0A.9 .9 0 1 0 .9 0A.9 .9 0 1 0 -.9 0Z",
  "M-.8 -.8H.8V.8H-.8Z",
  "M0 -1.05L1 .75H-1Z",
  "M0 -1.15L1.15 0L0 1.15L-1.15 0Z",
  "M0 1.05L1 -.75H-1Z",
  "M-.35 -1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
] as const;

/** An SVG picture that is a file of its own, black on white. Every text in it may be hostile: it is escaped. */
export function paretoSvg(points: readonly SweepPoint[]): string {
  return `${paretoPicture(points, { background: true })}\n`;
}

/**
 * The picture as an element of a page, in the page's text colour. Styles are attributes only, so that the page's policy
 * need not allow inline styles.
 */
export function paretoPicture(
  points: readonly SweepPoint[],
  { background = false }: { background?: boolean } = {},
): string {
  const shown = qualitiesOf(points);
  const series = seriesOf(points);
  const width = shown.length * panel.width;
  const legend = legendOf(series, width, placeTexts(points) === undefined ? "" : " at its hook");
  const height = panel.height + legend.height;
  const label = `${points.length} SAEs by L0 and ${shown.map((quality) => qualityNames[quality]).join(" and ")}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${label}" fill="currentColor" font-family="system-ui, sans-serif" font-size="12">`,
    ...(background ? [`<rect width="100%" height="100%" fill="#fff"/>`] : []),
    ...shown.map((quality, index) => panelOf(points, quality, index * panel.width, series)),
    legend.content,
    "</svg>",
  ].join("");
}

/** SAEs that differ in their sparsity, by ascending L0, and how they are drawn. */
interface Series {
  readonly name: string;
  readonly points: readonly SweepPoint[];
  readonly colour: string;
  readonly shape: string;
}

function seriesOf(points: readonly SweepPoint[]): readonly Series[] {
  const oneWidth = new Set(points.map(({ dSae }) => dSae)).size === 1;
  const placeText = placeTexts(points);
  const nameOf = (point: SweepPoint): string => {
    const width = oneWidth ? "" : `, ${point.dSae} latents`;
    const place = placeText === undefined ? "" : `, ${placeText(point)}`;
    return `${visibleText(point.architecture, 40)}${width}${place}`;
  };
  const keyOf = (point: SweepPoint): string => JSON.stringify([point.architecture, point.dSae, placeOf(point)]);
  const sorted = points.toSorted((a, b) => a.l0 - b.l0);
  const order = points.toSorted(
    (a, b) =>
      placeOf(a).localeCompare(placeOf(b), "en") ||
      a.architecture.localeCompare(b.architecture, "en") ||
      a.dSae - b.dSae,
  );
  return [...new Map(order.map((point) => [keyOf(point), nameOf(point)]))].map(([key, name], index) => ({
    name,
    points: sorted.filter((point) => keyOf(point) === key),
    colour: colours[index % colours.length]!,
    shape: shapes[index % shapes.length]!,
  }));
}

function panelOf(points: readonly SweepPoint[], quality: Quality, x0: number, series: readonly Series[]): string {
  const [left, right] = [x0 + panel.left, x0 + panel.width - panel.right];
  const [top, bottom] = [panel.top, panel.height - panel.bottom];
  const horizontal = logarithmicScale(
    points.map(({ l0 }) => l0),
    [left, right],
  );
  const vertical = linearScale(
    points.map((point) => point[quality]!),
    [bottom, top],
  );
  const grid = [
    ...horizontal.ticks.map(
      (tick) =>
        `<path d="M${fixed(horizontal.place(tick))} ${top}V${bottom}" stroke="currentColor" stroke-opacity=".13"/>` +
        text(horizontal.place(tick), bottom + 17, plainNumber(tick), "middle"),
    ),
    ...vertical.ticks.map(
      (tick) =>
        `<path d="M${left} ${fixed(vertical.place(tick))}H${right}" stroke="currentColor" stroke-opacity=".13"/>` +
        text(left - 7, vertical.place(tick) + 4, `${plainNumber(100 * tick)}%`, "end"),
    ),
  ];
  const at = (point: SweepPoint): readonly [number, number] => [
    horizontal.place(point.l0),
    vertical.place(point[quality]!),
  ];
  const front = new Set(paretoFront(points, quality));
  const lines = series.map(
    ({ points: joined, colour }) =>
      `<path d="M${joined.map((point) => at(point).map(fixed).join(" ")).join("L")}" fill="none" stroke="${colour}" stroke-opacity=".45" stroke-width="1.5"/>`,
  );
  const drawn = series.flatMap((one) =>
    one.points.map((point) => pointOf(point, at(point), one, { quality, dominated: !front.has(point) })),
  );
  return [
    text((left + right) / 2, 20, visibleText(qualityNames[quality]), "middle", ' font-weight="600" font-size="13"'),
    ...grid,
    `<path d="M${left} ${top}V${bottom}H${right}" fill="none" stroke="currentColor" stroke-opacity=".5"/>`,
    text((left + right) / 2, panel.height - 10, "L0: latents active on a token (fewer is better)", "middle"),
    ...lines,
    ...drawn,
  ].join("");
}

function pointOf(
  point: SweepPoint,
  [x, y]: readonly [number, number],
  { colour, shape }: Series,
  { quality, dominated }: { quality: Quality; dominated: boolean },
): string {
  const facts = `${nameText(point)}: L0 ${l0Text(point)}, ${qualityNames[quality]} ${qualityText(point, quality)}`;
  const title = `<title>${escapeHtml(facts)}${dominated ? " (dominated)" : ""}</title>`;
  return symbol([x, y], { colour, shape }, { filled: !dominated, title });
}

function symbol(
  [x, y]: readonly [number, number],
  { colour, shape }: Pick<Series, "colour" | "shape">,
  { filled, title = "" }: { filled: boolean; title?: string },
): string {
  const opacity = filled ? "" : ' fill-opacity=".12"';
  return `<path d="${shape}" transform="translate(${fixed(x)} ${fixed(y)}) scale(5.5)" fill="${colour}"${opacity} stroke="${colour}" stroke-width=".25">${title}</path>`;
}

/** What the symbols mean, in as many rows as the width makes necessary. */
function legendOf(series: readonly Series[], width: number, rivals: string): { content: string; height: number } {
  const grey = { colour: "#7f7f7f", shape: shapes[0] };
  const several = series.flatMap(({ points }) => points).length > 1;
  const entries = [
    ...series.map((one) => ({ ...one, filled: true })),
    ...(several
      ? [
          { ...grey, name: `filled: no other SAE${rivals} is better in both`, filled: true },
          { ...grey, name: "hollow: another one is", filled: false },
        ]
      : []),
  ];
  let [x, row] = [panel.left, 0];
  const content = entries.map(({ name, colour, shape, filled }) => {
    const space = 34 + 6.5 * [...name].length;
    if (x > panel.left && x + space > width) [x, row] = [panel.left, row + 1];
    const y = panel.height + 10 + row * legendRow;
    const drawn = symbol([x + 6, y], { colour, shape }, { filled }) + text(x + 18, y + 4, name, "start");
    x += space;
    return drawn;
  });
  return { content: content.join(""), height: (row + 1) * legendRow + 8 };
}

interface Scale {
  readonly ticks: readonly number[];
  place(value: number): number;
}

/** Multiples of the powers of ten that ticks may stand at, the most first. */
const logarithmicTicks = [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]] as const;
const fewestTicks = 3;
const mostTicks = 8;

/** From a little below the smallest value to a little above the largest; as a rule with three to eight ticks. */
function logarithmicScale(values: readonly number[], range: readonly [number, number]): Scale {
  // An L0 of 0 has no logarithm; it stands at the left edge.
  const positive = values.filter((value) => value > 0);
  const [low, high] = positive.length === 0 ? [1, 10] : [Math.min(...positive) / 1.15, Math.max(...positive) * 1.15];
  const first = Math.floor(Math.log10(low));
  const exponents = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, index) => first + index);
  const choices = logarithmicTicks.map((factors) =>
    exponents
      .flatMap((exponent) => factors.map((factor) => Number(`${factor}e${exponent}`)))
      .filter((tick) => tick >= low && tick <= high),
  );
  const ticks =
    choices[0]!.length < fewestTicks
      ? linearTicks(low, high, mostTicks)
      : (choices.find(({ length }) => length <= mostTicks) ?? choices.at(-1)!);
  const place = (value: number): number => between(Math.log(Math.max(value, low) / low) / Math.log(high / low), range);
  return { ticks, place };
}

function linearScale(values: readonly number[], range: readonly [number, number]): Scale {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const margin = most > least ? (most - least) * 0.08 : Math.max(Math.abs(most) * 0.05, 0.01);
  const [low, high] = [least - margin, most + margin];
  return { ticks: linearTicks(low, high, 8), place: (value) => between((value - low) / (high - low), range) };
}

/** Round numbers between `low` and `high`, at most about `count`. */
function linearTicks(low: number, high: number, count: number): readonly number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)!;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
}

function between(share: number, [from, to]: readonly [number, number]): number {
  return from + share * (to - from);
}

function text(x: number, y: number, content: string, anchor: "start" | "middle" | "end", attributes = ""): string {
  return `<text x="${fixed(x)}" y="${fixed(y)}" text-anchor="${anchor}"${attributes}>${escapeHtml(content)}</text>`;
}

/** A tick without the digits that floating point adds. */
function plainNumber(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function fixed(coordinate: number): string {
  return String(Math.round(coordinate * 100) / 100);
}
