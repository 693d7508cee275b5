import { nearestGeometry, type SuperpositionMeasures, superpositionGeometries } from "./superpositionMeasures.js";
import type { SuperpositionModel } from "./superpositionModel.js";
import { superpositionModelPicture } from "./superpositionModelPicture.js";
import type { Picture } from "./superpositionPicture.js";
import {
  dimensionsPerFeaturePicture,
  featureDimensionalityPicture,
  type SparsitySeries,
} from "./superpositionSweepPicture.js";

/** Trained models of one shape, to be shown together. */
export interface SuperpositionReport {
  /** Short facts, such as ["steps", "10000"]. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly entries: readonly SuperpositionEntry[];
}

export interface SuperpositionEntry {
  /** How the features' importance falls, such as "0.9^i"; entries of the same importance form a series. */
  readonly importance: string;
  readonly model: SuperpositionModel;
  readonly measures: SuperpositionMeasures;
}

export const summaryColumns = ["S", "importance", "loss", "|W|²", "D*", "represented", "dimensionality"] as const;

/** One row of text for each model, as {@link summaryColumns} names its cells. */
export function summaryRows({ entries }: SuperpositionReport): readonly (readonly string[])[] {
  return entries.map(({ importance, model, measures }) => [
    String(model.sparsity),
    importance,
    model.loss.toPrecision(4),
    measures.squaredNorm.toFixed(2),
    measures.dimensionsPerFeature.toFixed(3),
    String(measures.represented),
    geometryText(measures.dimensionality),
  ]);
}

/** How many features have which of the known dimensionalities, such as "1/2 ×4, 0 ×1"; "other" is none of them. */
export function geometryText(dimensionality: Iterable<number>): string {
  const counts = new Map<string, number>();
  for (const value of dimensionality) {
    const fraction = nearestGeometry(value)?.fraction ?? "other";
    counts.set(fraction, (counts.get(fraction) ?? 0) + 1);
  }
  return [...superpositionGeometries.map(({ fraction }) => fraction), "other"]
    .filter((fraction) => counts.has(fraction))
    .map((fraction) => `${fraction} ×${counts.get(fraction)}`)
    .join(", ");
}

/** A picture of each model, on the same scale, in the order of the entries. */
export function modelPictures({ entries }: SuperpositionReport): readonly Picture[] {
  const largestNorm = Math.max(...entries.flatMap(({ measures }) => [...measures.norms]));
  const several = new Set(entries.map(({ importance }) => importance)).size > 1;
  return entries.map(({ importance, model, measures }, index) =>
    superpositionModelPicture(model, measures, {
      name: `model-${index}-sparsity-${model.sparsity}`,
      title: `S = ${model.sparsity}${several ? `, importance ${importance}` : ""}`,
      largestNorm,
    }),
  );
}

/** What changes with the sparsity; none when all entries have the same. */
export function sweepPictures({ entries }: SuperpositionReport): readonly Picture[] {
  if (new Set(entries.map(({ model }) => model.sparsity)).size < 2) return [];
  const importances = [...new Set(entries.map(({ importance }) => importance))];
  const series = importances.map(
    (label): SparsitySeries => ({
      label: `importance ${label}`,
      points: entries
        .filter(({ importance }) => importance === label)
        .map(({ model, measures }) => ({ sparsity: model.sparsity, measures })),
    }),
  );
  return [dimensionsPerFeaturePicture(series), featureDimensionalityPicture(series)];
}
