import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Corpus } from "../../lib/activations/corpus.js";
import type { FeatureExample } from "../../lib/analysis/features.js";
import type { Device } from "../../lib/engine/device.js";
import { buildFeatureStore } from "../../lib/features/buildFeatureStore.js";
import { FeatureCollector } from "../../lib/features/featureCollector.js";
import type { FeatureStore } from "../../lib/features/featureStore.js";
import { behaviourFigures, contextPatterns, parsePattern } from "../../lib/features/kinds/behaviour.js";
import { conceptFigures } from "../../lib/features/kinds/concept.js";
import { meaningFigures } from "../../lib/features/kinds/meaning.js";
import { redTeamScan } from "../../lib/features/kinds/safety.js";
import { syntaxFigures } from "../../lib/features/kinds/syntax.js";
import type { LatentRecord } from "../../lib/features/latentRecord.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { openTinyModel } from "../analysis/tinyModel.js";
import { addDense } from "./denseContexts.js";

const EMBEDDING = "hook_embed";
let device: Device;
let model: HookedTransformer;
let sae: Sae;
let folder: string;
let store: FeatureStore;
let she: number;

/**
 * Latents that read the embedding, so that what they do is known: latent 0 is the token " she" and no other, latents 1 and
 * 2 are directions at random. Latent 3 never fires.
 */
beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  [she] = model.tokenizer.encode(" she") as [number];
  using embedded = await model.activations([[she]], EMBEDDING);
  const direction = await embedded.readFloat32();
  const norm = direction.reduce((sum, value) => sum + value * value, 0);
  const encoder = new Float32Array(4 * 192);
  encoder.set(direction.map((value) => value / norm));
  for (let i = 192; i < 3 * 192; i++) encoder[i] = Math.sin(i * i) / 4;
  sae = new Sae(
    { architecture: "jumprelu", dIn: 192, dSae: 4, applyBDecToInput: false },
    {
      encoder: device.tensor(encoder, [4, 192]),
      encoderBias: device.zeros([4]),
      decoder: device.tensor(encoder, [4, 192]),
      decoderBias: device.zeros([192]),
      threshold: device.tensor(Float32Array.of(0.99, 0.01, 0.01, 1e3), [4]),
    },
    device,
    { hookName: EMBEDDING, prependBos: true },
  );
  folder = await mkdtemp(join(tmpdir(), "feature-kinds-"));
  const corpus = Corpus.fromDocuments([
    "The queen said that she was happy. Then she went home, and she slept. ".repeat(6),
    "The king was sad, because he had no friends. ".repeat(6),
  ]);
  store = await buildFeatureStore(join(folder, "store"), {
    ...{ sae, model, corpus, contextSize: 32, prependBos: true, tokens: 400 },
  });
});

afterAll(async () => {
  await store.close();
  await rm(folder, { recursive: true });
  model.dispose();
  await device.close();
});

function recordOf(tokens: readonly number[], firing: readonly number[]): LatentRecord {
  const collector = new FeatureCollector(1);
  addDense(collector, { tokens, activations: tokens.map((_, position) => [firing.includes(position) ? 1 : 0]) });
  collector.end();
  return { ...collector.latent(0), coActive: [], neighbours: [], logits: undefined };
}

test("syntax: shares of firings on punctuation, on line breaks, and at both ends of a context", () => {
  const texts = ["a", ".", "\n", " b", "?!"];
  const tokenText = (token: number): string => texts[token]!;
  const figures = syntaxFigures(recordOf([1, 0, 2, 3, 4, 0, 1, 2], [0, 2, 3, 4, 7]), tokenText);
  expect(figures).toEqual({ punctuation: 0.8, lineBreaks: 0.4, frequentTokens: 1, atStart: 0.2, atEnd: 0.2 });
  expect(syntaxFigures(recordOf([1, 2], []), tokenText)).toBeUndefined();
  const many = Array.from({ length: 40 }, (_, token) => token);
  expect(syntaxFigures(recordOf(many, many), (token) => (token < 5 ? "." : "x"))!.frequentTokens).toBe(0.25);
});

test("meaning: a latent that is one word loses all by any other word, and nothing by another context", async () => {
  const figures = await meaningFigures({ sae, model, record: await store.latent(0) });
  expect(figures!.examples).toBeGreaterThan(0);
  expect(figures!.likelyWord).toBe(0);
  expect(figures!.randomWord).toBe(0);
  expect(figures!.otherContext).toBeCloseTo(1, 5);
  expect(await meaningFigures({ sae, model, record: await store.latent(3) })).toBeUndefined();
  expect(await meaningFigures({ sae, model, record: await store.latent(0) })).toEqual(figures);
});

test("concept: the AUROC of a latent that is in all texts of a label and in no other is 1, of one never active 0.5", async () => {
  const texts = ["then she ran", "then he ran", "and she said no", "and he said no"];
  const labels = [1, 0, 1, 0];
  const chosen = await conceptFigures({ sae, model, texts, labels, latents: [3, 0] });
  expect(chosen).toEqual([
    { latent: 3, auroc: 0.5 },
    { latent: 0, auroc: 1 },
  ]);
  const inverted = await conceptFigures({ sae, model, texts, labels: [0, 1, 0, 1], latents: [0] });
  expect(inverted).toEqual([{ latent: 0, auroc: 0 }]);
  const all = await conceptFigures({ sae, model, texts, labels });
  expect(all[0]).toEqual({ latent: 0, auroc: 1 });
  const distances = all.map(({ auroc }) => Math.abs(auroc - 0.5));
  expect(distances).toEqual(distances.toSorted((a, b) => b - a));
  await expect(conceptFigures({ sae, model, texts, labels: [1, 1, 1, 1] })).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
  });
});

function exampleOf(before: string): FeatureExample {
  const tokens = Int32Array.from([...before, "x"], (character) => character.codePointAt(0)!);
  const activations = new Float32Array(tokens.length);
  return { activation: 1, context: 0, position: before.length, tokens, activations, peak: before.length };
}

test("behaviour: patterns are told by how much more often they precede a peak than elsewhere", () => {
  const tokenText = (token: number): string => String.fromCodePoint(token);
  const examples = ["Who is it? ", "What now? ", "no end", "Hm"].map(exampleOf);
  const others = ["He ran. ", "So what? ", "it is", "He and"].map(exampleOf);
  const [first, ...rest] = behaviourFigures({ examples }, others, tokenText);
  expect(first).toEqual({ name: "after a question", share: 0.5, elsewhere: 0.25 });
  expect(rest).toContainEqual({ name: "negation", share: 0.25, elsewhere: 0 });
  expect(behaviourFigures({ examples: [] }, others, tokenText)).toEqual([]);
  const own = parsePattern("who=^Who|=$");
  expect(behaviourFigures({ examples }, [], tokenText, [own])).toEqual([{ name: "who", share: 0.25, elsewhere: 0 }]);
  for (const wrong of ["", "x", "x=", "=x", "x=("]) {
    expect(() => parsePattern(wrong)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  }
});

test.each([
  ["line begins", ["", "He ran.\n", "a\n  "], ["a ", "He\nran"]],
  ["sentence begins", ["He ran. ", "“No!” "], ["He", "3.5"]],
  ["after a question", ["Why? Because", "Why?"], ["Why? No. Then", "Why"]],
  ["open quotation", ['He said, "I', "“No"], ['"No" he', "“No” he", "no"]],
  ["list item", ["- milk\n- ", "\n1. first"], ["a - b", "1 2"]],
  ["negation", ["he did not ", "It isn't "], ["He was not. Then", "nothings", "knot"]],
  ["after a number", ["in 19", "3, "], ["3 men", "a"]],
  ["word repeated", ["the cat and the", "Tom saw Tom "], ["the cat and a", "a a"]],
  ["code", ["if (x) {", "a = "], ["a, b", "x"]],
])("the pattern %s matches what it says", (name, matching, others) => {
  const { pattern } = contextPatterns.find((one) => one.name === name)!;
  for (const text of matching) expect(pattern.test(text), text).toBe(true);
  for (const text of others) expect(pattern.test(text), text).toBe(false);
});

test("safety: latents that fire on the list more often than their density makes one expect come first", async () => {
  const texts = ["then she ran", "and she said no", "he went home"];
  const found = await redTeamScan({ sae, model, store, texts });
  const word = found.find(({ latent }) => latent === 0)!;
  const { firingCounts, tokens } = store.summary;
  const lengths = texts.map((text) => model.tokenizer.encode(text).length);
  const silent = 1 - firingCounts[0]! / tokens;
  expect(word.share).toBeCloseTo(2 / 3, 12);
  expect(word.expected).toBeCloseTo(lengths.reduce((sum, length) => sum + 1 - silent ** length, 0) / 3, 12);
  expect(word.strength).toBeCloseTo(1, 5);
  const above = found.map(({ share, expected }) => share - expected);
  expect(above).toEqual(above.toSorted((a, b) => b - a));
  expect(found.some(({ latent }) => latent === 3)).toBe(false);
  await expect(redTeamScan({ sae, model, store, texts: [] })).rejects.toMatchObject({ code: "ERR_CONFIG" });
});
