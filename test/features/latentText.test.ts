import fc from "fast-check";
import { expect, test } from "vitest";
import { FeatureCollector } from "../../lib/features/featureCollector.js";
import { addDense, collectorOf, type DenseContext, dense, entriesOf } from "./denseContexts.js";

interface Firing {
  readonly context: number;
  readonly position: number;
  readonly token: number;
  readonly value: number;
}

function firingsOf(contexts: readonly DenseContext[], latent: number): Firing[] {
  return contexts.flatMap(({ tokens, activations }, context) =>
    tokens.flatMap((token, position) => {
      const value = activations[position]![latent]!;
      return value === 0 ? [] : [{ context, position, token, value }];
    }),
  );
}

test("positions, tokens and documents are those of a dense loop over all tokens", () => {
  fc.assert(
    fc.property(dense, ({ dSae, contexts }) => {
      const collector = collectorOf(dSae, contexts);
      for (let latent = 0; latent < dSae; latent++) {
        const firings = firingsOf(contexts, latent);
        const found = collector.latent(latent);
        const places = firings.map(({ position }) => position);
        expect(found.positions).toEqual({
          first: firings.length === 0 ? 0 : Math.min(...places),
          last: firings.length === 0 ? 0 : Math.max(...places),
          atStart: firings.filter(({ position }) => position === 0).length,
          atEnd: firings.filter(({ context, position }) => position === contexts[context]!.tokens.length - 1).length,
        });
        const tokens = [0, 1, 2, 3]
          .map((token) => ({ token, values: firings.filter((firing) => firing.token === token) }))
          .filter(({ values }) => values.length > 0)
          .map(({ token, values }) => ({
            token,
            count: values.length,
            meanActivation: values.reduce((sum, { value }) => sum + value, 0) / values.length,
          }))
          .sort((a, b) => b.count - a.count || a.token - b.token);
        expect(found.tokens).toEqual(tokens);
        const documents = contexts
          .map(({ tokens: { length } }, document) => ({
            document,
            meanActivation:
              firings.filter(({ context }) => context === document).reduce((sum, { value }) => sum + value, 0) / length,
            tokens: Int32Array.from(contexts[document]!.tokens),
          }))
          .filter(({ meanActivation }) => meanActivation > 0)
          .sort((a, b) => b.meanActivation - a.meanActivation || a.document - b.document);
        expect(found.documents).toEqual(documents.slice(0, 5));
      }
    }),
  );
});

test("documents go on from context to context, and several may lie in one", () => {
  const collector = new FeatureCollector(1);
  const context = (tokens: number[], values: number[]): DenseContext => ({
    tokens,
    activations: values.map((v) => [v]),
  });
  addDense(collector, context([1, 2, 3], [0, 2, 4]), new Set(), Uint32Array.of(0, 0, 2));
  addDense(collector, context([9, 4, 5], [7, 0, 3]), new Set([9]), Uint32Array.of(2, 2, 5));
  collector.end();
  expect(collector.latent(0).documents).toEqual([
    { document: 5, meanActivation: 3, tokens: Int32Array.of(5) },
    { document: 2, meanActivation: 2, tokens: Int32Array.of(3, 4) },
    { document: 0, meanActivation: 1, tokens: Int32Array.of(1, 2) },
  ]);
});

test.each([1, -1])(
  "slices of sign %d share all firings out, and their samples are firings that lie in them",
  (sign) => {
    fc.assert(
      fc.property(dense, fc.nat(1000), ({ dSae, contexts }, seed) => {
        const collector = collectorOf(dSae, contexts, { seed, tokensBefore: 2, tokensAfter: 1 });
        for (let latent = 0; latent < dSae; latent++) {
          const firings = firingsOf(contexts, latent);
          const ofSign = firings.filter(({ value }) => sign * value > 0);
          const quantiles = collector.latent(latent).quantiles.filter(({ low, high }) => sign * (low + high) > 0);
          expect(quantiles).toEqual(quantiles.toSorted((a, b) => b.high - a.high));
          let shared = 0;
          for (const { low, high, share, examples } of quantiles) {
            const [near, far] = sign > 0 ? [low, high] : [-high, -low];
            const inSlice = ofSign.filter(({ value }) => sign * value > near && sign * value <= far);
            expect(share).toBeCloseTo(inSlice.length / firings.length, 12);
            shared += inSlice.length;
            const texts = new Set(
              inSlice.map(({ context, position }) =>
                contexts[context]!.tokens.slice(Math.max(0, position - 2), position + 2).join(),
              ),
            );
            expect(examples.length).toBe(Math.min(2, texts.size));
            expect(new Set(examples.map(({ tokens }) => tokens.join())).size).toBe(examples.length);
            for (const { context, position, activation, tokens, activations, peak } of examples) {
              expect(inSlice).toContainEqual({ context, position, token: tokens[peak], value: activation });
              const first = Math.max(0, position - 2);
              expect([...tokens]).toEqual(contexts[context]!.tokens.slice(first, position + 2));
              expect([...activations]).toEqual(
                contexts[context]!.activations.slice(first, position + 2).map((row) => row[latent]),
              );
            }
          }
          expect(shared).toBe(ofSign.length);
        }
      }),
    );
  },
);

test("samples do not depend on when the largest activation comes", () => {
  // Of 200 contexts of one token each, the largest activation comes last or first: the places keep their numbers.
  const values = Array.from({ length: 200 }, (_, index) => 1 + ((index * 37) % 100) / 100);
  const sample = (largestFirst: boolean): unknown => {
    const collector = new FeatureCollector(1, { seed: 7 });
    const all = largestFirst ? [16, ...values, 0] : [0, ...values, 16];
    for (const [index, value] of all.entries()) addDense(collector, { tokens: [index], activations: [[value]] });
    collector.end();
    return collector.latent(0).quantiles.filter(({ high }) => high < 16);
  };
  expect(sample(true)).toEqual(sample(false));
  expect(sample(true)).toHaveLength(1);
});

test("every firing of a slice is as likely to be in the sample as any other", () => {
  const chosen = new Float64Array(20);
  for (let seed = 0; seed < 1000; seed++) {
    const contexts = Array.from({ length: 20 }, (_, token) => ({ tokens: [token], activations: [[1]] }));
    for (const { context } of collectorOf(1, contexts, { seed }).latent(0).quantiles[0]!.examples)
      chosen[context]! += 1;
  }
  // Each is one of two of 20: 100 times of 1000, with a standard deviation of 9.5.
  for (const count of chosen) expect(Math.abs(count - 100)).toBeLessThan(5 * 9.5);
});

test("of more tokens than are watched, the frequent ones are found and never counted too often", () => {
  // A sixth of the firings is on token 1, a twelfth on token 2; the others are 500 tokens in turn.
  const tokens = Array.from({ length: 12_000 }, (_, i) => (i % 6 === 0 ? 1 : i % 12 === 5 ? 2 : 10 + ((i * 7) % 500)));
  const collector = new FeatureCollector(1);
  for (let i = 0; i < tokens.length; i += 100) {
    const part = tokens.slice(i, i + 100);
    addDense(collector, { tokens: part, activations: part.map((token) => [token === 1 ? 2 : 1]) });
  }
  const [first, second] = collector.latent(0).tokens;
  for (const [found, token, count] of [
    [first!, 1, 2000],
    [second!, 2, 1000],
  ] as const) {
    expect(found.token).toBe(token);
    expect(found.count).toBeLessThanOrEqual(count);
    expect(found.count).toBeGreaterThanOrEqual(count - 12_000 / 32);
    expect(found.meanActivation).toBe(token === 1 ? 2 : 1);
  }
});

function overlaps(firings: readonly ReadonlySet<number>[], tokens: number): Map<string, number> {
  const collector = new FeatureCollector(firings.length);
  for (let first = 0; first < tokens; first += 500) {
    const rows = Array.from({ length: Math.min(500, tokens - first) }, (_, i) =>
      firings.map((of) => (of.has(first + i) ? 1 : 0)),
    );
    const positions = Int32Array.from(rows.keys());
    collector.addContext({ tokens: positions, positions }, entriesOf(rows), 0);
  }
  const coActive = collector.coActive();
  return new Map(
    firings.flatMap((_, latent) => coActive(latent).map((other) => [`${latent} ${other.latent}`, other.overlap])),
  );
}

function jaccard(a: ReadonlySet<number>, b: ReadonlySet<number>): number {
  const both = [...a].filter((token) => b.has(token)).length;
  return both / (a.size + b.size - both);
}

test("overlaps of latents that fire on at most 128 tokens are exact", () => {
  const set = fc.uniqueArray(fc.nat(299), { maxLength: 128 }).map((tokens) => new Set(tokens));
  fc.assert(
    fc.property(fc.array(set, { minLength: 2, maxLength: 8 }), (firings) => {
      const found = overlaps(firings, 300);
      for (const [a, one] of firings.entries()) {
        for (const [b, other] of firings.entries()) {
          const expected = a === b || one.size + other.size === 0 ? 0 : jaccard(one, other);
          expect(found.get(`${a} ${b}`) ?? 0).toBe(expected);
        }
      }
    }),
    { numRuns: 30 },
  );
});

test("overlaps of latents that fire often are estimated within the stated error", () => {
  // Latent i fires on every token whose number modulo 10 is below i: the overlap of i and j is i / j.
  const tokens = 5000;
  const numbers = Array.from({ length: tokens }, (_, token) => token);
  const firings = Array.from({ length: 10 }, (_, i) => new Set(numbers.filter((token) => (token * 7) % 10 <= i)));
  const found = overlaps(firings, tokens);
  let squares = 0;
  let pairs = 0;
  for (let a = 0; a < 10; a++) {
    for (let b = 0; b < 10; b++) {
      if (a === b) continue;
      const exact = jaccard(firings[a]!, firings[b]!);
      const error = found.get(`${a} ${b}`)! - exact;
      expect(Math.abs(error)).toBeLessThan(4 * Math.sqrt((exact * (1 - exact)) / 128) + 1e-9);
      squares += error ** 2;
      pairs += 1;
    }
  }
  expect(Math.sqrt(squares / pairs)).toBeLessThan(0.044);
});

test("the order of contexts changes nothing but their numbers", () => {
  fc.assert(
    fc.property(dense, ({ dSae, contexts }) => {
      const [one, other] = [contexts, contexts.toReversed()].map((order) => collectorOf(dSae, order));
      const [coActive, reversed] = [one!.coActive(), other!.coActive()];
      for (let latent = 0; latent < dSae; latent++) {
        const [first, second] = [one!.latent(latent), other!.latent(latent)];
        for (const key of [
          "firingCount",
          "maxActivation",
          "minActivation",
          "histogram",
          "positions",
          "tokens",
        ] as const) {
          expect(second[key]).toEqual(first[key]); // sums of quarters are exact in any order
        }
        const strengths = ({ examples }: typeof first): number[] => examples.map(({ activation }) => activation);
        // Fewer contexts than examples are kept: none is left out.
        expect(strengths(second)).toEqual(strengths(first));
        expect(second.documents.map(({ meanActivation }) => meanActivation)).toEqual(
          first.documents.map(({ meanActivation }) => meanActivation),
        );
        const slices = ({ quantiles }: typeof first): unknown => quantiles.map(({ low, share }) => [low, share]);
        expect(slices(second)).toEqual(slices(first));
        expect(reversed(latent)).toEqual(coActive(latent));
      }
    }),
  );
});

test("a collector that is given the state of another goes on as that would have", () => {
  fc.assert(
    fc.property(dense, fc.nat(8), ({ dSae, contexts }, cut) => {
      const whole = collectorOf(dSae, contexts);
      const before = new FeatureCollector(dSae);
      for (const context of contexts.slice(0, cut)) addDense(before, context);
      const after = new FeatureCollector(dSae);
      if (Object.keys(before.state).some((name) => name.startsWith("smallest."))) after.expectNegative();
      for (const [name, array] of Object.entries(after.state)) array.set(before.state[name] as never);
      for (const context of contexts.slice(cut)) addDense(after, context);
      after.end();
      expect(after.state).toEqual(whole.state);
      for (let latent = 0; latent < dSae; latent++) expect(after.latent(latent)).toEqual(whole.latent(latent));
    }),
  );
});

test("the memory that a collector says it takes at most is that of its arrays", () => {
  const collector = new FeatureCollector(1000);
  addDense(collector, { tokens: [1], activations: [Array.from({ length: 1000 }, (_, i) => (i === 0 ? -1 : 1))] });
  const bytes = Object.values(collector.state).reduce((sum, { byteLength }) => sum + byteLength, 0);
  expect(collector.maximumBytes.bothSigns).toBeGreaterThan(bytes);
  expect(collector.maximumBytes.bothSigns).toBeLessThan(1.01 * bytes);
  expect(collector.maximumBytes.oneSign / 1000).toBeLessThan(8_500);
});
