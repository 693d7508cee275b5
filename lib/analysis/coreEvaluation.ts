import type { Json } from "../activations/source.js";
import type { DictionaryGeometry } from "../sae/dictionaryGeometry.js";
import type { Evaluation } from "../sae/evaluation.js";
import type { HookVariance } from "./hookVariance.js";
import type { ModelEvaluation } from "./modelEvaluation.js";
import type { SaeHooks } from "./saeHook.js";

/** An SAE and all that was measured of it. */
export interface EvaluatedSae {
  /** By which a reader knows it, such as its folder. */
  readonly name: string;
  /** As which it was trained; in its cfg.json may stand another that encodes alike (`trainedArchitecture`). */
  readonly architecture: string;
  /** What it read and reconstructed: hook points of the model, or tensors of the file. */
  readonly hooks?: SaeHooks;
  /** What a cfg.json of it holds. */
  readonly cfg: Json;
  readonly reconstruction: Evaluation;
  readonly geometry: DictionaryGeometry;
  /** Undefined, as what follows, where only stored activations were at hand. */
  readonly inModel?: ModelEvaluation;
  readonly modelName?: string;
  /** Tokens of a context. */
  readonly contextSize?: number;
  /** Of a crosscoder. */
  readonly explainedVariancePerHook?: readonly HookVariance[];
}

/** What it was measured on. */
export interface EvaluationSetting {
  /** Unique for each run of the evaluation. */
  readonly id: string;
  readonly time: Date;
  /** Name and version of what measured. */
  readonly madeBy: string;
  /** The texts, or the file of activations. */
  readonly dataset: string;
  /** Of evaluations in a model. */
  readonly contextsPerBatch: number;
}

/**
 * The evaluation as SAEBench 0.6 writes it (`eval_output_schema_core.json`), so that its readers and plots take it, and
 * under `monosem` what that form has no place for. Numbers are what SAEBench's names say, by the right formulas; where
 * SAEBench has NaN it writes -1, and so does this: consistency of a latent that never fired, ratios with a denominator of
 * 0, a transcoder's cosine of encoder and decoder. What was not measured is left out: without a model the first two
 * categories, and consistency.
 */
export function coreEvaluation(sae: EvaluatedSae, setting: EvaluationSetting): { readonly [key: string]: Json } {
  const { reconstruction, inModel, geometry, name, cfg } = sae;
  return {
    eval_type_id: "core",
    eval_config: {
      llm_dtype: "float32",
      dataset: setting.dataset,
      ...(inModel === undefined ? {} : modelConfiguration(sae, inModel, setting)),
      compute_kl: inModel !== undefined,
      compute_ce_loss: inModel !== undefined,
      compute_l2_norms: true,
      compute_sparsity_metrics: true,
      compute_variance_metrics: true,
      compute_featurewise_density_statistics: true,
      compute_featurewise_weight_based_metrics: true,
      exclude_special_tokens_from_reconstruction: true,
      verbose: false,
    },
    eval_id: setting.id,
    datetime_epoch_millis: setting.time.getTime(),
    eval_result_metrics: {
      ...(inModel === undefined ? {} : preservation(inModel)),
      reconstruction_quality: {
        explained_variance: reconstruction.explainedVariance,
        explained_variance_legacy: orMinusOne(reconstruction.explainedVarianceLegacy),
        mse: reconstruction.mse,
        cossim: reconstruction.cosine,
      },
      shrinkage: {
        l2_norm_in: reconstruction.targetNorm,
        l2_norm_out: reconstruction.reconstructionNorm,
        l2_ratio: reconstruction.l2Ratio,
        relative_reconstruction_bias: orMinusOne(reconstruction.relativeReconstructionBias),
      },
      sparsity: { l0: reconstruction.l0, l1: reconstruction.l1 },
      token_stats: {
        ...(inModel === undefined ? {} : { total_tokens_eval_reconstruction: inModel.tokens }),
        total_tokens_eval_sparsity_variance: reconstruction.tokens,
      },
      misc_metrics: {
        ...densityShares(reconstruction.latents.density),
        average_max_encoder_cosine_sim: orMinusOne(mean(geometry.maxEncoderCosine)),
        average_max_decoder_cosine_sim: orMinusOne(mean(geometry.maxDecoderCosine)),
        frac_alive: 1 - reconstruction.deadFraction,
      },
    },
    eval_result_details: latentDetails(reconstruction, geometry),
    sae_bench_commit_hash: `none: made by ${setting.madeBy}`,
    sae_lens_id: "custom_sae",
    sae_lens_release_id: name,
    sae_lens_version: null,
    sae_cfg_dict: cfg,
    eval_result_unstructured: {},
    monosem: ownEvaluation(sae, setting),
  };
}

function modelConfiguration(
  { modelName, contextSize }: EvaluatedSae,
  { contexts }: ModelEvaluation,
  { contextsPerBatch }: EvaluationSetting,
): { [key: string]: Json } {
  const batches = Math.ceil(contexts / contextsPerBatch);
  return {
    ...(modelName === undefined ? {} : { model_name: modelName }),
    ...(contextSize === undefined ? {} : { context_size: contextSize }),
    batch_size_prompts: contextsPerBatch,
    n_eval_reconstruction_batches: batches,
    n_eval_sparsity_variance_batches: batches,
  };
}

function preservation(inModel: ModelEvaluation): { [category: string]: Json } {
  return {
    model_behavior_preservation: {
      kl_div_score: inModel.klScore,
      kl_div_with_ablation: inModel.klZero,
      kl_div_with_sae: inModel.klDivergence,
    },
    model_performance_preservation: {
      ce_loss_score: inModel.lossRecovered,
      ce_loss_with_ablation: inModel.ceZero,
      ce_loss_with_sae: inModel.ceSae,
      ce_loss_without_sae: inModel.ceClean,
    },
  };
}

/** How many latents fire on more than 1% and 10% of the tokens, and how much of all firing is theirs. */
export function densityShares(density: Float64Array): {
  readonly freq_over_1_percent: number;
  readonly freq_over_10_percent: number;
  readonly normalized_freq_over_1_percent: number;
  readonly normalized_freq_over_10_percent: number;
} {
  const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
  const total = sum(density);
  const above = (threshold: number): Float64Array => density.filter((value) => value > threshold);
  const shareOfFiring = (threshold: number): number => (total === 0 ? 0 : sum(above(threshold)) / total);
  return {
    freq_over_1_percent: above(0.01).length / density.length,
    freq_over_10_percent: above(0.1).length / density.length,
    normalized_freq_over_1_percent: shareOfFiring(0.01),
    normalized_freq_over_10_percent: shareOfFiring(0.1),
  };
}

function latentDetails({ latents }: Evaluation, geometry: DictionaryGeometry): Json[] {
  const { density, consistency } = latents;
  const { encoderDecoderCosine } = geometry;
  return Array.from(density, (value, index) => ({
    index,
    feature_density: rounded(value),
    ...(consistency === undefined ? {} : { consistent_activation_heuristic: rounded(consistency[index]!) }),
    encoder_bias: rounded(geometry.encoderBias[index]!),
    encoder_norm: rounded(geometry.encoderNorm[index]!),
    encoder_decoder_cosine_sim: rounded(encoderDecoderCosine?.[index] ?? Number.NaN),
    max_decoder_cosine_sim: rounded(geometry.maxDecoderCosine[index]!),
    max_encoder_cosine_sim: rounded(geometry.maxEncoderCosine[index]!),
  }));
}

function ownEvaluation(
  { architecture, hooks, reconstruction, inModel, geometry, explainedVariancePerHook }: EvaluatedSae,
  { madeBy }: EvaluationSetting,
): Json {
  const { latents, densityHistogram, ...metrics } = reconstruction;
  return {
    madeBy,
    architecture,
    ...(hooks === undefined ? {} : { hooks: { input: hooks.input, output: hooks.output } }),
    ...metrics,
    ...(explainedVariancePerHook === undefined
      ? {}
      : { explainedVariancePerHook: explainedVariancePerHook.map((measured) => ({ ...measured })) }),
    ...(inModel === undefined ? {} : ownLosses(inModel)),
    densityHistogram: { ...densityHistogram },
    dictionary: dictionarySummary(geometry),
    latents: {
      log10Density: Array.from(latents.density, (density) => (density === 0 ? null : rounded(Math.log10(density)))),
      decoderNorm: Array.from(geometry.decoderNorm, rounded),
    },
  };
}

function ownLosses({ reconstruction: _, explainedVariancePerHook: __, tokens, ...losses }: ModelEvaluation): {
  [key: string]: Json;
} {
  return { ...losses, predictedTokens: tokens };
}

/** Means and extremes over the latents; null where there is nothing to compare. */
export function dictionarySummary(geometry: DictionaryGeometry): {
  readonly meanMaxDecoderCosine: number | null;
  readonly maxDecoderCosine: number | null;
  readonly meanMaxEncoderCosine: number | null;
  readonly maxEncoderCosine: number | null;
  readonly meanEncoderDecoderCosine: number | null;
  readonly meanEncoderNorm: number;
  readonly meanDecoderNorm: number;
} {
  const { maxDecoderCosine, maxEncoderCosine, encoderDecoderCosine, encoderNorm, decoderNorm } = geometry;
  const largest = (values: Float64Array): number => values.reduce((most, value) => Math.max(most, value));
  return {
    meanMaxDecoderCosine: orNull(mean(maxDecoderCosine)),
    maxDecoderCosine: orNull(largest(maxDecoderCosine)),
    meanMaxEncoderCosine: orNull(mean(maxEncoderCosine)),
    maxEncoderCosine: orNull(largest(maxEncoderCosine)),
    meanEncoderDecoderCosine: encoderDecoderCosine === undefined ? null : mean(encoderDecoderCosine),
    meanEncoderNorm: mean(encoderNorm),
    meanDecoderNorm: mean(decoderNorm),
  };
}

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function orNull(value: number): number | null {
  return Number.isNaN(value) ? null : value;
}

function orMinusOne(value: number | null): number {
  return value === null || Number.isNaN(value) ? -1 : value;
}

/** To ten decimals, as SAEBench rounds what there is per latent. */
function rounded(value: number): number {
  return Number(orMinusOne(value).toFixed(10));
}
