import fc from "fast-check";
import { expect, test } from "vitest";
import type { FeatureStatistics } from "../../lib/analysis/features.js";
import { type CollectorOptions, FeatureCollector } from "../../lib/features/featureCollector.js";
import { collectorOf, type DenseContext, dense, entriesOf } from "./denseContexts.js";

function collect(
  dSae: number,
  contexts: readonly DenseContext[],
  options: CollectorOptions = {},
  excluded: ReadonlySet<number> = new Set(),
): FeatureStatistics {
  return collectorOf(dSae, contexts, options, excluded).statistics();
}

test("counts, densities, maxima and means are those of a dense loop over all tokens", () => {
  fc.assert(
    fc.property(dense, ({ dSae, contexts }) => {
      const special = 3;
      const statistics = collect(dSae, contexts, {}, new Set([special]));
      const rows = contexts.flatMap(({ tokens, activations }) => activations.filter((_, i) => tokens[i] !== special));
      expect(statistics.tokens).toBe(rows.length);
      expect(statistics.contexts).toBe(contexts.length);
      let active = 0;
      for (let latent = 0; latent < dSae; latent++) {
        const firing = rows.map((row) => row[latent]!).filter((value) => value !== 0);
        active += firing.length;
        expect(statistics.firingCounts[latent]).toBe(firing.length);
        expect(statistics.maxActivations[latent]).toBe(Math.max(0, ...firing));
        expect(statistics.minActivations[latent]).toBe(Math.min(0, ...firing));
        expect(statistics.meanActivations[latent]).toBeCloseTo(
          firing.length === 0 ? 0 : firing.reduce((sum, value) => sum + value, 0) / firing.length,
          12,
        );
        const { firstEdge, binWidth, counts } = statistics.activationHistogram(latent);
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(firing.length);
        const negative = counts.slice(0, Math.round(-firstEdge / binWidth) || 0);
        expect(negative.reduce((sum, count) => sum + count, 0)).toBe(firing.filter((value) => value < 0).length);
      }
      expect(statistics.l0).toBeCloseTo(rows.length === 0 ? 0 : active / rows.length, 12);
      expect(statistics.deadLatents).toBe(Array.from(statistics.firingCounts).filter((count) => count === 0).length);
      expect(statistics.densityHistogram.counts.reduce((sum, count) => sum + count, 0)).toBe(
        dSae - statistics.deadLatents,
      );
    }),
  );
});

test.each([1, -1])(
  "the examples of sign %d are the strongest peaks of distinct contexts, with the whole window",
  (sign) => {
    fc.assert(
      fc.property(dense, fc.integer({ min: 1, max: 4 }), fc.nat(3), fc.nat(3), (input, limit, before, after) => {
        const { dSae, contexts } = input;
        const statistics = collect(dSae, contexts, {
          examplesPerLatent: limit,
          tokensBefore: before,
          tokensAfter: after,
        });
        for (let latent = 0; latent < dSae; latent++) {
          const examples = sign > 0 ? statistics.examples(latent) : statistics.negativeExamples(latent);
          for (const { activation, context, position, tokens, activations, peak } of examples) {
            const source = contexts[context]!;
            const values = source.activations.map((row) => row[latent]!);
            expect(sign * activation).toBe(Math.max(...values.map((value) => sign * value)));
            expect(position).toBe(values.indexOf(activation));
            const first = Math.max(0, position - before);
            const last = Math.min(source.tokens.length, position + after + 1);
            expect([...tokens]).toEqual(source.tokens.slice(first, last));
            expect([...activations]).toEqual(values.slice(first, last));
            expect(activations[peak]).toBe(activation);
          }
          expect(new Set(examples.map(({ context }) => context)).size).toBe(examples.length);
          expect(new Set(examples.map(({ tokens }) => tokens.join())).size).toBe(examples.length);
          const strengths = examples.map(({ activation }) => sign * activation);
          expect(strengths).toEqual([...strengths].sort((a, b) => b - a));
          // The strongest of all is there, and room that is left means that there are no more.
          const peaks = contexts.map(({ activations }) =>
            Math.max(0, ...activations.map((row) => sign * row[latent]!)),
          );
          expect(strengths[0] ?? 0).toBe(Math.max(...peaks));
          expect(examples.length).toBeLessThanOrEqual(limit);
          const extremes = sign > 0 ? statistics.maxActivations : statistics.minActivations;
          expect(extremes[latent]).toBe(examples[0]?.activation ?? 0);
        }
      }),
    );
  },
);

test("of equally strong examples the earlier contexts are kept, and of equal texts only one", () => {
  const context = (token: number, value: number): DenseContext => ({ tokens: [token], activations: [[value]] });
  const statistics = collect(1, [context(1, 2), context(2, 2), context(1, 3), context(3, 2)], { examplesPerLatent: 2 });
  expect(statistics.examples(0).map(({ context, activation }) => [context, activation])).toEqual([
    [2, 3],
    [1, 2],
  ]);
});

test("an activation that is not a number is refused, with latent and position", () => {
  expect(() =>
    collect(2, [
      {
        tokens: [5, 6],
        activations: [
          [1, 0],
          [0, Number.NaN],
        ],
      },
    ]),
  ).toThrow(/latent 1 has activation NaN in context 0 at position 1/);
});

test("a latent that does not exist, impossible windows and too few rows of codes are refused", () => {
  const statistics = collect(2, [{ tokens: [1], activations: [[1, 0]] }]);
  for (const latent of [-1, 2, 0.5]) {
    expect(() => statistics.examples(latent)).toThrow(/there is no latent .*: they are numbered 0 to 1$/);
    expect(() => statistics.negativeExamples(latent)).toThrow(/there is no latent/);
    expect(() => statistics.activationHistogram(latent)).toThrow(/there is no latent/);
  }
  expect(() => new FeatureCollector(0)).toThrow(/dSae/);
  expect(() => new FeatureCollector(1, { tokensBefore: -1 })).toThrow(/tokensBefore/);
  expect(() =>
    new FeatureCollector(1).addContext(
      { tokens: Int32Array.of(1, 2), positions: Int32Array.of(0, 1) },
      entriesOf([[1]]),
      0,
    ),
  ).toThrow(/2 positions from row 0 on, but there are only 1 rows/);
});

test("the density histogram has its edges at powers of ten and puts each latent where its density is", () => {
  // 100 tokens; latent 0 fires on all of them, latent 1 on ten, latent 2 on one, latent 3 never.
  const contexts = Array.from({ length: 100 }, (_, index) => ({
    tokens: [index],
    activations: [[1, index % 10 === 0 ? 1 : 0, index === 0 ? 1 : 0, 0]],
  }));
  const { densityHistogram } = collect(4, contexts);
  const binOf = (density: number): number =>
    Math.ceil((Math.log10(density) - densityHistogram.firstEdge) / densityHistogram.binWidth) - 1;
  expect(Number.isInteger(densityHistogram.firstEdge)).toBe(true);
  expect(densityHistogram.firstEdge + densityHistogram.counts.length * densityHistogram.binWidth).toBe(0);
  for (const density of [1, 0.1, 0.01]) expect(densityHistogram.counts[binOf(density)]).toBe(1);
});
