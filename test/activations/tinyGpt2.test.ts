import { afterAll, beforeAll, expect, test } from "vitest";
import { ActivationBuffer } from "../../lib/activations/buffer.js";
import { Contexts } from "../../lib/activations/contexts.js";
import { Corpus } from "../../lib/activations/corpus.js";
import { documentPieces } from "../../lib/activations/documentPieces.js";
import { Harvest } from "../../lib/activations/harvest.js";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { tinyGpt2Directory } from "../models/tinyGpt2.js";
import { testDevice } from "../testDevice.js";

let device: Device;
let model: HookedTransformer;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  model = await HookedTransformer.load(tinyGpt2Directory, device);
});
afterAll(async () => {
  model.dispose();
  await device.close();
});

/** Prose-like text without any model or file: words of a small grammar, with line breaks, runs of spaces and marks. */
function prose(words: number): string {
  const vocabulary = [
    "The",
    "cat's",
    "naïve",
    "12,345",
    "walked",
    "\n\n",
    "  home",
    "--",
    "\t",
    "and",
    "(again)",
    "\nSo",
    "…",
  ];
  let state = 1;
  return Array.from({ length: words }, () => {
    state = (state * 48271) % 2147483647;
    return vocabulary[state % vocabulary.length];
  }).join(" ");
}

test("a document tokenised in pieces has the tokens of the whole", async () => {
  const text = prose(6000);
  const tokens: number[] = [];
  let pieces = 0;
  for await (const piece of documentPieces([text])) {
    tokens.push(...model.tokenizer.encode(piece));
    pieces += 1;
  }
  expect(pieces).toBeGreaterThan(5);
  expect(tokens).toEqual(model.tokenizer.encode(text));
});

test.each([["blocks.2.hook_resid_post"], ["blocks.1.attn.hook_z"]])(
  "harvested activations at %s are the model's, without those of special tokens",
  async (hook) => {
    const corpus = Corpus.fromDocuments([prose(150), prose(90)]);
    const cut = { contextSize: 16, prependBos: true };
    const harvest = new Harvest({
      model,
      hook,
      corpus,
      ...cut,
      excludeSpecialTokens: true,
      batchPrompts: 3,
      repeat: false,
    });
    const contexts = new Contexts(corpus, model.tokenizer, cut);
    for (let pass = await harvest.next(); pass !== undefined; pass = await harvest.next()) {
      const expected: number[] = [];
      for (let i = 0; i < 3; i++) {
        const context = await contexts.next();
        if (context === undefined) break;
        using alone = await model.activations([[...context]], hook);
        const data = await alone.readFloat32();
        for (const [position, id] of context.entries()) {
          if (model.tokenizer.specialTokenIds.has(id)) continue;
          expected.push(...data.slice(position * harvest.dIn, (position + 1) * harvest.dIn));
        }
      }
      using activations = pass.activations;
      const found = await activations.readFloat32();
      expect(pass.rows * harvest.dIn).toBe(expected.length);
      expect(found.length).toBe(expected.length);
      // A batch may sum in another order than a single sequence.
      const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0);
      expect(worst).toBeLessThan(1e-4);
    }
    expect(await contexts.next()).toBeUndefined();
  },
);

test("a buffer on a real model serves every batch the same after a resume", async () => {
  const options = {
    model,
    hook: "blocks.1.hook_resid_post",
    corpus: Corpus.fromDocuments([prose(400)]),
    ...{ contextSize: 32, prependBos: true, excludeSpecialTokens: true, bufferTokens: 500, seed: 3 },
  };
  using straight = await ActivationBuffer.create(options);
  (await straight.next(300)).dispose();
  const saved = await straight.saveState();
  using resumed = await ActivationBuffer.create(options);
  await resumed.restoreState(saved);
  for (const size of [100, 250, 600]) {
    using a = await straight.next(size);
    using b = await resumed.next(size);
    expect(await b.readFloat32()).toEqual(await a.readFloat32());
  }
});
