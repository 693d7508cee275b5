import { afterAll, beforeAll, expect, test } from "vitest";
import { textFeatures } from "../../lib/analysis/textFeatures.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, openTinyModel } from "./tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(() => device.close());

test.each([true, false])(
  "the largest latents of every token of a text, with prependBos %s as in the training",
  async (prependBos) => {
    const metadata = { hookName: HOOK, prependBos };
    using sae = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
      metadata,
    });
    const text = "The king said";
    const found = await textFeatures({ sae, model, text, top: 3 });
    const ids = model.tokenizer.encode(text);
    expect(found.map(({ token }) => token)).toEqual(ids);
    expect(found.map((token) => token.text).join("")).toBe(text);
    using x = await model.activations([prependBos ? [model.config.bosTokenId!, ...ids] : ids], HOOK);
    using codes = sae.encode(x);
    const { rowOffsets, features, values } = await codes.read();
    found.forEach(({ latents }, index) => {
      const row = index + (prependBos ? 1 : 0);
      const entries = Array.from({ length: rowOffsets[row + 1]! - rowOffsets[row]! }, (_, i) => rowOffsets[row]! + i)
        .map((entry) => ({ latent: features[entry]!, value: values[entry]! }))
        .sort((a, b) => b.value - a.value);
      expect(latents).toEqual(entries.slice(0, 3));
    });
  },
);

test.each([
  [true, 4, 3],
  [false, 4, 4],
  [true, 1000, 255], // the model's own context
])(
  "a long text is read in contexts as in the training (prependBos %s, contextSize %i)",
  async (prependBos, contextSize, size) => {
    const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
    using sae = Sae.create(config, device, 3, { metadata: { hookName: HOOK, contextSize, prependBos } });
    const text = "The old man said that he would go home. ".repeat(contextSize > 100 ? 60 : 1);
    const ids = model.tokenizer.encode(text);
    expect(ids.length).toBeGreaterThan(2 * size);
    const found = await textFeatures({ sae, model, text, top: 8, allowMismatch: contextSize > 100 });
    expect(found.map(({ token }) => token)).toEqual(ids);
    expect(found.map((token) => token.text).join("")).toBe(text);
    for (let from = 0; from < ids.length; from += size) {
      const context = [...(prependBos ? [model.config.bosTokenId!] : []), ...ids.slice(from, from + size)];
      using x = await model.activations(context, HOOK);
      using codes = sae.encode(x);
      const dense = await device.kernels.densify(codes).readFloat32();
      for (const [index, { latents }] of found.slice(from, from + size).entries()) {
        const row = index + (prependBos ? 1 : 0);
        expect(latents).toHaveLength(dense.subarray(row * 64, (row + 1) * 64).filter((value) => value > 0).length);
        for (const { latent, value } of latents) expect(value).toBe(dense[row * 64 + latent]);
      }
    }
  },
);

test("a text without tokens is refused, and contexts in which only BOS would have room", async () => {
  using narrow = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, contextSize: 1, prependBos: true },
  });
  await expect(textFeatures({ sae: narrow, model, text: "one two" })).rejects.toMatchObject({
    code: "ERR_CONFIG",
    message: /contexts of 1 tokens, but one of 2 is given/,
  });
  const bare = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, prependBos: false },
  });
  await expect(textFeatures({ sae: bare, model, text: "" })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});
