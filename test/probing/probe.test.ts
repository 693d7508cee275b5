import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { controlLabels, crossValidate, probe } from "../../lib/probing/probe.js";
import { probeMetrics } from "../../lib/probing/probeMetrics.js";
import { rankByMeanDifference, sparseProbes } from "../../lib/probing/sparseProbe.js";
import { stratifiedFolds, stratifiedSplit } from "../../lib/probing/stratified.js";
import { denseFeatures, sparseFeatures } from "./featureMatrices.js";
import { golden } from "./golden.js";

const { labels } = golden;

test("metrics are scikit-learn's, with ties and scores of exactly 0", () => {
  const { scores, ...expected } = golden.metrics;
  const found = probeMetrics(Float64Array.from(scores), labels);
  for (const [name, value] of Object.entries(expected)) {
    expect(found[name as keyof typeof expected], name).toBeCloseTo(value, 12);
  }
});

const scored = fc.array(fc.tuple(fc.integer({ min: -3, max: 3 }), fc.constantFrom(0, 1)), {
  minLength: 2,
  maxLength: 30,
});

test("AUROC is the share of pairs of both classes in the right order, equal scores counting half", () => {
  fc.assert(
    fc.property(scored, (rows) => {
      const positives = rows.filter(([, label]) => label === 1);
      const negatives = rows.filter(([, label]) => label === 0);
      fc.pre(positives.length > 0 && negatives.length > 0);
      let pairs = 0;
      for (const [a] of positives) for (const [b] of negatives) pairs += a > b ? 1 : a === b ? 0.5 : 0;
      const { auroc } = probeMetrics(
        Float64Array.from(rows, ([score]) => score),
        rows.map(([, label]) => label),
      );
      expect(auroc).toBeCloseTo(pairs / (positives.length * negatives.length), 12);
    }),
  );
});

test("a probe that calls nothing positive has F1 and precision 0", () => {
  expect(probeMetrics(Float64Array.of(-1, -2), [1, 0])).toMatchObject({ f1: 0, precision: 0, recall: 0, auroc: 1 });
});

test.each(["logistic", "ridge"] as const)("%s: held-out losses are scikit-learn's on the same folds", async (kind) => {
  const folds = golden.folds.map(({ train, test }) => ({
    train: Uint32Array.from(train),
    test: Uint32Array.from(test),
  }));
  const { penalties } = golden;
  const found = await crossValidate(denseFeatures(golden.dense), labels, folds, { kind, penalties });
  found.forEach(({ penalty, loss }, index) => {
    expect(penalty).toBe(penalties[index]);
    expect(loss).toBeCloseTo(golden.crossValidation[kind][index]!, 6);
  });
});

const manyLabels = fc
  .array(fc.constantFrom(0, 1), { minLength: 4, maxLength: 60 })
  .filter((some) => some.filter((label) => label === 1).length >= 2 && some.filter((label) => label === 0).length >= 2);

test("splits and folds part the rows without loss or overlap, each class in proportion, the same for the same seed", async () => {
  await fc.assert(
    fc.asyncProperty(manyLabels, fc.double({ min: 0.05, max: 0.95, noNaN: true }), async (some, fraction) => {
      const rows = some.map((_, row) => row);
      const split = await stratifiedSplit(some, fraction, 7);
      expect([...split.train, ...split.test].sort((a, b) => a - b)).toEqual(rows);
      expect(await stratifiedSplit(some, fraction, 7)).toEqual(split);
      const folds = await stratifiedFolds(some, 2, 7);
      expect(folds.flatMap(({ test }) => [...test]).sort((a, b) => a - b)).toEqual(rows);
      for (const label of [0, 1]) {
        const all = some.filter((value) => value === label).length;
        const inTest = split.test.filter((row) => some[row] === label).length;
        expect(inTest).toBeGreaterThanOrEqual(1);
        expect(inTest).toBeLessThan(all);
        expect(Math.abs(inTest - fraction * all)).toBeLessThanOrEqual(1);
        for (const { train, test } of folds) {
          expect([...train, ...test].sort((a, b) => a - b)).toEqual(rows);
          expect(Math.abs(test.filter((row) => some[row] === label).length - all / 2)).toBeLessThanOrEqual(0.5);
        }
      }
    }),
  );
  const other = await stratifiedSplit(labels, 0.5, 8);
  expect(other).not.toEqual(await stratifiedSplit(labels, 0.5, 7));
});

/** Rows with noise, and the label in one column. */
function concept(rows: number, columns: number, column: number): { rows: number[][]; labels: number[] } {
  const random = noise(3);
  const labels = Array.from({ length: rows }, () => (random() < 0.4 ? 1 : 0));
  return {
    labels,
    rows: labels.map((label) =>
      Array.from({ length: columns }, (_, i) => (random() < 0.3 ? random() : 0) + (i === column && label ? 1.5 : 0)),
    ),
  };
}

function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe.each(["logistic", "ridge"] as const)("a %s probe", (kind) => {
  test("finds a concept on examples that it has not seen, and does not find permuted labels", async () => {
    const data = concept(300, 12, 5);
    const outcome = await probe(sparseFeatures(data.rows), data.labels, { kind });
    expect(outcome.test.accuracy).toBe(1);
    expect(outcome.test.auroc).toBe(1);
    expect(outcome.test.rows + outcome.train.rows).toBe(300);
    expect(outcome.crossValidation).toHaveLength(7);
    const least = Math.min(...outcome.crossValidation.map(({ loss }) => loss));
    expect(outcome.crossValidation.find(({ penalty }) => penalty === outcome.penalty)!.loss).toBe(least);
    expect(outcome.control!.accuracy).toBeLessThan(0.75);
    expect(outcome.control!.selectivity).toBeCloseTo(1 - outcome.control!.accuracy, 12);
    expect(await probe(sparseFeatures(data.rows), data.labels, { kind })).toEqual(outcome);
  });

  test("with k features takes the one that tells the classes apart first", async () => {
    const data = concept(200, 30, 17);
    const outcomes = await sparseProbes(sparseFeatures(data.rows), data.labels, [1, 2, 5], { kind });
    expect(outcomes.map(({ features }) => features.length)).toEqual([1, 2, 5]);
    for (const { features, test, probe: fitted } of outcomes) {
      expect(features[0]).toBe(17);
      expect(fitted.weights).toHaveLength(features.length);
      expect(test.accuracy).toBe(1);
    }
  });
});

test("a probe that memorises its types has no selectivity: features that say only which type it is", async () => {
  const types = Array.from({ length: 120 }, (_, row) => `word ${row % 6}`);
  const wordLabels = types.map((_, row) => Number(row % 6 < 3));
  const oneHot = types.map((_, row) => Array.from({ length: 6 }, (_, column) => Number(column === row % 6)));
  const outcome = await probe(denseFeatures(oneHot), wordLabels, { types });
  expect(outcome.test.accuracy).toBe(1);
  expect(outcome.control).toEqual({ accuracy: 1, selectivity: 0 });
});

test("control labels are the types' own, permuted: one label per type, as many of each", async () => {
  const types = ["a", "a", "a", "b", "b", "c", "d"];
  const some = [1, 1, 0, 0, 0, 1, 0]; // a and c are positive
  const seen = new Set<string>();
  for (let task = 0; task < 60; task++) {
    const control = await controlLabels(some, types, [0, task]);
    expect(control[0]).toBe(control[1]);
    expect(control[1]).toBe(control[2]);
    expect(control[3]).toBe(control[4]);
    expect(control[0]! + control[3]! + control[5]! + control[6]!).toBe(2);
    seen.add(control.join(""));
  }
  expect(seen.size).toBe(6);
  await expect(controlLabels(some, ["a"], [0])).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
});

test("mean differences are of both signs, and their ranking takes the lower number of equals", () => {
  const rows = [
    [1, 0, 5, 1],
    [1, 0, 5, 1],
    [0, 3, 5, 0],
  ];
  expect(rankByMeanDifference(sparseFeatures(rows), [1, 1, 0])).toEqual([1, 0, 3, 2]);
});

test("the test part teaches a probe nothing: other numbers there leave it as it is", async () => {
  const data = concept(100, 4, 1);
  const { test: held } = await stratifiedSplit(data.labels, 0.2, 0);
  const changed = data.rows.map((row, i) => (held.includes(i) ? row.map((value) => 1000 * value - 7) : row));
  const [a, b] = [
    await probe(denseFeatures(data.rows), data.labels),
    await probe(denseFeatures(changed), data.labels, { controlTasks: 0 }),
  ];
  expect(b.probe).toEqual(a.probe);
  expect(b.penalty).toBe(a.penalty);
  expect(b.control).toBeUndefined();
});

test("impossible splits, folds and ks are refused", async () => {
  const features = denseFeatures(golden.dense);
  const few = labels.map((_, row) => Number(row === 3));
  await expect(probe(features, few)).rejects.toThrow("the positive class has 1 of 60 rows, but at least 2 are needed");
  await expect(probe(features, labels, { testFraction: 1 })).rejects.toThrow("must lie between 0 and 1, found 1");
  await expect(probe(features, labels, { folds: 1 })).rejects.toThrow("folds must be an integer of at least 2");
  await expect(probe(features, labels, { penalties: [] })).rejects.toThrow("no penalties");
  await expect(sparseProbes(features, labels, [9])).rejects.toThrow("an integer from 1 to the 8 features, found 9");
});
