import fc from "fast-check";
import { expect, test } from "vitest";
import { ActivationHistograms, type Histogram } from "../../lib/analysis/activationHistogram.js";

/** The middle one of three, between two that hold other values. */
function histogramOf(values: readonly number[]): Histogram {
  const histograms = new ActivationHistograms(3);
  for (const value of values) {
    histograms.add(0, 3 * value);
    histograms.add(1, value);
    histograms.add(2, -value);
  }
  return histograms.snapshot(1);
}

const positive = fc.float({ min: 2 ** -126, max: 2 ** 127, noNaN: true, minExcluded: true });

test("counts every value in the bin whose edges enclose it", () => {
  fc.assert(
    fc.property(fc.array(positive, { minLength: 1, maxLength: 60 }), (values) => {
      const { firstEdge, binWidth, counts } = histogramOf(values);
      expect(firstEdge).toBe(0);
      expect(counts).toEqual(
        counts.map(
          (_, bin) => values.filter((value) => value > bin * binWidth && value <= (bin + 1) * binWidth).length,
        ),
      );
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(values.length);
    }),
  );
});

test("does not depend on the order of the values", () => {
  fc.assert(
    fc.property(fc.array(positive, { minLength: 1, maxLength: 30 }), (values) => {
      expect(histogramOf([...values].reverse()).counts).toEqual(histogramOf([...values].sort((a, b) => a - b)).counts);
    }),
  );
});

test("uses more than half of its 32 bins, the last of them for the largest value", () => {
  const { counts } = histogramOf([0.001, 5, 77]);
  expect(counts.length).toBeGreaterThan(16);
  expect(counts.at(-1)).toBe(1);
});

test("negative values have bins of the same width on the other side of 0, which mirror those of their magnitudes", () => {
  fc.assert(
    fc.property(fc.array(positive, { minLength: 1, maxLength: 30 }), (values) => {
      const mirrored = histogramOf(values.map((value) => -value));
      const { binWidth, counts } = histogramOf(values);
      expect(mirrored).toEqual({ firstEdge: -counts.length * binWidth, binWidth, counts: counts.toReversed() });
    }),
  );
  expect(histogramOf([-1, 2, -8])).toEqual({
    firstEdge: -8,
    binWidth: 0.25,
    counts: Array.from({ length: 40 }, (_, bin) => (bin === 0 || bin === 28 || bin === 39 ? 1 : 0)),
  });
});

test("is empty without values", () => {
  expect(histogramOf([])).toEqual({ firstEdge: 0, binWidth: 0, counts: [] });
});

test("says how often the range of earlier values was doubled", () => {
  const histograms = new ActivationHistograms(1);
  expect([3, 4, 5, 64, 2].map((value) => histograms.add(0, value))).toEqual([0, 0, 1, 3, 0]);
});
