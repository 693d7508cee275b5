import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { contexts } from "../../lib/activations/contexts.js";
import { Corpus } from "../../lib/activations/corpus.js";
import { limitTokens } from "../../lib/analysis/contextBatches.js";
import { rankLatents } from "../../lib/analysis/featureRanking.js";
import { collectFeatures } from "../../lib/analysis/features.js";
import { logitEffects } from "../../lib/analysis/logitEffects.js";
import type { Device } from "../../lib/engine/device.js";
import { MonosemError } from "../../lib/errors.js";
import { buildFeatureStore, type FeatureStoreOptions } from "../../lib/features/buildFeatureStore.js";
import { checksumOf } from "../../lib/features/checksum.js";
import { FeatureStore } from "../../lib/features/featureStore.js";
import { latentColumns, storeTables } from "../../lib/features/storeTables.js";
import { type SafetensorsArray, SafetensorsFile, writeSafetensors } from "../../lib/formats/safetensors.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { defineArchitecture, positiveInteger } from "../../lib/sae/architecture.js";
import { registerArchitecture } from "../../lib/sae/architectures.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
let root: string;

const documents = [
  "The old man said that he would go home. She was very happy, and he looked at her for a long time.",
  "Once upon a time there was a little girl. She liked to play in the garden.\n\n“Hello,” said the dog.",
  "He did not know what to say. The king was angry, and the queen was sad; nobody laughed.",
];
const corpus = Corpus.fromDocuments(documents.flatMap((text) => [text.repeat(3), text.toUpperCase()]));

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = Sae.create({ architecture: "topk", dIn: 192, dSae: 300, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, prependBos: true },
  });
  root = await mkdtemp(join(tmpdir(), "feature-store-"));
});

afterAll(async () => {
  await rm(root, { recursive: true });
  model.dispose();
  await device.close();
});

function options(overrides: Partial<FeatureStoreOptions> = {}): FeatureStoreOptions {
  return { sae, model, corpus, contextSize: 16, prependBos: true, tokens: 400, contextsPerBatch: 3, ...overrides };
}

let stores = 0;
const newFolder = (): string => join(root, `store-${stores++}`);

test("a store says what the pass in memory says, and what the decoder does, of every latent", async () => {
  const folder = newFolder();
  await using store = await buildFeatureStore(folder, options());
  expect(await readdir(folder)).toEqual(["features.safetensors"]);
  const text = limitTokens(contexts(corpus, model.tokenizer, options()), 400);
  const { statistics, metrics } = await collectFeatures({ sae, model, contexts: text, contextsPerBatch: 3 });
  const { summary } = store;
  expect(summary).toMatchObject({
    contexts: statistics.contexts,
    tokens: statistics.tokens,
    l0: statistics.l0,
    deadLatents: statistics.deadLatents,
    explainedVariance: metrics.explainedVariance,
    hasLogits: true,
  });
  expect(summary.firingCounts).toEqual(statistics.firingCounts);
  expect(summary.maxActivations).toEqual(statistics.maxActivations);
  const tokenText = (token: number): string => model.tokenizer.tokenText(token);
  expect([...summary.ranking]).toEqual(rankLatents(statistics, tokenText, 300));
  expect(store.tokenText(17)).toBe(tokenText(17));

  const effects = await logitEffects({ sae, model, latents: Array.from({ length: 300 }, (_, latent) => latent) });
  const decoder = await sae.parameters.decoder.readFloat32();
  const row = (latent: number): Float32Array => decoder.subarray(latent * 192, (latent + 1) * 192);
  const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const cosine = (a: number, b: number): number =>
    dot(row(a), row(b)) / Math.sqrt(dot(row(a), row(a)) * dot(row(b), row(b)));
  for (let latent = 0; latent < 300; latent++) {
    const record = await store.latent(latent);
    expect(record).toMatchObject({
      latent,
      firingCount: statistics.firingCounts[latent],
      density: statistics.firingCounts[latent]! / statistics.tokens,
      meanActivation: statistics.meanActivations[latent],
    });
    expect(record.histogram).toEqual(statistics.activationHistogram(latent));
    expect(record.examples).toEqual(statistics.examples(latent));
    expect(record.negativeExamples).toEqual([]);
    expect(await store.topActivatingExamples(latent)).toEqual(statistics.examples(latent));
    expect(record.logits!.raised).toEqual(effects[latent]!.raised);
    expect(record.logits!.lowered).toEqual(effects[latent]!.lowered);
    const { counts, firstEdge, binWidth } = record.logits!.histogram;
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(model.config.vocabularySize);
    expect(firstEdge).toBeCloseTo(record.logits!.lowered[0]!.effect, 12);
    expect(firstEdge + 40 * binWidth).toBeCloseTo(record.logits!.raised[0]!.effect, 12);
    if (latent % 50 === 0) {
      const others = Array.from({ length: 300 }, (_, other) => other).filter((other) => other !== latent);
      const nearest = others.map((other) => cosine(latent, other)).sort((a, b) => b - a);
      expect(record.neighbours).toHaveLength(10);
      for (const [index, near] of record.neighbours.entries()) {
        expect(near.cosine).toBeCloseTo(nearest[index]!, 5);
        expect(near.cosine).toBeCloseTo(cosine(latent, near.latent), 5);
      }
    }
  }
  const shown = store.statistics([await store.latent(3), await store.latent(5)]);
  expect(shown.examples(5)).toEqual(statistics.examples(5));
  expect(() => shown.examples(4)).toThrow(/latent 4 was not read/);
});

test("overlaps in a store are those of the tokens on which latents fire", async () => {
  await using store = await buildFeatureStore(newFolder(), options({ tokens: 100 }));
  const firings = Array.from({ length: 300 }, () => new Set<number>());
  let token = 0;
  for await (const context of limitTokens(contexts(corpus, model.tokenizer, options()), 100)) {
    using x = await model.activations([context], HOOK);
    using codes = sae.encode(x);
    const { rowOffsets, features, values } = await codes.read();
    for (let row = 0; row < context.length; row++) {
      if (model.tokenizer.specialTokenIds.has(context[row]!)) continue;
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        if (values[entry] !== 0) firings[features[entry]!]!.add(token);
      }
      token += 1;
    }
  }
  for (let latent = 0; latent < 300; latent++) {
    const all = firings.map((of, other) => {
      const both = [...of].filter((place) => firings[latent]!.has(place)).length;
      return { latent: other, overlap: both / (of.size + firings[latent]!.size - both) };
    });
    const expected = all
      .filter((other) => other.latent !== latent && other.overlap > 0)
      .sort((a, b) => b.overlap - a.overlap || a.latent - b.latent)
      .slice(0, 10);
    const found = (await store.latent(latent)).coActive;
    // Only the 64 that share most are compared: of equals others may be told.
    expect(found.map(({ overlap }) => overlap)).toEqual(expected.map(({ overlap }) => overlap));
    for (const { latent: other, overlap } of found) expect(overlap).toBe(all[other]!.overlap);
  }
});

test("the batch size changes nothing but the rounding of the model's products", async () => {
  await using one = await buildFeatureStore(newFolder(), options({ contextsPerBatch: 1 }));
  await using many = await buildFeatureStore(newFolder(), options({ contextsPerBatch: 7 }));
  for (const [latent, count] of one.summary.firingCounts.entries()) {
    expect(many.summary.firingCounts[latent]).toBe(count);
    expect(many.summary.meanActivations[latent]).toBeCloseTo(one.summary.meanActivations[latent]!, 4);
    const [first, second] = [await one.latent(latent), await many.latent(latent)];
    for (const list of ["positions", "coActive", "neighbours", "logits"] as const) {
      expect(second[list]).toEqual(first[list]);
    }
    expect(second.documents.map(({ document }) => document)).toEqual(first.documents.map(({ document }) => document));
    for (const [index, { context, activation }] of first.examples.entries()) {
      expect(second.examples[index]!.context).toBe(context);
      expect(second.examples[index]!.activation).toBeCloseTo(activation, 4);
    }
  }
});

test("one pass at a time works in a folder", async () => {
  const folder = newFolder();
  const others: Promise<unknown>[] = [];
  const onProgress = (): void => {
    if (others.length === 0) others.push(buildFeatureStore(folder, options({ resume: true })).catch((error) => error));
  };
  await (await buildFeatureStore(folder, options({ onProgress }))).close();
  expect(await Promise.all(others)).toMatchObject([{ code: "ERR_CONFIG", message: /is in use by/ }]);
  expect(await readdir(folder)).toEqual(["features.safetensors"]);
});

test("an interrupted pass goes on to the same store, byte for byte, wherever it was interrupted", async () => {
  const whole = newFolder();
  await (await buildFeatureStore(whole, options())).close();
  const expected = await readFile(join(whole, "features.safetensors"));
  for (const [stage, at] of [
    ["reading", 48],
    ["reading", 192],
    ["reading", 400],
    ["writing", 256],
  ] as const) {
    const folder = newFolder();
    const controller = new AbortController();
    const interrupted = buildFeatureStore(
      folder,
      options({
        signal: controller.signal,
        onProgress: (progress) => {
          if (progress.stage === stage && progress.done >= at) controller.abort();
        },
      }),
    );
    await expect(interrupted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(await readdir(folder)).toEqual(["unfinished.safetensors"]);
    await expect(FeatureStore.open(folder)).rejects.toMatchObject({ code: "ERR_CONFIG", message: /interrupted/ });
    await expect(buildFeatureStore(folder, options())).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: /unfinished features already: resume/,
    });
    await expect(buildFeatureStore(folder, options({ resume: true, tokens: 500 }))).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: /made with tokensAsked 400, not 500/,
    });
    let first = Number.POSITIVE_INFINITY;
    const onProgress = ({ stage: now, done }: { stage: string; done: number }): void => {
      if (now === "reading") first = Math.min(first, done);
    };
    await (await buildFeatureStore(folder, options({ resume: true, onProgress }))).close();
    expect(first).toBeGreaterThan(at);
    expect(await readdir(folder)).toEqual(["features.safetensors"]);
    expect(expected.equals(await readFile(join(folder, "features.safetensors")))).toBe(true);
  }
});

test("what a pass saves on its way changes nothing, and each of its states goes on to the same store", async () => {
  const whole = newFolder();
  await (await buildFeatureStore(whole, options())).close();
  const expected = await readFile(join(whole, "features.safetensors"));
  const folder = newFolder();
  const states: Buffer[] = [];
  const onProgress = ({ stage }: { stage: string }): void => {
    if (stage === "reading") states.push(readFileSync(join(folder, "unfinished.safetensors")));
  };
  await (await buildFeatureStore(folder, options({ saveEverySeconds: 0, onProgress }))).close();
  expect(await readdir(folder)).toEqual(["features.safetensors"]);
  expect(expected.equals(await readFile(join(folder, "features.safetensors")))).toBe(true);
  expect(states.length).toBeGreaterThan(5);
  for (const state of [states[0]!, states[3]!, states.at(-1)!]) {
    const resumed = newFolder();
    await mkdir(resumed);
    await writeFile(join(resumed, "unfinished.safetensors"), state);
    await (await buildFeatureStore(resumed, options({ resume: true }))).close();
    expect(expected.equals(await readFile(join(resumed, "features.safetensors")))).toBe(true);
  }
  const never = buildFeatureStore(newFolder(), options({ saveEverySeconds: -1 }));
  await expect(never).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});

test("latents that can be negative, read outside of the residual stream: stored with their signs, without logits", async () => {
  const architecture = defineArchitecture({
    name: "abstopk-store",
    options: { k: positiveInteger },
    trainingOptions: {},
    parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
    initialDecoderNorm: 1,
    decoderUnitNorm: true,
    saved: { name: "abstopk-store", keys: ({ k }) => ({ k }) },
    encode: ({ kernels, parameters: p, options: { k } }, input) =>
      kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k, by: "magnitude" }),
    gradients: () => {
      throw new Error("not trained here");
    },
  });
  registerArchitecture(architecture);
  const config = { architecture: "abstopk-store", dIn: 192, dSae: 50, k: 4, applyBDecToInput: false };
  using signed = Sae.create(config as never, device, 1, {
    metadata: { hookName: "blocks.1.attn.hook_z", prependBos: true },
  });
  const [whole, folder] = [newFolder(), newFolder()];
  await using store = await buildFeatureStore(whole, options({ sae: signed }));
  expect(store.summary.hasLogits).toBe(false);
  const text = limitTokens(contexts(corpus, model.tokenizer, options()), 400);
  const { statistics } = await collectFeatures({ sae: signed, model, contexts: text, contextsPerBatch: 3 });
  let negative = 0;
  for (let latent = 0; latent < 50; latent++) {
    const record = await store.latent(latent);
    expect(record.logits).toBeUndefined();
    expect(record.minActivation).toBe(statistics.minActivations[latent]);
    expect(record.negativeExamples).toEqual(statistics.negativeExamples(latent));
    negative += record.negativeExamples.length;
    const shares = record.quantiles.reduce((sum, { share }) => sum + share, 0);
    if (record.firingCount > 0) expect(shares).toBeCloseTo(1, 12);
    for (const { low, high, examples } of record.quantiles) {
      for (const { activation } of examples) {
        if (high > 0) expect(activation > low && activation <= high).toBe(true);
        else expect(activation >= low && activation < high).toBe(true);
      }
    }
  }
  expect(negative).toBeGreaterThan(50);
  const controller = new AbortController();
  const onProgress = ({ done }: { done: number }): void => {
    if (done >= 192) controller.abort();
  };
  const interrupted = buildFeatureStore(folder, options({ sae: signed, signal: controller.signal, onProgress }));
  await expect(interrupted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  await (await buildFeatureStore(folder, options({ sae: signed, resume: true }))).close();
  const [expected, found] = await Promise.all([whole, folder].map((at) => readFile(join(at, "features.safetensors"))));
  expect(expected!.equals(found!)).toBe(true);
});

test("what is there already is not written again, and nothing is written over", async () => {
  const folder = newFolder();
  await (await buildFeatureStore(folder, options({ tokens: 50 }))).close();
  await expect(buildFeatureStore(folder, options({ tokens: 50 }))).rejects.toThrow(/holds features already/);
  await using same = await buildFeatureStore(folder, options({ tokens: 50, resume: true }));
  expect(same.summary.contexts).toBe(4);
  using other = Sae.create({ architecture: "topk", dIn: 192, dSae: 300, k: 8, applyBDecToInput: true }, device, 4, {
    metadata: { hookName: HOOK, prependBos: true },
  });
  await expect(buildFeatureStore(folder, options({ sae: other, tokens: 50, resume: true }))).rejects.toThrow(
    /made with sae "[0-9a-f]{64}", not/,
  );
  const strange = newFolder();
  await (await buildFeatureStore(strange, options({ tokens: 20 }))).close();
  await writeFile(join(strange, "notes.txt"), "mine");
  await expect(buildFeatureStore(strange, options({ tokens: 20, resume: true }))).rejects.toThrow(/"notes.txt"/);
});

test("a corrupted state is refused", async () => {
  const folder = newFolder();
  const controller = new AbortController();
  const onProgress = (): void => controller.abort();
  await buildFeatureStore(folder, options({ signal: controller.signal, onProgress })).catch(() => undefined);
  const path = join(folder, "unfinished.safetensors");
  const bytes = await readFile(path);
  const last = bytes.length - 1000;
  bytes[last] = bytes[last]! ^ 1;
  await writeFile(path, bytes);
  await expect(buildFeatureStore(folder, options({ resume: true }))).rejects.toMatchObject({
    code: "ERR_FORMAT",
    message: /corrupted/,
  });
});

test("a store with any byte changed, or cut anywhere, is refused or says what it said before", async () => {
  const folder = newFolder();
  await (await buildFeatureStore(folder, options({ tokens: 50 }))).close();
  const path = join(folder, "features.safetensors");
  const bytes = await readFile(path);
  const readAll = async (): Promise<string> => {
    await using store = await FeatureStore.open(folder);
    const { dSae } = store.summary.identity;
    const records = [];
    for (let latent = 0; latent < Math.min(dSae, 300); latent += 1) records.push(await store.latent(latent));
    const { firingCounts, meanActivations, ranking } = store.summary;
    return JSON.stringify([firingCounts, meanActivations, ranking, records]);
  };
  const before = await readAll();
  const headerBytes = 8 + Number(bytes.readBigUInt64LE(0));
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const changed = Buffer.from(bytes);
      changed[at] = changed[at]! ^ change;
      await writeFile(path, changed);
      // A name or a number in the header that nothing depends on may change unnoticed; no byte behind it may.
      const found = await readAll().catch((error: unknown) => (error as { code: string }).code);
      const refused = ["ERR_FORMAT", "ERR_OUT_OF_MEMORY"].includes(found);
      if (!refused && at >= headerBytes) expect.fail(`byte ${at}: ${found.slice(0, 40)}`);
      if (!refused && found.startsWith("ERR")) expect.fail(`byte ${at}: ${found}`);
      if (!refused) expect(typeof found).toBe("string");
    }),
    { numRuns: 60 },
  );
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), async (length) => {
      await writeFile(path, bytes.subarray(0, length));
      await expect(FeatureStore.open(folder)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    }),
    { numRuns: 40 },
  );
  await writeFile(path, bytes);
  expect(await readAll()).toBe(before);
});

test("numbers that somebody has put into a store, checksums and all, are refused or read as a record of the right form", async () => {
  const folder = newFolder();
  await (await buildFeatureStore(folder, options({ tokens: 50 }))).close();
  const path = join(folder, "features.safetensors");
  const original = await SafetensorsFile.open(path);
  const { metadata } = original;
  const specifications = new Map<string, SafetensorsArray>();
  for (const name of original.entries.keys()) specifications.set(name, await original.read(name));
  await original.close();
  const tables = Object.entries(storeTables(25));
  const eager = [
    ...Object.keys(latentColumns).map((name) => `latents.${name}`),
    "latents.checksum",
    ...tables.map(([table]) => `${table}.offsets`),
    ...["vocabulary.offsets", "vocabulary.text", "ranking"],
  ];
  const forge = fc.record({
    tensor: fc.constantFrom(...specifications.keys()).filter((name) => !name.includes("checksum")),
    place: fc.double({ min: 0, max: 0.999, noNaN: true }),
    value: fc.constantFrom(0, 1, 2, 24, 25, 26, 299, 300, 2047, 2048, 2 ** 31, 2 ** 32 - 1, -1, Number.NaN, Infinity),
  });
  let [refused, read] = [0, 0];
  await fc.assert(
    fc.asyncProperty(fc.array(forge, { minLength: 1, maxLength: 3 }), async (forgeries) => {
      const arrays = new Map([...specifications].map(([name, { data }]) => [name, data.slice()]));
      for (const { tensor, place, value } of forgeries) {
        const data = arrays.get(tensor)!;
        if (data.length > 0) data[Math.floor(place * data.length)] = value as never;
      }
      const checksums = arrays.get("latents.checksum")!;
      for (let latent = 0; latent < 300; latent++) {
        let checksum = 0;
        for (const [table, columns] of tables) {
          const offsets = arrays.get(`${table}.offsets`)!;
          const [first, end] = [Number(offsets[latent]), Number(offsets[latent + 1])];
          for (const [name, { width }] of Object.entries(columns)) {
            const perRow = Math.max(1, width);
            const rows = arrays.get(`${table}.${name}`)!.subarray(first * perRow, end * perRow);
            checksum = checksumOf(rows, checksum);
          }
        }
        checksums[latent] = checksum as never;
      }
      let all = 0;
      for (const name of eager) all = checksumOf(arrays.get(name)!, all);
      arrays.get("checksum")![0] = all as never;
      await writeSafetensors(
        path,
        Object.fromEntries([...arrays].map(([name, data]) => [name, { data, shape: specifications.get(name)!.shape }])),
        metadata,
      );
      try {
        await using store = await FeatureStore.open(folder);
        for (let latent = 0; latent < 300; latent++) {
          const record = await store.latent(latent);
          const samples = record.quantiles.flatMap(({ examples }) => examples);
          for (const { tokens, activations, peak } of [...record.examples, ...samples]) {
            expect(tokens.length).toBeGreaterThan(peak);
            expect(activations.length).toBe(tokens.length);
            expect(activations.every(Number.isFinite)).toBe(true);
            for (const token of tokens) expect(typeof store.tokenText(token)).toBe("string");
          }
          for (const { latent: other } of [...record.coActive, ...record.neighbours]) expect(other).toBeLessThan(300);
          for (const { token } of record.tokens) expect(token).toBeLessThan(2048);
        }
        read += 1;
      } catch (error) {
        if (!(error instanceof MonosemError)) throw error;
        expect(error.code).toBe("ERR_FORMAT");
        refused += 1;
      }
    }),
    { numRuns: 40 },
  );
  expect(Math.min(refused, read)).toBeGreaterThan(0);
});

test("folders without a store, and latents that a store does not have, are refused", async () => {
  await expect(FeatureStore.open(join(root, "absent"))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  await using store = await buildFeatureStore(newFolder(), options({ tokens: 20 }));
  for (const latent of [-1, 300, 0.5]) {
    await expect(store.latent(latent)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(store.topActivatingExamples(latent)).rejects.toThrow(/there is no latent/);
  }
});
