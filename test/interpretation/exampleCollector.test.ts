import fc from "fast-check";
import { expect, test } from "vitest";
import { shownExamples, spread } from "../../lib/interpretation/chosenExamples.js";
import { ExampleCollector, sideOf } from "../../lib/interpretation/exampleCollector.js";
import type { Example, LatentExamples } from "../../lib/interpretation/examples.js";
import { keyedNumber, keyedShuffle } from "../../lib/interpretation/keyedNumber.js";

/** Documents of windows of four tokens; each window with the activations of two latents. */
interface RandomWindow {
  readonly tokens: readonly number[];
  readonly activations: readonly (readonly number[])[];
}

const WINDOW = 4;
const quarters = fc.oneof(
  fc.constant(0),
  fc.integer({ min: -8, max: 20 }).map((value) => value / 4),
);
const randomWindow: fc.Arbitrary<RandomWindow> = fc.record({
  tokens: fc.array(fc.nat(2), { minLength: WINDOW, maxLength: WINDOW }), // few tokens: texts occur again
  activations: fc.array(fc.array(quarters, { minLength: WINDOW, maxLength: WINDOW }), { minLength: 2, maxLength: 2 }),
});
const corpora = fc.array(fc.array(randomWindow, { maxLength: 6 }), { minLength: 1, maxLength: 12 });

function collect(
  documents: readonly (readonly RandomWindow[])[],
  limits: ConstructorParameters<typeof ExampleCollector>[1],
): readonly LatentExamples[] {
  const collector = new ExampleCollector([7, 3], limits);
  for (const [document, windows] of documents.entries()) {
    for (const [index, { tokens, activations }] of windows.entries()) {
      const firing = new Map<number, Float32Array>();
      activations.forEach((values, latent) => {
        if (values.some((value) => value !== 0)) firing.set(latent, Float32Array.from(values));
      });
      collector.add({ document, start: index * WINDOW, tokens: Int32Array.from(tokens) }, firing);
    }
  }
  return collector.examples();
}

function all({ strongest, active, silent }: LatentExamples["train"]): Example[] {
  return [...strongest, ...active, ...silent];
}

test("no document and no text is in the examples of both sides", () => {
  fc.assert(
    fc.property(corpora, fc.nat(1000), (documents, seed) => {
      for (const { train, test } of collect(documents, { seed, strongest: 3, active: 5, pool: 6 })) {
        const documentsOf = (examples: Example[]): Set<number> => new Set(examples.map(({ document }) => document));
        const textsOf = (examples: Example[]): Set<string> => new Set(examples.map(({ tokens }) => tokens.join()));
        for (const of of [documentsOf, textsOf] as const) {
          const trained = of(all(train)) as Set<unknown>;
          expect([...of(all(test))].filter((item) => trained.has(item))).toEqual([]);
        }
        for (const { document } of all(train)) expect(sideOf(document, seed)).toBe("train");
        for (const { document } of all(test)) expect(sideOf(document, seed)).toBe("test");
      }
    }),
  );
});

test("the strongest, the active and the silent are what a search through everything finds", () => {
  fc.assert(
    fc.property(corpora, fc.nat(1000), (documents, seed) => {
      const found = collect(documents, { seed, strongest: 3, active: 1000, pool: 1000 });
      found.forEach(({ train }, latent) => {
        const windows = documents.flatMap((windows, document) => (sideOf(document, seed) === "train" ? windows : []));
        const peak = (window: RandomWindow): number => Math.max(0, ...window.activations[latent]!);
        const strongestOf = new Map<string, number>();
        for (const window of windows) {
          const text = window.tokens.join();
          if (peak(window) > 0) strongestOf.set(text, Math.max(peak(window), strongestOf.get(text) ?? 0));
        }
        const peaks = [...strongestOf.values()].sort((a, b) => b - a);
        expect(train.strongest.map((example) => example.peak)).toEqual(peaks.slice(0, 3));
        expect(train.activeWindows).toBe(windows.filter((window) => peak(window) > 0).length);
        expect(new Set(train.active.map(({ tokens }) => tokens.join()))).toEqual(new Set(strongestOf.keys()));
        const activePeaks = train.active.map((example) => example.peak);
        expect(activePeaks).toEqual([...activePeaks].sort((a, b) => b - a));
        for (const { activations, peak: stated } of [...train.strongest, ...train.active]) {
          expect(Math.max(...activations)).toBe(stated);
        }
        for (const { tokens } of train.silent) {
          const same = windows.filter((window) => window.tokens.join() === tokens.join());
          expect(same.some((window) => window.activations[latent]!.every((value) => value === 0))).toBe(true);
        }
      });
    }),
  );
});

test("bounds hold, and the samples are uniform", () => {
  const documents = Array.from({ length: 2000 }, (_, document) => [
    {
      tokens: [document, 0, 0, 0],
      activations: [
        [document < 1000 ? 1 : 2, 0, 0, 0],
        [0, 0, 0, 0],
      ],
    },
  ]);
  const [first, second] = collect(documents, { strongest: 5, active: 100, pool: 50, seed: 3 });
  expect(first!.train.strongest).toHaveLength(5);
  expect(first!.train.active).toHaveLength(100);
  expect(first!.train.activeWindows).toBe(1000);
  expect(first!.train.silent).toHaveLength(0);
  expect(second!.train.silent).toHaveLength(50);
  const early = first!.train.active.filter(({ document }) => document < 1000).length;
  expect(Math.abs(early - 50)).toBeLessThan(4 * Math.sqrt(100 * 0.25)); // four standard deviations
});

test("of each two documents one is on each side, whichever the seed says", () => {
  for (const seed of [0, 1, 2 ** 40]) {
    const sides = Array.from({ length: 200 }, (_, document) => sideOf(document, seed));
    for (let i = 0; i < 200; i += 2) expect(new Set(sides.slice(i, i + 2)).size).toBe(2);
    const even = sides.filter((side, document) => document % 2 === 0 && side === "train").length;
    expect(even).toBeGreaterThan(25);
    expect(even).toBeLessThan(75);
  }
});

test("keyed numbers are even over [0, 1), and differ with every key", () => {
  const numbers = Array.from({ length: 10_000 }, (_, i) => keyedNumber(5, i % 100, Math.floor(i / 100)));
  expect(new Set(numbers).size).toBe(10_000);
  const bins = new Array<number>(10).fill(0);
  for (const number of numbers) bins[Math.floor(10 * number)]! += 1;
  for (const count of bins) expect(Math.abs(count - 1000)).toBeLessThan(150);
  expect(keyedNumber(2 ** 32)).not.toBe(keyedNumber(0));
  expect(keyedShuffle([1, 2, 3, 4, 5, 6, 7, 8], 1)).not.toEqual(keyedShuffle([1, 2, 3, 4, 5, 6, 7, 8], 2));
  expect(keyedShuffle([1, 2, 3], 1).sort()).toEqual([1, 2, 3]);
});

function example(document: number, tokens: readonly number[], peak: number): Example {
  const activations = Float32Array.from(tokens, (_, index) => (index === 0 ? peak : 0));
  return { document, start: 0, tokens: Int32Array.from(tokens), activations, peak };
}

test("an explainer sees the strongest, some from every quantile of the others, and silent ones with the peaks' tokens first", () => {
  const active = Array.from({ length: 20 }, (_, i) => example(i, [i === 0 ? 99 : 50, i], 20 - i));
  const silent = [example(30, [1, 2], 0), example(31, [3, 50], 0), example(32, [4, 99], 0)];
  const side = { activeWindows: 20, strongest: active.slice(0, 5), active, silent };
  const shown = shownExamples(side, { strongest: 2, typical: 3, contrastive: 2 });
  expect(shown.strongest.map(({ document }) => document)).toEqual([0, 1]);
  expect(shown.typical.map(({ document }) => document)).toEqual([5, 11, 17]);
  expect(shown.contrastive.map(({ document }) => document)).toEqual([31, 32]);
  expect(spread([1, 2, 3], 5)).toEqual([1, 2, 3]);
  expect(spread([1, 2, 3, 4], 2)).toEqual([2, 4]);
});

test("limits that are no counts are refused, and a latent named twice", () => {
  expect(() => new ExampleCollector([1], { active: -1 })).toThrow(/active must be an integer of at least 0, found -1/);
  expect(() => new ExampleCollector([1, 2, 1])).toThrow(/named twice/);
});
