/** SAEs of a sweep against each other: few active latents, and a reconstruction that keeps what the model needs. */

import { percentText } from "./percentText.js";
import type { SaeHooks } from "./saeHook.js";
import { visibleText } from "./visibleText.js";

/** One SAE of a sweep. */
export interface SweepPoint {
  readonly name: string;
  readonly architecture: string;
  readonly dSae: number;
  /** The model, and where in it the SAE reads and writes; SAEs are compared where they have both in common. */
  readonly modelName?: string | undefined;
  readonly hooks?: SaeHooks | undefined;
  readonly l0: number;
  readonly explainedVariance: number;
  /** Undefined where the SAEs were not evaluated in their model. */
  readonly lossRecovered?: number | undefined;
}

/** What is wanted beside a low L0, in the order in which it is shown. */
export const qualities = ["lossRecovered", "explainedVariance"] as const;
export type Quality = (typeof qualities)[number];

export const qualityNames: Readonly<Record<Quality, string>> = {
  lossRecovered: "loss recovered",
  explainedVariance: "explained variance",
};

/** A name is a path, which may be long, and may hold anything: as much of it as is shown. */
export function nameText({ name }: SweepPoint): string {
  return visibleText(name, 80);
}

/** A quality that the point has, as it is to be read. */
export function qualityText(point: SweepPoint, quality: Quality): string {
  return percentText(point[quality]!, 2);
}

export function l0Text({ l0 }: SweepPoint): string {
  return l0.toFixed(l0 < 1 ? 2 : 1);
}

/**
 * The place that two SAEs must have in common to be compared: hook points "a", "a + b" of a crosscoder, "a → b" of a
 * transcoder, and their model.
 */
export function placeOf({ modelName, hooks }: SweepPoint): string {
  return [...(modelName === undefined ? [] : [modelName]), ...(hooks === undefined ? [] : [hookText(hooks)])].join(
    ": ",
  );
}

function hookText({ input, output }: SaeHooks): string {
  const [from, to] = [input.join(" + "), output.join(" + ")];
  return from === to ? from : `${from} → ${to}`;
}

/** As much of each point's place as tells them apart; undefined where all are at one place. */
export function placeTexts(points: readonly SweepPoint[]): ((point: SweepPoint) => string) | undefined {
  if (new Set(points.map(placeOf)).size < 2) return undefined;
  const oneModel = new Set(points.map(({ modelName }) => modelName)).size === 1;
  return (point) => {
    const shown = oneModel ? { ...point, modelName: undefined } : point;
    return visibleText(placeOf(shown) || "unknown", 80);
  };
}

/** For a table: those at one place together, by ascending L0. */
export function sortedForTable(points: readonly SweepPoint[]): readonly SweepPoint[] {
  const order = [...new Set(points.map(placeOf))].sort();
  return points.toSorted((a, b) => order.indexOf(placeOf(a)) - order.indexOf(placeOf(b)) || a.l0 - b.l0);
}

/** The qualities that every point has. */
export function qualitiesOf(points: readonly SweepPoint[]): readonly Quality[] {
  return qualities.filter((quality) => points.every((point) => point[quality] !== undefined));
}

/**
 * The points that no other point dominates, by ascending L0. One point dominates another of the same model and hook
 * points if it is no worse in L0 and in the quality, and better in one of them; equal points do not dominate each other.
 * A point that reconstructs no better than the mean activation is not compared: however low its L0, it is not worth having.
 */
export function paretoFront(points: readonly SweepPoint[], quality: Quality): readonly SweepPoint[] {
  const places = [...new Set(points.map(placeOf))];
  const fronts = places.map((place) =>
    frontAtOnePlace(
      points.filter((point) => placeOf(point) === place && !isNoBetterThanMean(point)),
      quality,
    ),
  );
  return fronts.flat().sort((a, b) => a.l0 - b.l0);
}

function isNoBetterThanMean({ explainedVariance }: SweepPoint): boolean {
  return explainedVariance <= 0;
}

/** Ends the sentence that explains the marks, where there is a point that could not get one. */
export function unmarkedText(points: readonly SweepPoint[]): string {
  return points.some(isNoBetterThanMean)
    ? "; what reconstructs no better than the mean activation is never marked"
    : "";
}

function frontAtOnePlace(points: readonly SweepPoint[], quality: Quality): readonly SweepPoint[] {
  const qualityOf = (point: SweepPoint): number => point[quality] ?? Number.NEGATIVE_INFINITY;
  const front: SweepPoint[] = [];
  for (const point of points.toSorted((a, b) => a.l0 - b.l0 || qualityOf(b) - qualityOf(a))) {
    const last = front.at(-1);
    const equal = last !== undefined && last.l0 === point.l0 && qualityOf(last) === qualityOf(point);
    if (last === undefined || equal || qualityOf(point) > qualityOf(last)) front.push(point);
  }
  return front;
}
