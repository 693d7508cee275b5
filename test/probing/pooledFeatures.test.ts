import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { binaryLabels, readLabelledTexts } from "../../lib/probing/labelledTexts.js";
import { pooledFeatures } from "../../lib/probing/pooledFeatures.js";
import { probe } from "../../lib/probing/probe.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const texts = ["The old man said no.", "She", "He looked at her for a long time, and then he was gone."];

/** Activations of a text at `HOOK`, without that of BOS. */
async function rowsOf(text: string): Promise<Float32Array[]> {
  const tokens = [model.config.bosTokenId!, ...model.tokenizer.encode(text)];
  using activations = await model.activations([tokens], HOOK);
  const data = await activations.readFloat32();
  return tokens.slice(1).map((_, i) => data.slice((i + 1) * 192, (i + 2) * 192));
}

function rowOf(
  features: { columns: number; transposedTimes(u: Float64Array): Float64Array },
  row: number,
): Float64Array {
  return features.transposedTimes(Float64Array.from(texts, (_, i) => Number(i === row)));
}

test("features of a text are the mean of its tokens' activations, or the last one's, without BOS, in whatever company", async () => {
  const mean = await pooledFeatures(texts, { model, hook: HOOK });
  const last = await pooledFeatures(texts, { model, hook: HOOK, pooling: "last" });
  expect(mean).toMatchObject({ hooks: [HOOK], cut: 0 });
  for (const [index, text] of texts.entries()) {
    const rows = await rowsOf(text);
    const [meanRow, lastRow] = [rowOf(mean.features, index), rowOf(last.features, index)];
    for (let column = 0; column < 192; column += 17) {
      const expected = rows.reduce((sum, row) => sum + row[column]!, 0) / rows.length;
      expect(meanRow[column]).toBeCloseTo(expected, 4);
      expect(lastRow[column]).toBeCloseTo(rows.at(-1)![column]!, 4);
    }
  }
});

test("features of an SAE are its latents' mean activations", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK, modelName: "tiny-gpt2" });
  const { features, hooks } = await pooledFeatures(texts, { model, sae });
  expect(hooks).toEqual([HOOK]);
  expect([features.rows, features.columns]).toEqual([3, 384]);
  for (const [index, text] of texts.entries()) {
    const rows = await rowsOf(text);
    const found = rowOf(features, index);
    for (const latent of [0, 7, 191, 192, 300]) {
      const sign = latent < 192 ? 1 : -1;
      const expected = rows.reduce((sum, row) => sum + Math.max(0, sign * row[latent % 192]!), 0) / rows.length;
      expect(found[latent]).toBeCloseTo(expected, 4);
    }
  }
});

test("long texts are cut, and counted; texts without tokens, hooks and SAEs that do not fit are refused", async () => {
  const { features, cut } = await pooledFeatures(texts, { model, hook: HOOK, contextSize: 4, pooling: "last" });
  expect(cut).toBe(2);
  const third = (await rowsOf(texts[0]!))[2]!;
  expect(rowOf(features, 0)[5]).toBeCloseTo(third[5]!, 4);
  await expect(pooledFeatures(["a", ""], { model, hook: HOOK })).rejects.toThrow("text 2 of 2 has no tokens");
  await expect(pooledFeatures([], { model, hook: HOOK })).rejects.toThrow("there are no texts");
  await expect(pooledFeatures(texts, { model })).rejects.toThrow("name the hook point");
  await expect(pooledFeatures(texts, { model, hook: "blocks.1.attn.hook_pattern" })).rejects.toThrow(
    "no vector per token",
  );
  await expect(pooledFeatures(texts, { model, hook: HOOK, contextSize: 0 })).rejects.toThrow("contextSize must be");
  await expect(pooledFeatures(texts, { model, hook: HOOK, signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "ERR_ABORTED",
  });
});

test("a probe of the residual stream finds which of two people a text is about", async () => {
  const people = ["girl", "boy"];
  const verbs = ["went home", "was very happy", "saw a dog", "said no", "ran away", "had a red ball", "liked to play"];
  const starts = ["One day the", "The little", "Then the", "A happy"];
  const all = starts.flatMap((start) =>
    verbs.flatMap((verb) => people.map((person) => ({ text: `${start} ${person} ${verb}`, label: person }))),
  );
  const { features } = await pooledFeatures(
    all.map(({ text }) => text),
    { model, hook: HOOK },
  );
  const labels = all.map(({ label }) => Number(label === "girl"));
  const { test: held, control } = await probe(features, labels, { testFraction: 0.3 });
  expect(held.accuracy).toBeGreaterThan(0.9);
  expect(control!.selectivity).toBeGreaterThan(0.2);
});

async function fileWith(...lines: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "monosem-probing-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "texts.jsonl");
  await writeFile(path, lines.join("\n"));
  return path;
}

test("labelled texts are read, and lines that are none are named", async () => {
  const path = await fileWith('{"text":"a","label":true,"more":1}', "", '{"text":"b","label":false}', "");
  const read = await readLabelledTexts(path);
  expect(read).toEqual([
    { text: "a", label: "true", type: undefined },
    { text: "b", label: "false", type: undefined },
  ]);
  expect(binaryLabels(read)).toEqual({ labels: Uint8Array.of(1, 0), positive: "true" });
  expect(binaryLabels(read, "false").labels).toEqual(Uint8Array.of(0, 1));
  for (const [lines, message] of [
    [["{"], ":1 is not JSON"],
    [["", "[1]"], ':2 should be a JSON object with a string under "text"'],
    [["null"], ":1 should be a JSON object"],
    [['{"text":"a"}'], ':1 should have a string, a number, true or false under "label"'],
    [['{"text":"a","label":1,"type":2}'], ':1 should have a string under "type"'],
    [['{"text":"a","label":1}', '{"text":"a","label":1,"type":"x"}'], ":2 has a type, but lines before it have none"],
  ] as const) {
    await expect(readLabelledTexts(await fileWith(...lines))).rejects.toThrow(message);
  }
  await expect(readLabelledTexts("nowhere.jsonl")).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
});

test("of more than two labels one must be chosen, of one nothing can be", () => {
  const of = (...labels: string[]) => labels.map((label) => ({ text: "", label, type: undefined }));
  expect(() => binaryLabels(of("a", "b", "c"))).toThrow('there are 3 labels ("a", "b", "c")');
  expect(binaryLabels(of("a", "b", "c", "b"), "b").labels).toEqual(Uint8Array.of(0, 1, 0, 1));
  expect(() => binaryLabels(of("a", "a"))).toThrow('the only label is "a"');
  expect(() => binaryLabels(of("a", "b"), "x")).toThrow('no text has the label "x"; the labels are "a", "b"');
});
