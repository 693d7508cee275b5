import { describe, expect, test } from "vitest";
import { coreEvaluation, densityShares, type EvaluatedSae } from "../../lib/analysis/coreEvaluation.js";
import { evaluationText } from "../../lib/analysis/evaluationText.js";
import { problems } from "../evaluation/saebench.js";

/** An SAE of three latents, of which the last never fires. */
const sae: EvaluatedSae = {
  name: "runs/first",
  architecture: "topk",
  cfg: { d_in: 4, architecture: "topk" },
  reconstruction: {
    tokens: 200,
    l0: 0.62,
    l1: 3,
    mse: 12,
    fvu: 0.25,
    explainedVariance: 0.75,
    explainedVarianceLegacy: 0.7,
    cosine: 0.8,
    targetNorm: 7,
    reconstructionNorm: 6,
    l2Ratio: 0.9,
    relativeReconstructionBias: null,
    consistency: 2.5,
    deadFraction: 1 / 3,
    densityHistogram: { never: 1, log10Edges: [-1, -0.5, 0], counts: [1, 1] },
    latents: { density: Float64Array.of(0.6, 0.02, 0), consistency: Float64Array.of(4, 1, Number.NaN) },
  },
  geometry: {
    maxDecoderCosine: Float64Array.of(0.5, 0.5, 0.25),
    maxEncoderCosine: Float64Array.of(0.1, 0.2, 0.2),
    encoderDecoderCosine: Float64Array.of(1, 0.5, 0),
    encoderNorm: Float64Array.of(1, 2, 3),
    decoderNorm: Float64Array.of(1, 1, 4),
    encoderBias: Float64Array.of(0, -1 / 3, 0),
  },
};
const inModel = {
  ceClean: 3,
  ceSae: 4,
  ceZero: 8,
  ceMean: 5,
  lossRecovered: 0.8,
  lossRecoveredFromMean: 0.5,
  klDivergence: 0.5,
  klZero: 4,
  klMean: 1,
  klScore: 0.875,
  klScoreFromMean: 0.5,
  tokens: 190,
  contexts: 10,
  reconstruction: sae.reconstruction,
};
const setting = {
  id: "0000",
  time: new Date(1_700_000_000_000),
  madeBy: "monosem 1.2.3",
  dataset: "a.txt b.txt",
  contextsPerBatch: 8,
};

describe("SAEBench's form", () => {
  test("has every key that its schema requires, with the numbers that the names say", () => {
    const result = coreEvaluation({ ...sae, inModel, modelName: "gpt2", contextSize: 20 }, setting);
    expect(result).toMatchObject({
      eval_type_id: "core",
      eval_config: {
        model_name: "gpt2",
        context_size: 20,
        batch_size_prompts: 8,
        n_eval_reconstruction_batches: 2,
        dataset: "a.txt b.txt",
      },
      eval_id: "0000",
      datetime_epoch_millis: 1_700_000_000_000,
      sae_bench_commit_hash: "none: made by monosem 1.2.3",
      sae_lens_id: "custom_sae",
      sae_lens_release_id: "runs/first",
      sae_lens_version: null,
      sae_cfg_dict: { d_in: 4, architecture: "topk" },
    });
    expect(result.eval_result_metrics).toEqual({
      model_behavior_preservation: { kl_div_score: 0.875, kl_div_with_ablation: 4, kl_div_with_sae: 0.5 },
      model_performance_preservation: {
        ce_loss_score: 0.8,
        ce_loss_with_ablation: 8,
        ce_loss_with_sae: 4,
        ce_loss_without_sae: 3,
      },
      reconstruction_quality: { explained_variance: 0.75, explained_variance_legacy: 0.7, mse: 12, cossim: 0.8 },
      // -1 is what SAEBench writes for NaN
      shrinkage: { l2_norm_in: 7, l2_norm_out: 6, l2_ratio: 0.9, relative_reconstruction_bias: -1 },
      sparsity: { l0: 0.62, l1: 3 },
      token_stats: { total_tokens_eval_reconstruction: 190, total_tokens_eval_sparsity_variance: 200 },
      misc_metrics: {
        freq_over_1_percent: 2 / 3,
        freq_over_10_percent: 1 / 3,
        normalized_freq_over_1_percent: 1,
        normalized_freq_over_10_percent: 0.6 / 0.62,
        average_max_encoder_cosine_sim: expect.closeTo(0.5 / 3, 12),
        average_max_decoder_cosine_sim: expect.closeTo(1.25 / 3, 12),
        frac_alive: expect.closeTo(2 / 3, 12),
      },
    });
    expect(result.eval_result_details).toEqual([
      detail(0, [0.6, 4, 0, 1, 1, 0.5, 0.1]),
      detail(1, [0.02, 1, -0.3333333333, 2, 0.5, 0.5, 0.2]),
      detail(2, [0, -1, 0, 3, 0, 0.25, 0.2]),
    ]);
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
    expect(problems("core", result)).toBeNull();
  });

  test("a transcoder's, too, is valid by the schema: what has no cosine is -1", () => {
    const geometry = { ...sae.geometry, encoderDecoderCosine: undefined };
    const result = coreEvaluation({ ...sae, geometry, inModel, modelName: "gpt2", contextSize: 20 }, setting);
    expect(problems("core", result)).toBeNull();
    expect(result.eval_result_details).toMatchObject(new Array(3).fill({ encoder_decoder_cosine_sim: -1 }));
  });

  test("leaves out what was not measured", () => {
    const { reconstruction, geometry } = sae;
    const stored = coreEvaluation(
      {
        ...sae,
        reconstruction: {
          ...reconstruction,
          latents: { density: reconstruction.latents.density, consistency: undefined },
        },
        geometry: { ...geometry, encoderDecoderCosine: undefined },
      },
      setting,
    );
    const metrics = stored.eval_result_metrics as object;
    expect(Object.keys(metrics)).toEqual([
      "reconstruction_quality",
      "shrinkage",
      "sparsity",
      "token_stats",
      "misc_metrics",
    ]);
    expect(metrics).toMatchObject({ token_stats: { total_tokens_eval_sparsity_variance: 200 } });
    expect(Object.keys((stored.eval_result_details as object[])[0]!)).toEqual([
      "index",
      "feature_density",
      "encoder_bias",
      "encoder_norm",
      "encoder_decoder_cosine_sim",
      "max_decoder_cosine_sim",
      "max_encoder_cosine_sim",
    ]);
    expect(stored.eval_config).toMatchObject({ compute_kl: false, compute_ce_loss: false });
  });

  test("is followed by what it has no place for", () => {
    const { monosem } = coreEvaluation({ ...sae, inModel }, setting) as { monosem: Record<string, unknown> };
    expect(monosem).toMatchObject({
      madeBy: "monosem 1.2.3",
      tokens: 200,
      predictedTokens: 190,
      fvu: 0.25,
      relativeReconstructionBias: null,
      ceMean: 5,
      lossRecoveredFromMean: 0.5,
      klScoreFromMean: 0.5,
      consistency: 2.5,
      densityHistogram: { never: 1, counts: [1, 1] },
      dictionary: { maxDecoderCosine: 0.5, meanMaxDecoderCosine: expect.closeTo(1.25 / 3, 12), meanDecoderNorm: 2 },
      latents: { log10Density: [expect.closeTo(Math.log10(0.6), 9), expect.closeTo(Math.log10(0.02), 9), null] },
    });
  });
});

test("no latent that fires has no share of nothing", () => {
  expect(densityShares(new Float64Array(4))).toEqual({
    freq_over_1_percent: 0,
    freq_over_10_percent: 0,
    normalized_freq_over_1_percent: 0,
    normalized_freq_over_10_percent: 0,
  });
});

test("the text names every number and says what it means; without a model it leaves the model out", () => {
  const text = evaluationText({ ...sae, inModel });
  for (const line of [
    "  loss recovered        80.00%  cross-entropy 3 untouched, 4 with the SAE, 8 with zeros",
    "  from the mean         50.00%  5 with the mean activation",
    "  explained variance    75.00%  of the activations, by the reconstructions",
    "  relative bias           none  of the reconstructions' scale; 1 is none",
    "  alive                 66.67%  of 3 latents fire on these tokens",
    "  density                   ██  latents by density, from 2% (the rarest that fires) to 60% of the tokens",
    "in the model (cross-entropies over 190 tokens: the last of a context predicts none)",
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  expect(evaluationText(sae)).toMatch(/^reconstruction\n/);
  expect(evaluationText(sae)).not.toContain("consistency");
});

test("of a crosscoder, each hook's explained variance is told; of any SAE what it was trained as, and where", () => {
  const hooks = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"];
  const crosscoder: EvaluatedSae = {
    ...sae,
    architecture: "batchtopk",
    hooks: { input: hooks, output: hooks },
    explainedVariancePerHook: [
      { hook: hooks[0]!, explainedVariance: 0.5 },
      { hook: hooks[1]!, explainedVariance: null },
    ],
  };
  const text = evaluationText(crosscoder).split("\n");
  expect(text).toContain("  of one hook           50.00%  blocks.1.hook_resid_post");
  expect(text).toContain("  of one hook             none  blocks.2.hook_resid_post");
  const { monosem } = coreEvaluation(crosscoder, setting);
  expect(monosem).toMatchObject({
    architecture: "batchtopk",
    hooks: { input: hooks, output: hooks },
    explainedVariancePerHook: [
      { hook: hooks[0], explainedVariance: 0.5 },
      { hook: hooks[1], explainedVariance: null },
    ],
  });
});

function detail(index: number, values: readonly number[]): object {
  const names = [
    "feature_density",
    "consistent_activation_heuristic",
    "encoder_bias",
    "encoder_norm",
    "encoder_decoder_cosine_sim",
    "max_decoder_cosine_sim",
    "max_encoder_cosine_sim",
  ];
  return { index, ...Object.fromEntries(names.map((name, i) => [name, values[i]])) };
}
