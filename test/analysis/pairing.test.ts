import { afterAll, beforeAll, expect, test } from "vitest";
import { collectFeatures } from "../../lib/analysis/features.js";
import { evaluateInModel } from "../../lib/analysis/modelEvaluation.js";
import { processingOfSaes } from "../../lib/analysis/pairing.js";
import { hookForSae, hooksForSae } from "../../lib/analysis/saeHook.js";
import type { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae, type SaeMetadata } from "../../lib/sae/sae.js";
import { modelDirectory, openTinyModel } from "./tinyModel.js";

const HOOK = "blocks.2.hook_resid_post";
const WIDTH = 192;

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(() => device.close());

function saeWith(metadata: SaeMetadata, dIn: number = WIDTH): Sae {
  const config = { architecture: "topk" as const, dIn, dSae: 16, k: 4, applyBDecToInput: true };
  return Sae.create(config, device, 0, { metadata: { hookName: HOOK, ...metadata } });
}

const bos = (): number => model.config.bosTokenId!;
const context = (length: number, first: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i === 0 ? first : i + 5));

test.each<[SaeMetadata, RegExp]>([
  [{ modelName: "gpt2-small" }, /trained on model "gpt2-small", but the model given is "tiny-gpt2"/],
  [{ hookName: "blocks.1.hook_resid_post" }, /trained on hook point "blocks.1.*", but "blocks.2.* was asked for/],
  [
    { model_from_pretrained_kwargs: { center_writing_weights: true } },
    /with centerWritingWeights true, but "tiny-gpt2" was loaded with false: load it with \{ centerWritingWeights: true \}/,
  ],
  [{ contextSize: 1024 }, /contexts of 1024 tokens, but model "tiny-gpt2" reads 256 at most/],
])(
  "an SAE of %j is refused by a model that it does not belong to, naming both, unless that is allowed",
  (metadata, message) => {
    using sae = saeWith(metadata);
    expect(() => hookForSae(model, sae, HOOK)).toThrow(message);
    expect(() => hooksForSae(model, sae, HOOK)).toThrow(/--allow-mismatch/);
    expect(hookForSae(model, sae, HOOK, { allowMismatch: true })).toBe(HOOK);
  },
);

test("what does not change the activations at the hook point is no mismatch", () => {
  for (const flags of [
    { center_writing_weights: false },
    { fold_ln: true, center_unembed: true },
    { fold_value_biases: true },
    {},
    null,
  ]) {
    using sae = saeWith({
      modelName: "ours/Tiny-GPT2",
      model_from_pretrained_kwargs: flags,
      contextSize: 256,
      prependBos: true,
    });
    expect(hookForSae(model, sae)).toBe(HOOK);
  }
  using z = saeWith({ hookName: "blocks.1.attn.hook_z", model_from_pretrained_kwargs: { fold_value_biases: true } });
  expect(() => hookForSae(model, z)).toThrow(/foldValueBiases true/);
});

test("a model that is loaded for an SAE is processed as in its training", async () => {
  using sae = saeWith({ model_from_pretrained_kwargs: { center_writing_weights: true, fold_ln: false } });
  const processingFor = processingOfSaes([sae]);
  using loaded = await HookedTransformer.load(modelDirectory, device, { processingFor });
  expect(loaded.config.processing).toMatchObject({ centerWritingWeights: true, foldLn: false, foldValueBiases: false });
  expect(hookForSae(loaded, sae)).toBe(HOOK);
  using x = await loaded.activations([context(8, bos())], HOOK);
  const values = await x.readFloat32();
  for (let row = 0; row < 8; row++) {
    const mean = values.subarray(row * WIDTH, (row + 1) * WIDTH).reduce((sum, value) => sum + value, 0) / WIDTH;
    expect(mean).toBeCloseTo(0, 4);
  }
  // RMSNorm keeps the mean, and TransformerLens leaves such models alone
  expect(processingFor({ ...model.config, normalization: "rms" })).toEqual({});
  expect(processingOfSaes([])(model.config)).toEqual({});
});

test("another width is refused even so", () => {
  using sae = saeWith({}, 8);
  expect(() => hookForSae(model, sae, HOOK, { allowMismatch: true })).toThrow(/is 192 wide, but the SAE reads 8/);
});

test.each<[string, SaeMetadata, () => Int32Array[], RegExp]>([
  ["longer contexts", { contextSize: 16 }, () => [context(17, bos())], /contexts of 16 tokens, but one of 17 is given/],
  [
    "contexts without BOS",
    { prependBos: true },
    () => [context(8, bos()), context(8, 7)],
    /that begin with BOS \(prependBos\)/,
  ],
  [
    "contexts with BOS",
    { prependBos: false },
    () => [context(8, bos())],
    /without BOS .* all that are given begin with it/,
  ],
])("%s than those of the training are refused unless that is allowed", async (_, metadata, contexts, message) => {
  using sae = saeWith(metadata);
  const options = { sae, model, contexts: contexts() };
  await expect(collectFeatures(options)).rejects.toThrow(message);
  await expect(evaluateInModel(options)).rejects.toThrow(message);
  expect((await collectFeatures({ ...options, allowMismatch: true })).metrics.l0).toBeGreaterThan(0);
});

test("shorter contexts are fine, and one of several may begin with a BOS of its own", async () => {
  using sae = saeWith({ contextSize: 64, prependBos: false });
  const { statistics } = await collectFeatures({ sae, model, contexts: [context(8, bos()), context(8, 7)] });
  expect(statistics.contexts).toBe(2);
});
