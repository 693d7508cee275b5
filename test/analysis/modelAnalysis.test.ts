import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { collectFeatures } from "../../lib/analysis/features.js";
import { hasLogitEffects, logitEffects } from "../../lib/analysis/logitEffects.js";
import { hookForSae, hooksForSae } from "../../lib/analysis/saeHook.js";
import type { Device } from "../../lib/engine/device.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, modelDirectory, openTinyModel, tinyContexts } from "./tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

test("features of text are those of the activations, token by token, without special tokens", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK, modelName: "tiny-gpt2" });
  const contexts = tinyContexts(model);
  const { statistics, metrics } = await collectFeatures({ sae, model, contexts, contextsPerBatch: 3 });
  using activations = await model.activations(contexts, HOOK);
  const rows = await activations.readFloat32();
  const counted = Array.from({ length: 48 }, (_, row) => row).filter((row) => row % 12 !== 0);
  expect(statistics.tokens).toBe(44);
  for (const latent of [0, 7, 191, 192, 383]) {
    const sign = latent < 192 ? 1 : -1;
    const values = counted.map((row) => Math.max(0, sign * rows[row * 192 + (latent % 192)]!));
    expect(statistics.firingCounts[latent]).toBe(values.filter((value) => value > 0).length);
    expect(statistics.maxActivations[latent]).toBeCloseTo(Math.max(...values), 5);
    const [best] = statistics.examples(latent);
    if (best !== undefined) expect(best.tokens[best.peak]).toBe(contexts[best.context]![best.position]);
  }
  expect(statistics.l0).toBeCloseTo(192, 6);
  expect(metrics.l0).toBeCloseTo(statistics.l0, 6);
  expect(metrics.tokens).toBe(44);
  expect(metrics.explainedVariance).toBeCloseTo(1, 6);
  const all = await collectFeatures({ sae, model, contexts, excludeSpecialTokens: false });
  expect(all.statistics.tokens).toBe(48);
});

test("a transcoder is measured against what it writes, a crosscoder over all of its hook points", async () => {
  const contexts = tinyContexts(model);
  const [before, after] = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"]; // the same activations
  using plain = exactSae(device, 192);
  const transcoder = { ...plain.config, transcoder: true };
  for (const [hookNameOut, explained] of [
    [after, 1],
    ["blocks.2.hook_mlp_out", undefined],
  ] as const) {
    const sae = new Sae(transcoder, plain.parameters, device, { hookName: before, hookNameOut });
    const { metrics } = await collectFeatures({ sae, model, contexts });
    if (explained === 1) expect(metrics.explainedVariance).toBeCloseTo(1, 6);
    else expect(metrics.explainedVariance).toBeLessThan(0.5);
  }
  using both = exactSae(device, 384, { hookNames: [before, "blocks.3.hook_resid_post"] });
  const { metrics } = await collectFeatures({ sae: both, model, contexts });
  expect(metrics.explainedVariance).toBeCloseTo(1, 6);
  expect(hasLogitEffects(model, both)).toBe(false);
  const reader = new Sae(transcoder, plain.parameters, device, {
    hookName: "blocks.1.attn.hook_z",
    hookNameOut: after,
  });
  expect(hasLogitEffects(model, reader)).toBe(true);
});

test("logit effects are decoder direction times unembedding, centred and weighted as the last LayerNorm does", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const latents = [5, 200];
  const effects = await logitEffects({ sae, model, latents, count: 3 });
  expect(effects.map(({ latent }) => latent)).toEqual(latents);
  await using file = await SafetensorsFile.open(join(modelDirectory, "model.safetensors"));
  const unembedding = await file.readFloat32("transformer.wte.weight");
  const weight = await file.readFloat32("transformer.ln_f.weight");
  const decoder = await sae.parameters.decoder.readFloat32();
  latents.forEach((latent, index) => {
    const row = decoder.subarray(latent * 192, (latent + 1) * 192);
    const mean = row.reduce((sum, value) => sum + value, 0) / 192;
    const logits = Array.from({ length: 2048 }, (_, token) =>
      row.reduce((sum, value, i) => sum + (value - mean) * weight[i]! * unembedding[token * 192 + i]!, 0),
    );
    const meanLogit = logits.reduce((sum, logit) => sum + logit, 0) / 2048;
    const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!);
    const { raised, lowered } = effects[index]!;
    expect(raised.map(({ token }) => token)).toEqual(order.slice(0, 3));
    expect(lowered.map(({ token }) => token)).toEqual(order.slice(-3).reverse());
    for (const { token, effect } of [...raised, ...lowered]) expect(effect).toBeCloseTo(logits[token]! - meanLogit, 4);
  });
});

test("latents outside of the residual stream, and latents that do not exist, have no logit effects", async () => {
  using sae = exactSae(device, 192);
  expect(hasLogitEffects(model, sae, HOOK)).toBe(true);
  expect(hasLogitEffects(model, sae, "blocks.0.attn.hook_z")).toBe(false);
  const refused = logitEffects({ sae, model, hook: "blocks.0.attn.hook_z", latents: [0] });
  await expect(refused).rejects.toMatchObject({ code: "ERR_UNSUPPORTED" });
  await expect(logitEffects({ sae, model, hook: HOOK, latents: [384] })).rejects.toThrow(/no latent 384.* has 384/);
});

test("an SAE of another model, hook point or width is refused by name", () => {
  using sae = exactSae(device, 192, { hookName: HOOK, modelName: "gpt2" });
  expect(() => hookForSae(model, sae)).toThrow(/trained on model "gpt2", but the model given is "tiny-gpt2"/);
  using elsewhere = exactSae(device, 192, { hookName: "blocks.1.hook_resid_post", modelName: "ours/tiny-gpt2" });
  expect(hookForSae(model, elsewhere)).toBe("blocks.1.hook_resid_post");
  expect(() => hookForSae(model, elsewhere, HOOK)).toThrow(/trained on hook point "blocks.1.*but "blocks.2/);
  using narrow = exactSae(device, 8, { hookName: HOOK });
  expect(() => hookForSae(model, narrow)).toThrow(/is 192 wide, but the SAE reads 8/);
  using nameless = exactSae(device, 192);
  expect(() => hookForSae(model, nameless)).toThrow(/does not say which hook point/);
  expect(() => hookForSae(model, nameless, "blocks.9.hook_resid_post")).toThrow(/blocks.9.hook_resid_post/);
});

test("a crosscoder's hook points are those of its folder, or all that are named", () => {
  const hooks = ["blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"];
  const crosscoder = (metadata: object, hookWidths: readonly number[] = [192, 768]): Sae => {
    const created = Sae.create(
      { architecture: "topk", dIn: 960, dSae: 8, k: 2, hookWidths, applyBDecToInput: false },
      device,
      0,
      { metadata: { modelName: "tiny-gpt2", ...metadata } },
    );
    return created;
  };
  using named = crosscoder({ hookNames: hooks });
  using nameless = crosscoder({});
  expect(hooksForSae(model, named)).toEqual({ input: hooks, output: hooks });
  expect(hooksForSae(model, named, hooks)).toEqual({ input: hooks, output: hooks });
  expect(hooksForSae(model, nameless, hooks)).toEqual({ input: hooks, output: hooks });
  expect(() => hooksForSae(model, named, hooks.toReversed())).toThrow(
    /trained on hook points ".*its folder names them/,
  );
  expect(() => hooksForSae(model, named, hooks[0]!)).toThrow(/"blocks.1.hook_resid_post" was asked for/);
  expect(() => hooksForSae(model, nameless)).toThrow(/name all 2, in order/);
  using turned = crosscoder({ hookNames: hooks }, [768, 192]);
  expect(() => hooksForSae(model, turned)).toThrow(
    /"blocks.1.hook_resid_post".*is 192 wide, but the crosscoder reads 768/,
  );
  using plain = exactSae(device, 192);
  expect(() => hooksForSae(model, plain, hooks)).toThrow(/reads one hook point, but ".*" and ".*" were named/);
});

test("an aborted analysis ends with ERR_ABORTED, and a corpus of nothing with ERR_CONFIG", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const signal = AbortSignal.abort();
  const aborted = { sae, model, contexts: tinyContexts(model), signal };
  await expect(collectFeatures(aborted)).rejects.toMatchObject({ code: "ERR_ABORTED" });
  await expect(collectFeatures({ sae, model, contexts: [] })).rejects.toMatchObject({ code: "ERR_CONFIG" });
});
