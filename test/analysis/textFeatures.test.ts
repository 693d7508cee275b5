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

test("a text longer than the contexts of the training is refused, one without tokens, too", async () => {
  const metadata = { hookName: HOOK, contextSize: 4 };
  using sae = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
    metadata,
  });
  await expect(textFeatures({ sae, model, text: "one two three four five six" })).rejects.toMatchObject({
    code: "ERR_CONFIG",
    message: /contexts of 4 tokens/,
  });
  const bare = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, prependBos: false },
  });
  await expect(textFeatures({ sae: bare, model, text: "" })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});
