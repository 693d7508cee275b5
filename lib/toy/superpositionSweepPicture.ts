import { type SuperpositionMeasures, superpositionGeometries } from "./superpositionMeasures.js";
import { fixed, line, logarithmicTicks, type Picture, text } from "./superpositionPicture.js";

/** Models that differ in their sparsity only. */
export interface SparsitySeries {
  /** Such as "importance 0.9^i". */
  readonly label: string;
  readonly points: readonly SparsityPoint[];
}

export interface SparsityPoint {
  readonly sparsity: number;
  readonly measures: SuperpositionMeasures;
}

const WIDTH = 510;
const HEIGHT = 300;
const LEFT = 48;
const RIGHT = 142;
const TOP = 18;
const BOTTOM = 44;

/** Told apart by hue and on light and dark pages. */
const SERIES_COLOURS = ["#2f6fd0", "#e0762f", "#2f9e63", "#b0509e", "#8a7a2e", "#d5493a"];

/** How far the points of one model's features are spread around its place on the axis. */
const SPREAD = 14;

/** Dimensions per feature D* = m / |W|² against 1 / (1 - S), with the paper's plateaus at 1 and 1/2 as lines. */
export function dimensionsPerFeaturePicture(series: readonly SparsitySeries[]): Picture {
  const axes = new Axes(series);
  const plateaus = superpositionGeometries.filter(
    ({ dimensionality }) => dimensionality === 1 || dimensionality === 0.5,
  );
  return {
    name: "dimensions-per-feature",
    label: "Dimensions per feature against 1 / (1 - S)",
    width: WIDTH,
    height: heightWithLegend(series),
    content: [
      axes.draw("D* = m / |W|²"),
      axes.levels(
        plateaus.map(({ dimensionality, fraction, name }) => ({ y: dimensionality, label: `${fraction} ${name}` })),
      ),
      ...series.map(({ points }, index) => curve(axes, points, seriesColour(index), true)),
      legend(series),
    ].join(""),
  };
}

/** The dimensionality D_i of every feature against 1 / (1 - S), D* as a curve, and the known arrangements as lines. */
export function featureDimensionalityPicture(series: readonly SparsitySeries[]): Picture {
  const axes = new Axes(series);
  const scatter = series.flatMap(({ points }, index) =>
    points.map(({ sparsity, measures }) => {
      const circles = Array.from(measures.dimensionality, (dimensionality, feature) => {
        // Steps of the golden ratio fill an interval evenly, however many there are.
        const shift = (((feature * 0.618034 + 0.5) % 1) - 0.5) * SPREAD;
        return `<circle cx="${fixed(axes.x(sparsity) + shift)}" cy="${fixed(axes.y(dimensionality))}" r="2.2"/>`;
      });
      return `<g fill="${seriesColour(index)}" fill-opacity="0.5">${circles.join("")}</g>`;
    }),
  );
  return {
    name: "feature-dimensionality",
    label: "Dimensionality of each feature against 1 / (1 - S)",
    width: WIDTH,
    height: heightWithLegend(series),
    content: [
      axes.draw("dimensionality of each feature"),
      axes.levels(
        superpositionGeometries.map(({ dimensionality, fraction, name }) => ({
          y: dimensionality,
          label: `${fraction} ${name}`,
        })),
      ),
      ...series.map(({ points }, index) => curve(axes, points, seriesColour(index), false)),
      ...scatter,
      legend(series),
    ].join(""),
  };
}

/** 1 / (1 - S), logarithmic, to the right; a share from 0 upwards. */
class Axes {
  readonly #largest: number;
  readonly #top: number;

  constructor(series: readonly SparsitySeries[]) {
    this.#largest = Math.max(2, ...values(series, ({ sparsity }) => 1 / (1 - sparsity)));
    const highest = Math.max(...values(series, ({ measures }) => measures.dimensionsPerFeature));
    this.#top = Math.min(1.5, Math.max(1.05, 1.05 * highest));
  }

  x(sparsity: number): number {
    const inset = SPREAD / 2 + 4;
    const width = WIDTH - LEFT - RIGHT - 2 * inset;
    return LEFT + inset + (Math.log(1 / (1 - sparsity)) / Math.log(this.#largest)) * width;
  }

  /** D* of weights that are all small is anything from 1 to infinity: it stays at the upper end. */
  y(value: number): number {
    return TOP + (1 - Math.min(1, value / this.#top)) * (HEIGHT - TOP - BOTTOM);
  }

  draw(title: string): string {
    const [bottom, right] = [HEIGHT - BOTTOM, WIDTH - RIGHT];
    const horizontal = logarithmicTicks(1, this.#largest).map((tick) => {
      const x = this.x(1 - 1 / tick);
      return line([x, bottom], [x, bottom + 4]) + text(x, bottom + 16, String(tick), { anchor: "middle" });
    });
    const vertical = [0, 0.25, 0.5, 0.75, 1].map((tick) => {
      const y = this.y(tick);
      return line([LEFT - 4, y], [LEFT, y]) + text(LEFT - 8, y + 4, String(tick), { anchor: "end" });
    });
    return [
      line([LEFT, TOP], [LEFT, bottom]),
      line([LEFT, bottom], [right, bottom]),
      ...horizontal,
      ...vertical,
      text((LEFT + right) / 2, HEIGHT - 8, "1 / (1 - S): from dense to sparse", { anchor: "middle" }),
      text(2, 11, title),
    ].join("");
  }

  /** Dashed lines with a label at the right, moved apart where they would overlap. */
  levels(levels: readonly { readonly y: number; readonly label: string }[]): string {
    let free = Number.NEGATIVE_INFINITY;
    return [...levels]
      .sort((a, b) => b.y - a.y)
      .map(({ y: value, label }) => {
        const y = this.y(value);
        const labelY = Math.max(y, free);
        free = labelY + 12;
        const right = WIDTH - RIGHT;
        return [
          line([LEFT, y], [right, y], { opacity: 0.4, dashed: true }),
          line([right, y], [right + 8, labelY], { opacity: 0.4 }),
          text(right + 12, labelY + 4, label),
        ].join("");
      })
      .join("");
  }
}

function curve(axes: Axes, points: readonly SparsityPoint[], colour: string, marked: boolean): string {
  const places = [...points]
    .sort((a, b) => a.sparsity - b.sparsity)
    .map(({ sparsity, measures }) => [axes.x(sparsity), axes.y(measures.dimensionsPerFeature)] as const);
  const path = places.map(([x, y]) => `${fixed(x)},${fixed(y)}`).join(" ");
  const marks = places.map(([x, y]) => `<circle cx="${fixed(x)}" cy="${fixed(y)}" r="3.5" fill="${colour}"/>`);
  return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="${marked ? 2 : 1.5}"${marked ? "" : ' stroke-opacity="0.6"'}/>${marked ? marks.join("") : ""}`;
}

const LEGEND_COLUMNS = 2;
const LEGEND_ROW = 16;

/** Which colour is which series, below the chart; nothing for a single series. */
function legend(series: readonly SparsitySeries[]): string {
  if (series.length === 1) return "";
  return series
    .map(({ label }, index) => {
      const x = LEFT + (index % LEGEND_COLUMNS) * 200;
      const y = HEIGHT + 12 + Math.floor(index / LEGEND_COLUMNS) * LEGEND_ROW;
      return `<rect x="${x}" y="${y - 8}" width="9" height="9" fill="${seriesColour(index)}"/>${text(x + 14, y, label)}`;
    })
    .join("");
}

function heightWithLegend(series: readonly SparsitySeries[]): number {
  return series.length === 1 ? HEIGHT : HEIGHT + 4 + Math.ceil(series.length / LEGEND_COLUMNS) * LEGEND_ROW;
}

function seriesColour(index: number): string {
  return SERIES_COLOURS[index % SERIES_COLOURS.length]!;
}

function values(series: readonly SparsitySeries[], value: (point: SparsityPoint) => number): readonly number[] {
  return series.flatMap(({ points }) => points.map(value));
}
