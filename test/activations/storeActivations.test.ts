import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { ActivationBuffer } from "../../lib/activations/buffer.js";
import { Corpus } from "../../lib/activations/corpus.js";
import { type StoreActivationsOptions, storeActivations } from "../../lib/activations/storeActivations.js";
import { StoredActivations } from "../../lib/activations/storedActivations.js";
import { Device } from "../../lib/engine/device.js";
import { testDevice } from "../testDevice.js";
import { FakeModel } from "./fakeModel.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-store-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const alphabet = String.fromCharCode(...Array.from({ length: 90 }, (_, i) => 37 + i));

/** Ten contexts of BOS and nine characters; two contexts, 18 rows of 8 bytes, per pass. */
const optionsFor = (changes: Partial<StoreActivationsOptions> = {}): StoreActivationsOptions => ({
  model: new FakeModel(device),
  hook: "hook",
  corpus: Corpus.fromDocuments([alphabet]),
  contextSize: 10,
  prependBos: true,
  excludeSpecialTokens: true,
  batchPrompts: 2,
  shardBytes: 200,
  ...changes,
});

async function storedRows(path: string): Promise<number[][]> {
  using source = await StoredActivations.open(path, device, { shuffle: false, seed: 0 });
  using all = await source.next(source.rows);
  const data = await all.readFloat32();
  return Array.from({ length: source.rows }, (_, i) => [...data.slice(i * 2, i * 2 + 2)]);
}

const filesOf = async (path: string): Promise<Map<string, string>> => {
  const files = new Map<string, string>();
  for (const name of (await readdir(path)).sort())
    files.set(name, (await readFile(join(path, name))).toString("base64"));
  return files;
};

const expectedRows = [...alphabet].map((character, i) => [character.charCodeAt(0), 1 + (i % 9)]);

test("the whole corpus is stored once, in order, in shards that a manifest lists", async () => {
  const progress: number[] = [];
  const manifest = await storeActivations(directory, optionsFor({ onProgress: (rows) => progress.push(rows) }));
  expect(progress).toEqual([18, 36, 54, 72, 90]);
  expect(manifest).toMatchObject({ rows: 90, dIn: 2, dtype: "F32", hook: "hook", model: "fake", complete: true });
  expect(manifest.shards.map(({ rows }) => rows)).toEqual([36, 36, 18]);
  expect(JSON.parse(await readFile(join(directory, "manifest.json"), "utf8"))).toEqual(manifest);
  expect(await storedRows(directory)).toEqual(expectedRows);
  expect([...(await filesOf(directory)).keys()]).toEqual([
    "activations-00000.safetensors",
    "activations-00001.safetensors",
    "activations-00002.safetensors",
    "manifest.json",
  ]);
});

test("bf16 rounds; a limit of rows ends with the pass that reaches it, and can be raised", async () => {
  const model = new FakeModel(device);
  model.value = (id) => [id + 0.001, -1 / 3];
  await storeActivations(directory, optionsFor({ model, dtype: "BF16", rows: 20 }));
  const rows = await storedRows(directory);
  expect(rows).toHaveLength(36);
  expect(rows[0]).toEqual([37, -0.333984375]);
  await storeActivations(directory, optionsFor({ model, dtype: "BF16", rows: 37 }));
  expect(await storedRows(directory)).toHaveLength(54);
});

test("interrupted after any pass, storing continues and gives the same files", async () => {
  const whole = join(directory, "whole");
  await storeActivations(whole, optionsFor());
  const expected = await filesOf(whole);
  for (const stopAfter of [0, 18, 36, 54, 90]) {
    const path = join(directory, `stopped-${stopAfter}`);
    const controller = new AbortController();
    if (stopAfter === 0) controller.abort();
    const onProgress = (rows: number) => rows === stopAfter && controller.abort();
    const stopped = storeActivations(path, optionsFor({ signal: controller.signal, onProgress }));
    await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
    if (stopAfter === 54) {
      const opening = StoredActivations.open(path, device, { shuffle: false, seed: 0 });
      await expect(opening).rejects.toThrow("interrupted after 36 rows");
    }
    await storeActivations(path, optionsFor());
    expect(await filesOf(path)).toEqual(expected);
    await storeActivations(path, optionsFor()); // everything is there
    expect(await filesOf(path)).toEqual(expected);
  }
});

test("one process at a time stores in a folder, and sweeps what a killed one left", async () => {
  const whole = join(directory, "whole");
  await storeActivations(whole, optionsFor());
  const path = join(directory, "both");
  await mkdir(path);
  await writeFile(join(path, ".activations-00000.safetensors.123.0123456789ab.tmp"), "half");
  const others: Promise<unknown>[] = [];
  const onProgress = (): void => void others.push(storeActivations(path, optionsFor()).catch((error) => error));
  await storeActivations(path, optionsFor({ onProgress }));
  for (const other of await Promise.all(others)) {
    expect(other).toMatchObject({ code: "ERR_CONFIG", message: /is in use by/ });
  }
  expect(await filesOf(path)).toEqual(await filesOf(whole));
});

test("NaN is refused, and so are folders with other activations or other files", async () => {
  const model = new FakeModel(device);
  model.value = (id) => [id === 40 ? Number.NaN : id, 0];
  await expect(storeActivations(directory, optionsFor({ model }))).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
  await storeActivations(directory, optionsFor());
  for (const [changes, named] of [
    [{ corpus: Corpus.fromDocuments([`${alphabet} `]) }, "corpus"],
    [{ dtype: "BF16" }, "dtype"],
    [{ prependBos: false }, "prependBos"],
    [{ contextSize: 9 }, "contextSize"],
  ] as const) {
    const failure = storeActivations(directory, optionsFor(changes));
    await expect(failure).rejects.toMatchObject({ code: "ERR_CONFIG", message: expect.stringContaining(named) });
  }
  const foreign = join(directory, "foreign");
  await storeActivations(foreign, optionsFor());
  await rm(join(foreign, "manifest.json"));
  await writeFile(join(foreign, "thesis.tex"), "");
  await expect(storeActivations(foreign, optionsFor())).rejects.toThrow("thesis.tex");
  await expect(storeActivations(directory, optionsFor({ rows: 0 }))).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
  });
});

test("stored activations say where they come from, in the words of an SAE's metadata", async () => {
  const processing = { foldLn: true, centerWritingWeights: false, centerUnembed: false, foldValueBiases: true };
  const model = new FakeModel(device);
  const processed = Object.assign(model, { config: { ...model.config, processing } });
  const expected = {
    modelName: "fake",
    hookName: "hook",
    contextSize: 10,
    prependBos: true,
    exclude_special_tokens: true,
    model_from_pretrained_kwargs: {
      fold_ln: true,
      center_writing_weights: false,
      center_unembed: false,
      fold_value_biases: true,
    },
  };
  await storeActivations(directory, optionsFor({ model: processed, rows: 18 }));
  const stored = await StoredActivations.open(directory, device, { shuffle: true, seed: 0 });
  expect(stored.metadata).toEqual(expected);
  stored.dispose();
  const { shardBytes: _, ...harvesting } = optionsFor({ model: processed });
  using buffer = await ActivationBuffer.create({ ...harvesting, bufferTokens: 20, seed: 0 });
  expect(buffer.metadata).toEqual(expected);
  await expect(storeActivations(directory, optionsFor())).rejects.toThrow(/stored with processing \{"foldLn":true/);
  const alone = await StoredActivations.open(join(directory, "activations-00000.safetensors"), device, {
    shuffle: true,
    seed: 0,
  });
  expect(alone.metadata).toEqual({});
  alone.dispose();
});
