import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { evaluateAllInModel, evaluateInModel } from "../../lib/analysis/modelEvaluation.js";
import { spliceHook } from "../../lib/analysis/spliceHook.js";
import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { dictionaryGeometry } from "../../lib/sae/dictionaryGeometry.js";
import type { Evaluation } from "../../lib/sae/evaluation.js";
import { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, openTinyModel, tinyContexts } from "./tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const positions = 12;
const special = 0;

/** The model's own per-token losses, mean over the positions that count: not the first, which holds BOS, not the last. */
async function meanLoss(hooks: Parameters<HookedTransformer["loss"]>[1] = {}, first = 1): Promise<number> {
  const contexts = tinyContexts(model);
  const losses = await (await model.loss(contexts, hooks)).readFloat32();
  const counted = losses.filter((_, row) => row % positions >= first && row % positions < positions - 1);
  return counted.reduce((sum, loss) => sum + loss, 0) / counted.length;
}

/** Replaces the activations of all tokens but the special ones. */
function replacing(value: (column: number) => number) {
  const specials = tinyContexts(model).flatMap((tokens) => [...tokens].map((token) => token === special));
  return {
    name: HOOK,
    hook: async (activation: { readFloat32(): Promise<Float32Array>; readonly shape: readonly number[] }) => {
      const values = await activation.readFloat32();
      return device.tensor(
        values.map((old, i) => (specials[Math.floor(i / 192)] ? old : value(i % 192))),
        activation.shape,
      );
    },
  };
}

type GoldenMetrics = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** What SAELens itself gives for this SAE; see test/fixtures/metrics/make_goldens.py. */
function goldens() {
  const folder = new URL("../fixtures/metrics/", import.meta.url);
  const { tokens, ...rest } = JSON.parse(readFileSync(new URL("goldens.json", folder), "utf8")) as {
    readonly tokens: readonly (readonly number[])[];
    readonly metrics: GoldenMetrics;
    readonly metrics_with_special_tokens: GoldenMetrics;
    readonly explained_variance_legacy_in_batches_of_3: number;
    readonly latents: Readonly<Record<string, readonly (number | null)[]>>;
  };
  const contexts = tokens.map((row) => Int32Array.from(row));
  return { ...rest, contexts, sae: () => Sae.load(fileURLToPath(new URL("sae", folder)), device) };
}

function expectReconstructionOf(found: Evaluation, expected: GoldenMetrics): void {
  const { reconstruction_quality: quality, shrinkage, sparsity } = expected;
  for (const [name, value, golden] of [
    ["explained variance", found.explainedVariance, quality!.explained_variance],
    ["legacy", found.explainedVarianceLegacy, quality!.explained_variance_legacy],
    ["mse", found.mse, quality!.mse],
    ["cosine", found.cosine, quality!.cossim],
    ["norm in", found.targetNorm, shrinkage!.l2_norm_in],
    ["norm out", found.reconstructionNorm, shrinkage!.l2_norm_out],
    ["l2 ratio", found.l2Ratio, shrinkage!.l2_ratio],
    ["bias", found.relativeReconstructionBias, shrinkage!.relative_reconstruction_bias],
    ["l0", found.l0, sparsity!.l0],
    ["l1", found.l1, sparsity!.l1],
  ] as const) {
    expect(value! / golden!, name).toBeCloseTo(1, 4);
  }
}

test("all metrics agree with SAELens' run_evals when special tokens are treated as all others", async () => {
  const { contexts, metrics_with_special_tokens: expected, sae: load } = goldens();
  using sae = await load();
  const found = await evaluateInModel({ sae, model, contexts, keepSpecialTokens: false });
  const { model_behavior_preservation: behaviour, model_performance_preservation: performance } = expected;
  for (const [name, value, golden] of [
    ["kl score", found.klScore, behaviour!.kl_div_score],
    ["kl zero", found.klZero, behaviour!.kl_div_with_ablation],
    ["kl sae", found.klDivergence, behaviour!.kl_div_with_sae],
    ["ce score", found.lossRecovered, performance!.ce_loss_score],
    ["ce zero", found.ceZero, performance!.ce_loss_with_ablation],
    ["ce sae", found.ceSae, performance!.ce_loss_with_sae],
    ["ce clean", found.ceClean, performance!.ce_loss_without_sae],
  ] as const) {
    expect(value / golden!, name).toBeCloseTo(1, 4);
  }
  expectReconstructionOf(found.reconstruction, expected);
});

test("without special tokens they agree as well, but for ablations, which leave those tokens alone too", async () => {
  const { contexts, metrics, sae: load } = goldens();
  using sae = await load();
  const found = await evaluateInModel({ sae, model, contexts });
  const { mean_ablation: mean, zero_ablation: zero } = metrics;
  const { ceClean, ceSae, klDivergence } = found;
  for (const [name, value, golden] of [
    ["ce clean", ceClean, metrics.model_performance_preservation!.ce_loss_without_sae],
    ["ce sae", ceSae, metrics.model_performance_preservation!.ce_loss_with_sae],
    ["kl sae", klDivergence, metrics.model_behavior_preservation!.kl_div_with_sae],
    ["ce zero", found.ceZero, zero!.ce_loss],
    ["kl zero", found.klZero, zero!.kl_div],
    ["ce mean", found.ceMean, mean!.ce_loss],
    ["kl mean", found.klMean, mean!.kl_div],
    ["ce score", found.lossRecovered, (zero!.ce_loss! - ceSae) / (zero!.ce_loss! - ceClean)],
    ["ce score from mean", found.lossRecoveredFromMean, (mean!.ce_loss! - ceSae) / (mean!.ce_loss! - ceClean)],
    ["kl score", found.klScore, 1 - klDivergence / zero!.kl_div!],
    ["kl score from mean", found.klScoreFromMean, 1 - klDivergence / mean!.kl_div!],
  ] as const) {
    expect(value / golden!, name).toBeCloseTo(1, 4);
  }
  expectReconstructionOf(found.reconstruction, metrics);
  // SAELens zeroes BOS too, which the model cannot do without.
  expect(metrics.model_performance_preservation!.ce_loss_with_ablation).toBeGreaterThan(found.ceZero + 0.1);
});

test("each latent's numbers, and their means, agree with SAELens and SAEBench", async () => {
  const { contexts, metrics, latents, sae: load } = goldens();
  using sae = await load();
  const { reconstruction } = await evaluateInModel({ sae, model, contexts });
  const geometry = await dictionaryGeometry(sae);
  const { density, consistency } = reconstruction.latents;
  for (const [name, found] of Object.entries({
    feature_density: density,
    consistent_activation_heuristic: consistency!,
    encoder_norm: geometry.encoderNorm,
    encoder_bias: geometry.encoderBias,
    encoder_decoder_cosine_sim: geometry.encoderDecoderCosine!,
    max_decoder_cosine_sim: geometry.maxDecoderCosine,
    max_encoder_cosine_sim: geometry.maxEncoderCosine,
  })) {
    expect(found, name).toHaveLength(48);
    latents[name]!.forEach((expected, latent) => {
      if (expected === null) expect(found[latent], name).toBeNaN();
      else expect(found[latent], `${name} of latent ${latent}`).toBeCloseTo(expected, 5);
    });
  }
  expect(1 - reconstruction.deadFraction).toBeCloseTo(metrics.misc_metrics!.frac_alive!, 12);
});

test("only the legacy explained variance depends on how contexts are batched, and agrees with SAELens in each", async () => {
  const { contexts, explained_variance_legacy_in_batches_of_3: legacy, sae: load } = goldens();
  using sae = await load();
  const [whole, threes] = [
    await evaluateInModel({ sae, model, contexts }),
    await evaluateInModel({ sae, model, contexts, contextsPerBatch: 3 }),
  ];
  expect(threes.reconstruction.explainedVarianceLegacy).toBeCloseTo(legacy, 4);
  expect(threes.lossRecovered).toBeCloseTo(whole.lossRecovered, 5);
  expect(threes.klScoreFromMean).toBeCloseTo(whole.klScoreFromMean, 5);
  expect(threes.reconstruction.latents).toEqual(whole.reconstruction.latents);
  expect(threes.reconstruction.explainedVariance).toBeCloseTo(whole.reconstruction.explainedVariance, 6);
});

test("several SAEs at once get what each gets alone", async () => {
  const { contexts, sae: load } = goldens();
  using sae = await load();
  using exact = exactSae(device, 192, { hookName: HOOK });
  using elsewhere = exactSae(device, 192, { hookName: "blocks.1.hook_resid_post" }, 0.9);
  const saes = [sae, exact, elsewhere];
  const together = await evaluateAllInModel({ saes, model, contexts });
  for (const [index, one] of saes.entries()) {
    expect(together[index]).toEqual(await evaluateInModel({ sae: one, model, contexts }));
  }
  expect(await evaluateAllInModel({ saes: [], model, contexts })).toEqual([]);
});

test("an SAE that reconstructs exactly recovers the whole loss", async () => {
  using sae = exactSae(device, 192);
  const progress: object[] = [];
  const evaluation = await evaluateInModel({
    sae,
    model,
    hook: HOOK,
    contexts: tinyContexts(model),
    contextsPerBatch: 3,
    onProgress: (done) => progress.push(done),
  });
  expect(evaluation.ceClean).toBeCloseTo(await meanLoss(), 5);
  expect(evaluation.ceSae).toBeCloseTo(evaluation.ceClean, 4);
  expect(evaluation.ceZero).toBeGreaterThan(evaluation.ceClean + 1);
  expect(evaluation).toMatchObject({ tokens: 4 * 10, contexts: 4, reconstruction: { tokens: 4 * 11 } });
  for (const name of ["lossRecovered", "lossRecoveredFromMean", "klScore", "klScoreFromMean"] as const) {
    expect(evaluation[name], name).toBeCloseTo(1, 4);
  }
  expect(evaluation.klDivergence).toBeCloseTo(0, 5);
  expect(evaluation.reconstruction.explainedVariance).toBeCloseTo(1, 6);
  expect(progress).toEqual([
    { stage: "means", contexts: 3, tokens: 33 },
    { stage: "means", contexts: 4, tokens: 44 },
    { stage: "losses", contexts: 3, tokens: 33 },
    { stage: "losses", contexts: 4, tokens: 44 },
  ]);
});

test("an SAE that reconstructs nothing recovers nothing, and costs what zeros cost", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK }, 0);
  for (const keepSpecialTokens of [true, false]) {
    const contexts = tinyContexts(model);
    const evaluation = await evaluateInModel({ sae, model, contexts, keepSpecialTokens });
    expect(evaluation.lossRecovered).toBeCloseTo(0, 6);
    expect(evaluation.klScore).toBeCloseTo(0, 6);
    expect(evaluation.ceSae).toBeCloseTo(evaluation.ceZero, 5);
    expect(evaluation.klDivergence).toBeGreaterThan(0.5);
    expect(evaluation.reconstruction.relativeReconstructionBias).toBeNull();
  }
});

test("zeros and means at the hook point are what a hook gives that returns them, and special tokens stay clean only if asked", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK }, 0);
  const contexts = tinyContexts(model);
  const zeros = {
    hooks: [{ name: HOOK, hook: (activation: { shape: readonly number[] }) => device.zeros(activation.shape) }],
  };
  const all = await evaluateInModel({ sae, model, contexts, keepSpecialTokens: false });
  expect(all.ceZero).toBeCloseTo(await meanLoss(zeros, 0), 4);
  expect(all.tokens).toBe(4 * 11);

  const kept = await evaluateInModel({ sae, model, contexts });
  expect(kept.ceZero).toBeCloseTo(await meanLoss({ hooks: [replacing(() => 0)] }), 4);
  const activations = await (await model.activations(contexts, HOOK)).readFloat32();
  const mean = Array.from({ length: 192 }, (_, column) => {
    const counted = activations.filter((_, i) => i % 192 === column && Math.floor(i / 192) % positions !== 0);
    return counted.reduce((sum, value) => sum + value, 0) / counted.length;
  });
  expect(kept.ceMean).toBeCloseTo(await meanLoss({ hooks: [replacing((column) => mean[column]!)] }), 4);
  expect(Math.abs(kept.ceZero - all.ceZero)).toBeGreaterThan(1e-3);
});

test("a hook point with heads is spliced as well", async () => {
  const hook = "blocks.1.attn.hook_z";
  using sae = exactSae(device, 192);
  const loss = await meanLoss({ hooks: [{ name: hook, hook: spliceHook(sae) }] });
  expect(loss).toBeCloseTo(await meanLoss(), 4);
  expect((await evaluateInModel({ sae, model, hook, contexts: tinyContexts(model) })).lossRecovered).toBeCloseTo(1, 3);
});

test("a transcoder is spliced in where it writes, a crosscoder at all of its hook points", async () => {
  const [before, after] = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"]; // the same activations
  using plain = exactSae(device, 192);
  const written = { ...plain.config, transcoder: true };
  const transcoder = new Sae(written, plain.parameters, device, { hookName: before, hookNameOut: after });
  using both = exactSae(device, 384, { hookNames: [before, "blocks.3.hook_resid_post"] });
  const contexts = tinyContexts(model);
  const [through, across] = await evaluateAllInModel({ saes: [transcoder, both], model, contexts });
  for (const evaluation of [through!, across!]) {
    expect(evaluation.lossRecovered).toBeCloseTo(1, 4);
    expect(evaluation.klScoreFromMean).toBeCloseTo(1, 4);
    expect(evaluation.reconstruction.explainedVariance).toBeCloseTo(1, 6);
  }
  expect(through).not.toHaveProperty("explainedVariancePerHook");
  expect(across!.explainedVariancePerHook).toEqual(
    [before, "blocks.3.hook_resid_post"].map((hook) => ({ hook, explainedVariance: expect.closeTo(1, 6) })),
  );
  using half = exactSae(device, 192, {}, 0.5);
  const halved = new Sae(written, half.parameters, device, { hookName: before, hookNameOut: after });
  const scaled = (scale: number) => (activation: Tensor) => device.kernels.scale(activation, scale);
  const found = await evaluateInModel({ sae: halved, model, contexts, keepSpecialTokens: false });
  expect(found.ceSae).toBeCloseTo(await meanLoss({ hooks: [{ name: after, hook: scaled(0.5) }] }, 0), 4);

  const elsewhere = new Sae(written, plain.parameters, device, { hookName: before });
  await expect(evaluateInModel({ sae: elsewhere, model, contexts })).rejects.toThrow(/which hook point's activations/);
  const tooNarrow = new Sae(written, plain.parameters, device, {
    hookName: before,
    hookNameOut: "blocks.1.mlp.hook_post",
  });
  await expect(evaluateInModel({ sae: tooNarrow, model, contexts })).rejects.toThrow(/768 wide.*writes 192/);
});

test("an aborted evaluation ends with ERR_ABORTED; contexts of nothing, of one token, of special tokens with ERR_CONFIG", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const evaluation = (contexts: Int32Array[], signal?: AbortSignal) =>
    evaluateInModel({ sae, model, contexts, ...(signal === undefined ? {} : { signal }) });
  await expect(evaluation(tinyContexts(model), AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" });
  await expect(evaluation([])).rejects.toMatchObject({ code: "ERR_CONFIG" });
  await expect(evaluation([Int32Array.of(5)])).rejects.toThrow(/at least 2 tokens/);
  await expect(evaluation([Int32Array.of(0, 0, 0)])).rejects.toThrow(/nothing but special tokens/);
});
