import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import { evaluateAbsorption } from "../../lib/evaluation/absorption.js";
import { absorptionOfLetters, type LetterVectors } from "../../lib/evaluation/absorptionOfLetters.js";
import { absorptionOfWord } from "../../lib/evaluation/absorptionOfWord.js";
import { firstLetterTask, letterAnswer, QUESTION } from "../../lib/evaluation/firstLetterTask.js";
import { keyedNumber } from "../../lib/interpretation/keyedNumber.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";
import { denseFeatures, sparseFeatures } from "../probing/featureMatrices.js";
import { saeBench } from "./saebench.js";

const norm = (vector: readonly number[]): number => Math.sqrt(vector.reduce((sum, value) => sum + value ** 2, 0));
const product = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);

test("absorption of a word is what SAEBench says, fraction and full", () => {
  const { probe, decoder, acts, activations, mainLatents, fraction, full } = saeBench.absorption;
  const cosines = Float64Array.from(decoder, (row) => product(row, probe) / norm(row) / norm(probe));
  expect(new Set(full).size).toBe(2);
  expect(fraction.filter((value) => value > 0 && value < 1).length).toBeGreaterThan(5);
  acts.forEach((row, word) => {
    const indices = Array.from(row.keys()).filter((latent) => row[latent] !== 0);
    const found = absorptionOfWord({
      projection: product(activations[word]!, probe) / norm(probe),
      latents: { indices, values: indices.map((latent) => row[latent]!) },
      cosines,
      mainLatents: new Set(mainLatents),
    });
    expect(found.full, `word ${word}`).toBe(full[word]);
    expect(found.fraction, `word ${word}`).toBeCloseTo(fraction[word]!, 4);
  });
});

/**
 * Words of three letters in three dimensions, latent i for letter i; with `absorbed`, on a third of the words of letter 0
 * latent 3, which reads and writes nearly the same, fires in place of latent 0.
 */
function planted(absorbed: boolean): LetterVectors {
  const letters = Array.from({ length: 450 }, (_, word) => word % 3);
  const noise = (word: number, i: number): number => 0.05 * keyedNumber(word, i);
  const isAbsorbed = (word: number): boolean => absorbed && letters[word] === 0 && word % 9 === 0;
  const acts = letters.map((letter, word) =>
    [0, 1, 2, 3].map((latent) => (latent === (isAbsorbed(word) ? 3 : letter) ? 1 + noise(word, latent) : 0)),
  );
  const decoder = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [0.95, 0, 0.3122],
  ];
  const activations = acts.map((row) =>
    [0, 1, 2].map((i) => row.reduce((sum, value, l) => sum + value * decoder[l]![i]!, 0)),
  );
  const matrix = sparseFeatures(acts);
  return {
    vectors: {
      activations: denseFeatures(activations),
      latents: matrix,
      latentsOf: (word) => {
        const indices = Array.from(acts[word]!.keys()).filter((latent) => acts[word]![latent]! > 0);
        return { indices, values: indices.map((latent) => acts[word]![latent]!) };
      },
    },
    trainLetters: letters.slice(0, 360),
    testLetters: letters.slice(360),
    decoder: Float32Array.from(decoder.flat()),
  };
}

describe("planted words", () => {
  test("a third absorbed is found to be a third, of that letter alone", async () => {
    // A latent counts as a split only where it is as good as a third of the words: the main latent stays one.
    const { letters } = await absorptionOfLetters(planted(true), { leastLetters: 3, mostLatents: 1 });
    expect(letters!.map(({ letter }) => letter)).toEqual(["a", "b", "c"]);
    const [a, b, c] = letters!;
    expect(a!.mainLatents).toEqual([0]);
    expect(a!.truePositives).toBe(30);
    expect(a!.fullCount).toBe(10);
    expect(a!.fullRate).toBeCloseTo(1 / 3, 10);
    expect(a!.meanFraction).toBeCloseTo(1 / 3, 10);
    for (const other of [b!, c!]) expect(other).toMatchObject({ meanFraction: 0, fullCount: 0, fullRate: 0 });
  });

  test("without absorption there is none", async () => {
    const { letters } = await absorptionOfLetters(planted(false), { leastLetters: 3 });
    for (const letter of letters!) expect(letter).toMatchObject({ meanFraction: 0, fullRate: 0 });
  });

  test("letters that latents share are split, where each brings enough", async () => {
    const { letters } = await absorptionOfLetters(planted(true), { leastLetters: 3 });
    expect([...letters![0]!.mainLatents].sort()).toEqual([0, 3]);
    expect(letters![0]).toMatchObject({ fullRate: 0 });
  });

  test("too few letters give no result, and say how many there are", async () => {
    const found = await absorptionOfLetters(planted(true));
    expect(found).toMatchObject({ letters: undefined, lettersFound: 3, lettersNeeded: 20 });
    expect(found.probeF1.filter((f1) => f1 !== undefined)).toEqual([1, 1, 1]);
  });
});

describe("in a model", () => {
  let device: Device;
  let model: HookedTransformer;

  beforeAll(async () => {
    ({ device, model } = await openTinyModel());
  });
  afterAll(() => device.close());

  test("prompts are as SAEBench's: examples of the same part, then the word as one token", () => {
    const task = firstLetterTask(model, { contextSize: 128, prependBos: true, words: 300, seed: 1 });
    expect(task.train).toHaveLength(240);
    expect(task.test).toHaveLength(60);
    expect(task.examples).toBe(10);
    const part = new Set(task.test.map(({ word }) => word));
    for (const { word, ids, position } of task.test) {
      expect(ids[0]).toBe(model.config.bosTokenId);
      expect(model.tokenizer.tokenText(ids[position]!)).toBe(word);
      const lines = model.tokenizer.decode(ids.slice(1)).split("\n").slice(1);
      expect(lines).toHaveLength(11);
      expect(lines.at(-1)).toBe(`${word}${QUESTION}`);
      for (const line of lines.slice(0, -1)) {
        const shown = line.slice(0, line.indexOf(QUESTION));
        expect(part).toContain(shown);
        expect(shown).not.toBe(word);
        expect(line).toBe(`${shown}${QUESTION}${letterAnswer(shown)}`);
      }
    }
    const shorter = firstLetterTask(model, { contextSize: 64, prependBos: true, words: 300, seed: 1 });
    expect(shorter.examples).toBeLessThan(10);
    for (const { ids } of [...shorter.train, ...shorter.test]) expect(ids.length).toBeLessThanOrEqual(64);
    expect(() => firstLetterTask(model, { contextSize: 12, prependBos: true, words: 300, seed: 1 })).toThrow(
      "the first-letter task needs contexts of",
    );
  });

  test("one that cannot spell gets no numbers, but what its probes do", async () => {
    using sae = exactSae(device, 192, { hookName: HOOK });
    const found = await evaluateAbsorption({ sae, model, contextSize: 64, prependBos: true, words: 120 });
    expect(found.letters).toBeUndefined();
    expect(found.lettersFound).toBeLessThan(20);
    expect(found.spellingAccuracy).toBeLessThan(0.3);
    expect(found.testWords).toBe(24);
    expect(found.probeF1).toHaveLength(26);
  });
});
