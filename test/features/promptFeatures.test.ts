import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Corpus } from "../../lib/activations/corpus.js";
import type { Device } from "../../lib/engine/device.js";
import { buildFeatureStore } from "../../lib/features/buildFeatureStore.js";
import { featureActivations } from "../../lib/features/featureActivations.js";
import { shareAtMost } from "../../lib/features/histogramShare.js";
import { promptFeatures } from "../../lib/features/promptFeatures.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
const text = "The king said that he was happy";

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, prependBos: true },
  });
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

test("activations on a text are those of the codes, token by token", async () => {
  const { tokens, texts, latents } = await featureActivations({ sae, model, text });
  expect(texts.join("")).toBe(text);
  using x = await model.activations([[model.config.bosTokenId!, ...tokens]], HOOK);
  using codes = sae.encode(x);
  using dense = device.kernels.densify(codes);
  const values = await dense.readFloat32();
  for (let latent = 0; latent < 64; latent++) {
    const expected = Float32Array.from(tokens, (_, index) => values[(index + 1) * 64 + latent]!);
    const found = latents.find((one) => one.latent === latent);
    if (found === undefined) expect(expected.some((value) => value !== 0)).toBe(false);
    else {
      expect(found.activations).toEqual(expected);
      expect(found.activation).toBe(Math.max(...expected));
      expect(found.peak).toBe(expected.indexOf(found.activation));
    }
  }
});

test("latents are ranked by activation, by quantile of a store, and by their effect on a target", async () => {
  const folder = await mkdtemp(join(tmpdir(), "prompt-features-"));
  const corpus = Corpus.fromDocuments(["She said that he was sad. The king and the queen went home. ".repeat(20)]);
  await using store = await buildFeatureStore(folder, {
    ...{ sae, model, corpus, contextSize: 32, prependBos: true, tokens: 400 },
  });
  const byActivation = await promptFeatures({ sae, model, text, ranking: { by: "activation" } });
  const strengths = byActivation.latents.map(({ activation }) => activation);
  expect(strengths).toEqual(strengths.toSorted((a, b) => b - a));
  expect(byActivation.latents.map(({ score }) => score)).toEqual(strengths);

  const byQuantile = await promptFeatures({ sae, model, text, ranking: { by: "quantile", store } });
  const scores = byQuantile.latents.map(({ score }) => score);
  expect(scores).toEqual(scores.toSorted((a, b) => b - a));
  expect(byQuantile.latents.map(({ latent }) => latent).sort()).toEqual(
    byActivation.latents.map(({ latent }) => latent).sort(),
  );
  for (const { latent, activation, score } of byQuantile.latents) {
    expect(score).toBe(shareAtMost((await store.latent(latent)).histogram, activation));
    if (activation > store.summary.maxActivations[latent]! * 2) expect(score).toBeOneOf([0, 1]);
  }

  const [target] = model.tokenizer.encode(" and");
  const byLogit = await promptFeatures({ sae, model, text, ranking: { by: "logit", target: target! } });
  const logits = byLogit.latents.map(({ score }) => score);
  expect(logits).toEqual(logits.toSorted((a, b) => b - a));
  await expect(promptFeatures({ sae, model, text, ranking: { by: "logit", target: 9999 } })).rejects.toThrow(
    /there is no token 9999/,
  );
  using other = Sae.create({ architecture: "topk", dIn: 192, dSae: 32, k: 8, applyBDecToInput: true }, device, 3, {
    metadata: { hookName: HOOK, prependBos: true },
  });
  await expect(promptFeatures({ sae: other, model, text, ranking: { by: "quantile", store } })).rejects.toThrow(
    /the store is of 64 latents, but the SAE has 32/,
  );
  using twin = Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 4, {
    metadata: { hookName: HOOK, prependBos: true },
  });
  const withTwin = { sae: twin, model, text, ranking: { by: "quantile", store } as const };
  await expect(promptFeatures(withTwin)).rejects.toThrow(/another SAE: .*allowMismatch/);
  expect((await promptFeatures({ ...withTwin, allowMismatch: true })).latents.length).toBeGreaterThan(0);
  await rm(folder, { recursive: true });
});

test.each(["none", "layer-norm", "constant-norm"] as const)(
  "the effect on a target is that of leaving the latent out, the final norm's scale kept (activations normalised: %s)",
  async (normalizeActivations) => {
    const config = {
      architecture: "topk",
      dIn: 192,
      dSae: 64,
      k: 8,
      applyBDecToInput: true,
      normalizeActivations,
    } as const;
    const hook = "blocks.3.hook_resid_post";
    using last = Sae.create(config, device, 5, { metadata: { hookName: hook, prependBos: true, contextSize: 6 } });
    const [target] = model.tokenizer.encode(" and");
    // Of two contexts, the first of which does not count.
    const found = await promptFeatures({ sae: last, model, text, ranking: { by: "logit", target: target! } });
    const { dModel, vocabularySize } = model.config;
    const ids = [model.config.bosTokenId!, ...found.tokens.slice(5)];
    expect(found.tokens.length).toBeGreaterThan(5);
    const end = ids.length - 1;
    using x = await model.activations([ids], hook);
    const residual = await x.readFloat32();
    using scales = await model.activations([ids], "ln_final.hook_scale");
    const scaleValues = await scales.readFloat32();
    const row = residual.subarray(end * dModel, (end + 1) * dModel);
    const mean = row.reduce((sum, value) => sum + value, 0) / dModel;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (dModel - 1); // as SAELens has it
    const decoderScale =
      normalizeActivations === "none"
        ? 1
        : normalizeActivations === "layer-norm"
          ? Math.sqrt(variance)
          : Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / dModel);
    const decoder = await last.parameters.decoder.readFloat32();
    const logitOver = async (changed: Float32Array): Promise<number> => {
      using replacement = device.tensor(changed, [1, ids.length, dModel]);
      using frozen = device.tensor(scaleValues, [1, ids.length, 1]);
      using logits = await model.forward([ids], {
        hooks: [
          { name: hook, hook: () => replacement.reshape(replacement.shape) },
          { name: "ln_final.hook_scale", hook: () => frozen.reshape(frozen.shape) },
        ],
      });
      const values = (await logits.readFloat32()).subarray(end * vocabularySize);
      return values[target!]! - values.reduce((sum, value) => sum + value, 0) / vocabularySize;
    };
    const whole = await logitOver(residual);
    const active = found.latents.filter(({ activations }) => activations.at(-1) !== 0);
    expect(active).toHaveLength(8);
    for (const { latent, activations, score } of active) {
      const without = Float32Array.from(residual);
      for (let i = 0; i < dModel; i++) {
        without[end * dModel + i]! -= activations.at(-1)! * decoderScale * decoder[latent * dModel + i]!;
      }
      expect(score).toBeCloseTo(whole - (await logitOver(without)), 4);
    }
  },
);

test("the share of a histogram below a value is exact at the edges of its bins, and even within them", () => {
  const histogram = { firstEdge: -1, binWidth: 1, counts: [2, 4, 0, 2] };
  expect([-2, -1, 0, 0.5, 1, 2, 2.5, 3, 9].map((value) => shareAtMost(histogram, value))).toEqual([
    0, 0, 0.25, 0.5, 0.75, 0.75, 0.875, 1, 1,
  ]);
  expect(shareAtMost({ firstEdge: 0, binWidth: 0, counts: [] }, 1)).toBe(0);
});
