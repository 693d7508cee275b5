/**
 * What is stored of each latent, as tables: of each table a latent has some rows, those of latent i from `offsets[i]` to
 * `offsets[i + 1]`, and each column of a table is one tensor. So a latent is read by a few short reads of each column.
 */

import type { FeatureExample } from "../analysis/features.js";
import type { TokenEffect } from "../analysis/logitEffects.js";
import type { SafetensorsDType } from "../formats/safetensors.js";
import { BEGINNING } from "./documentMeans.js";
import type { ActivationQuantile, LatentRecord } from "./latentRecord.js";

/** What a column holds: its dtype, and what its numbers may be. */
export type ColumnKind = "activation" | "real" | "count" | "token" | "latent";

export interface Column {
  readonly kind: ColumnKind;
  /** Numbers per row; 0: one, and the tensor has one dimension. */
  readonly width: number;
}

export type ColumnArray = Float32Array | Float64Array | Uint32Array | Int32Array;

const storedAs = {
  activation: { dtype: "F32", array: Float32Array },
  real: { dtype: "F64", array: Float64Array },
  count: { dtype: "U32", array: Uint32Array },
  token: { dtype: "I32", array: Int32Array },
  latent: { dtype: "U32", array: Uint32Array },
} as const;

export function dtypeOf(kind: ColumnKind): SafetensorsDType {
  return storedAs[kind].dtype;
}

export function columnArray({ kind, width }: Column, rows: number): ColumnArray {
  return new storedAs[kind].array(rows * Math.max(1, width));
}

const activation: Column = { kind: "activation", width: 0 };
const real: Column = { kind: "real", width: 0 };
const count: Column = { kind: "count", width: 0 };
const token: Column = { kind: "token", width: 0 };
const latent: Column = { kind: "latent", width: 0 };

export type TableName =
  | "histogram"
  | "examples"
  | "negativeExamples"
  | "quantiles"
  | "samples"
  | "tokens"
  | "documents"
  | "coActive"
  | "neighbours"
  | "raised"
  | "lowered"
  | "logitHistogram";

export type RowCounts = Readonly<Record<TableName, number>>;

export type LatentColumn =
  | "firingCount"
  | "maxActivation"
  | "minActivation"
  | "meanActivation"
  | "histogramFirstEdge"
  | "histogramBinWidth"
  | "firstPosition"
  | "lastPosition"
  | "atStart"
  | "atEnd"
  | "logitFirstEdge"
  | "logitBinWidth";

/** One row per latent, without offsets. */
export const latentColumns: Readonly<Record<LatentColumn, Column>> = {
  firingCount: real,
  maxActivation: activation,
  minActivation: activation,
  meanActivation: real,
  histogramFirstEdge: real,
  histogramBinWidth: real,
  firstPosition: count,
  lastPosition: count,
  atStart: count,
  atEnd: count,
  logitFirstEdge: real,
  logitBinWidth: real,
};

/** @param window - tokens in the window of an example */
export function storeTables(window: number): Readonly<Record<TableName, Readonly<Record<string, Column>>>> {
  const example: Record<string, Column> = {
    activation,
    context: count,
    position: count,
    peak: count,
    length: count,
    tokens: { kind: "token", width: window },
    activations: { kind: "activation", width: window },
  };
  return {
    histogram: { count },
    examples: example,
    negativeExamples: example,
    quantiles: { low: real, high: real, share: real, examples: count },
    samples: example,
    tokens: { token, count, meanActivation: real },
    documents: { document: count, meanActivation: real, length: count, tokens: { kind: "token", width: BEGINNING } },
    coActive: { latent, overlap: real },
    neighbours: { latent, cosine: real },
    raised: { token, effect: real },
    lowered: { token, effect: real },
    logitHistogram: { count },
  };
}

export const tableNames: readonly TableName[] = Object.keys(storeTables(1)) as TableName[];

export type Row = Readonly<Record<string, number | ArrayLike<number>>>;

export interface StoredLatent {
  readonly columns: Readonly<Record<LatentColumn, number>>;
  readonly tables: Readonly<Record<TableName, readonly Row[]>>;
}

export function toRows(record: LatentRecord): StoredLatent {
  const { logits } = record;
  return {
    columns: {
      firingCount: record.firingCount,
      maxActivation: record.maxActivation,
      minActivation: record.minActivation,
      meanActivation: record.meanActivation,
      histogramFirstEdge: record.histogram.firstEdge,
      histogramBinWidth: record.histogram.binWidth,
      firstPosition: record.positions.first,
      lastPosition: record.positions.last,
      atStart: record.positions.atStart,
      atEnd: record.positions.atEnd,
      logitFirstEdge: logits?.histogram.firstEdge ?? 0,
      logitBinWidth: logits?.histogram.binWidth ?? 0,
    },
    tables: {
      histogram: record.histogram.counts.map((count) => ({ count })),
      examples: record.examples.map(exampleRow),
      negativeExamples: record.negativeExamples.map(exampleRow),
      quantiles: record.quantiles.map(({ low, high, share, examples }) => ({
        low,
        high,
        share,
        examples: examples.length,
      })),
      samples: record.quantiles.flatMap(({ examples }) => examples.map(exampleRow)),
      tokens: record.tokens.map((row) => ({ ...row })),
      documents: record.documents.map((row) => ({ ...row, length: row.tokens.length })),
      coActive: record.coActive.map((row) => ({ ...row })),
      neighbours: record.neighbours.map((row) => ({ ...row })),
      raised: logits?.raised.map((row) => ({ ...row })) ?? [],
      lowered: logits?.lowered.map((row) => ({ ...row })) ?? [],
      logitHistogram: logits?.histogram.counts.map((count) => ({ count })) ?? [],
    },
  };
}

/**
 * The inverse of `toRows`.
 *
 * @param corpusTokens - counted, of the whole corpus
 */
export function fromRows(
  latent: number,
  { columns, tables }: StoredLatent,
  corpusTokens: number,
  hasLogits: boolean,
): LatentRecord {
  const numbers = (rows: readonly Row[]): number[] => rows.map(({ count }) => count as number);
  const samples = tables.samples.map(toExample);
  let sample = 0;
  return {
    latent,
    firingCount: columns.firingCount,
    density: columns.firingCount / corpusTokens,
    maxActivation: columns.maxActivation,
    minActivation: columns.minActivation,
    meanActivation: columns.meanActivation,
    histogram: {
      firstEdge: columns.histogramFirstEdge,
      binWidth: columns.histogramBinWidth,
      counts: numbers(tables.histogram),
    },
    positions: {
      first: columns.firstPosition,
      last: columns.lastPosition,
      atStart: columns.atStart,
      atEnd: columns.atEnd,
    },
    examples: tables.examples.map(toExample),
    negativeExamples: tables.negativeExamples.map(toExample),
    quantiles: tables.quantiles.map((row) => {
      const { low, high, share, examples } = row as unknown as Omit<ActivationQuantile, "examples"> & {
        examples: number;
      };
      sample += examples;
      return { low, high, share, examples: samples.slice(sample - examples, sample) };
    }),
    tokens: tables.tokens as unknown as LatentRecord["tokens"],
    documents: tables.documents.map(({ document, meanActivation, length, tokens }) => ({
      document: document as number,
      meanActivation: meanActivation as number,
      tokens: (tokens as Int32Array).slice(0, length as number),
    })),
    coActive: tables.coActive as unknown as LatentRecord["coActive"],
    neighbours: tables.neighbours as unknown as LatentRecord["neighbours"],
    logits: hasLogits
      ? {
          raised: tables.raised as unknown as TokenEffect[],
          lowered: tables.lowered as unknown as TokenEffect[],
          histogram: {
            firstEdge: columns.logitFirstEdge,
            binWidth: columns.logitBinWidth,
            counts: numbers(tables.logitHistogram),
          },
        }
      : undefined,
  };
}

function exampleRow(example: FeatureExample): Row {
  return { ...example, length: example.tokens.length };
}

export function toExample(row: Row): FeatureExample {
  const length = row.length as number;
  return {
    activation: row.activation as number,
    context: row.context as number,
    position: row.position as number,
    tokens: (row.tokens as Int32Array).slice(0, length),
    activations: (row.activations as Float32Array).slice(0, length),
    peak: row.peak as number,
  };
}
