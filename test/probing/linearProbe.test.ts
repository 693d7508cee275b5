import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DenseFeatures, SparseFeatures } from "../../lib/probing/featureMatrix.js";
import {
  fitLogisticProbe,
  fitRidgeProbe,
  type LinearProbe,
  probeScores,
  signedLabels,
} from "../../lib/probing/linearProbe.js";
import { denseFeatures, sparseFeatures } from "./featureMatrices.js";
import { golden } from "./golden.js";

const storages = [
  ["dense", denseFeatures(golden.dense), golden.fits.dense],
  ["sparse", sparseFeatures(golden.sparse), golden.fits.sparse],
  ["sparse, stored dense", denseFeatures(golden.sparse), golden.fits.sparse],
] as const;

describe.each(storages)("features that are %s", (_name, features, fits) => {
  test.each(fits)("scikit-learn's $kind probe, penalty $penalty, standardised $standardise", async (expected) => {
    const { kind, penalty, standardise } = expected;
    const found =
      kind === "logistic"
        ? await fitLogisticProbe(features, golden.labels, { penalty, standardise })
        : await fitRidgeProbe(features, signedLabels(golden.labels), { penalty, standardise });
    expect(relativeDistance(found, expected)).toBeLessThan(1e-6);
  });

  test("means and deviations are StandardScaler's", () => {
    const { mean, standardDeviation } = features.moments();
    const expected = golden.moments[features === storages[0][1] ? "dense" : "sparse"];
    mean.forEach((value, column) => {
      expect(value).toBeCloseTo(expected.mean[column]!, 12);
    });
    standardDeviation.forEach((value, column) => {
      expect(value).toBeCloseTo(expected.standardDeviation[column]!, 12);
    });
  });
});

/** Of the scores on unit vectors and on 0, that is, of weights and bias. */
function relativeDistance(found: LinearProbe, expected: { weights: readonly number[]; bias: number }): number {
  const a = [...found.weights, found.bias];
  const b = [...expected.weights, expected.bias];
  expect(a).toHaveLength(b.length);
  return Math.hypot(...a.map((value, i) => value - b[i]!)) / Math.hypot(...b);
}

const matrices = fc
  .integer({ min: 1, max: 6 })
  .chain((columns) =>
    fc.array(
      fc.array(fc.oneof(fc.constant(0), fc.integer({ min: -9, max: 9 })), { minLength: columns, maxLength: columns }),
      { minLength: 1, maxLength: 8 },
    ),
  );

test("products and selections of sparse features are those of the same features stored dense", () => {
  fc.assert(
    fc.property(matrices, fc.infiniteStream(fc.integer({ min: -5, max: 5 })), (rows, numbers) => {
      const [a, b] = [denseFeatures(rows), sparseFeatures(rows)];
      const vector = (length: number): Float64Array => Float64Array.from({ length }, () => numbers.next().value!);
      const [v, u] = [vector(a.columns), vector(a.rows)];
      const rowNumbers = Array.from(a.times(v).keys()).filter((row) => u[row]! > 0);
      const columnNumbers = Array.from(v.keys())
        .filter((column) => v[column]! > 0)
        .reverse();
      expect(b.times(v)).toEqual(a.times(v));
      expect(b.transposedTimes(u)).toEqual(a.transposedTimes(u));
      expect(b.weightedSquares(u)).toEqual(a.weightedSquares(u));
      const [selectedA, selectedB] = [a, b].map((features) =>
        features.selectRows(rowNumbers).selectColumns(columnNumbers),
      );
      const ones = new Float64Array(columnNumbers.length).fill(1);
      expect(selectedB!.times(ones)).toEqual(selectedA!.times(ones));
      expect(Array.from(selectedA!.times(ones))).toEqual(
        rowNumbers.map((row) => columnNumbers.reduce((sum, column) => sum + rows[row]![column]!, 0)),
      );
    }),
  );
});

test("with more features than examples, and two that are the same, the penalty still makes the probe unique", async () => {
  const rows = golden.dense.slice(0, 6).map((row) => [...row, row[0]!, ...row.map((value) => value ** 2)]);
  const labels = [0, 1, 0, 1, 1, 0];
  for (const probe of [
    await fitLogisticProbe(denseFeatures(rows), labels, { penalty: 0.1 }),
    await fitRidgeProbe(denseFeatures(rows), signedLabels(labels), { penalty: 0.1 }),
  ]) {
    expect(probe.weights[8]).toBeCloseTo(probe.weights[0]!, 8);
    expect(probe.weights[3]).toBe(0); // a constant
    const scores = probeScores(probe, denseFeatures(rows));
    expect(Array.from(scores, (score) => Number(score > 0))).toEqual(labels);
  }
});

test("separable classes and a tiny penalty still converge: the gradient vanishes at the result", async () => {
  const rows = [[-2], [-1], [1], [2]];
  const { weights, bias } = await fitLogisticProbe(denseFeatures(rows), [0, 0, 1, 1], {
    penalty: 1e-6,
    standardise: false,
  });
  const gradient = rows.reduce((sum, [x], row) => {
    const p = 1 / (1 + Math.exp(-(weights[0]! * x! + bias)));
    return sum + (p - [0, 0, 1, 1][row]!) * x!;
  }, 1e-6 * weights[0]!);
  expect(Math.abs(gradient)).toBeLessThan(1e-9);
  expect(bias).toBeCloseTo(0, 6);
});

test("columns whose mean is many times their deviation are fitted as any other", async () => {
  const rows = golden.dense.map((row, i) => [...row, Math.fround(3.7) + (i % 3) * 2 ** -22, 1e6 + (i % 5)]);
  const near = golden.dense.map((row, i) => [...row, i % 3, i % 5]);
  const options = { penalty: 1 };
  const far = await fitLogisticProbe(denseFeatures(rows), golden.labels, options);
  const expected = await fitLogisticProbe(denseFeatures(near), golden.labels, options);
  const [scores, of] = [probeScores(far, denseFeatures(rows)), probeScores(expected, denseFeatures(near))];
  scores.forEach((score, row) => {
    expect(score).toBeCloseTo(of[row]!, 5);
  });
});

test("where the search begins does not change the probe", async () => {
  for (const [, features] of storages) {
    for (const standardise of [true, false]) {
      const options = { penalty: 1, standardise };
      const cold = await fitLogisticProbe(features, golden.labels, options);
      const start = await fitLogisticProbe(features, golden.labels, { penalty: 50, standardise });
      const warm = await fitLogisticProbe(features, golden.labels, { ...options, start });
      expect(relativeDistance(warm, { weights: Array.from(cold.weights), bias: cold.bias })).toBeLessThan(1e-8);
      const there = await fitLogisticProbe(features, golden.labels, { ...options, start: cold });
      expect(relativeDistance(there, { weights: Array.from(cold.weights), bias: cold.bias })).toBeLessThan(1e-10);
    }
  }
});

test("what no probe can be fitted to is refused, and named", async () => {
  const features = denseFeatures(golden.dense);
  const tryFit = (labels: ArrayLike<number>, penalty = 1): Promise<LinearProbe> =>
    fitLogisticProbe(features, labels, { penalty });
  await expect(tryFit(golden.labels.map(() => 1))).rejects.toThrow("all 60 labels are 1");
  await expect(tryFit(golden.labels.slice(1))).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
  await expect(tryFit(golden.labels.map((label) => 2 * label - 1))).rejects.toThrow(
    "labels are 0 and 1, found the number -1 in row",
  );
  await expect(tryFit(golden.labels, 0)).rejects.toThrow("must be a number above 0, found 0");
  await expect(
    fitLogisticProbe(features, golden.labels, { penalty: 1, signal: AbortSignal.abort() }),
  ).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(() => new DenseFeatures(Float32Array.of(1, 2, Number.NaN, 4), 2, 2)).toThrow("row 1 has NaN in column 0");
  expect(() => new DenseFeatures(new Float32Array(5), 2, 2)).toThrow("expected 2 rows of 2 numbers, found 5 numbers");
  const sparse = (values: number[], indices: number[], columns = 3) =>
    new SparseFeatures({ rowOffsets: [0, 2], indices, values }, columns);
  expect(() => sparse([1, Number.POSITIVE_INFINITY], [0, 2])).toThrow("row 0 has Infinity in column 2");
  expect(() => sparse([1, 2], [0, 3])).toThrow("row 0 has an entry in column 3");
  expect(() => sparse([1], [0])).toThrow("the row offsets end at 2");
  expect(() => probeScores({ weights: new Float64Array(2), bias: 0 }, features)).toThrow("fitted to 2 features");
});
