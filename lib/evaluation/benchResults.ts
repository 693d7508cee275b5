/** Evaluations as SAEBench's files say them: which settings, which numbers. */
import type { Json } from "../activations/source.js";
import type { AbsorptionEvaluation, AbsorptionOptions } from "./absorption.js";
import { ABSORPTION_DEFAULTS, type AbsorptionOfLetters } from "./absorptionOfLetters.js";
import { AUTO_INTERP, AUTO_INTERP_CHANCE, type AutoInterpEvaluation } from "./autoInterp.js";
import { QUESTION } from "./firstLetterTask.js";
import { type BenchMeasurement, meanAndDeviation } from "./saeBenchResult.js";
import { type DatasetProbing, meanAccuracies, type ProbeAccuracies } from "./sparseProbing.js";

/** What is common to all. */
export interface BenchSetting {
  readonly modelName: string;
  readonly contextSize: number;
  readonly seed: number;
}

export function sparseProbingResult(
  datasets: readonly DatasetProbing[],
  { modelName, contextSize, seed }: BenchSetting,
): BenchMeasurement {
  const largest = (of: (one: DatasetProbing["classes"][number]) => number): number =>
    Math.max(...datasets.flatMap(({ classes }) => classes.map(of)));
  const mean = meanAccuracies(datasets.map((dataset) => dataset.mean));
  return {
    typeId: "sparse_probing",
    config: {
      random_seed: seed,
      dataset_names: datasets.map(({ name }) => name),
      probe_train_set_size: largest(({ trainTexts }) => trainTexts),
      probe_test_set_size: largest(({ testTexts }) => testTexts),
      context_length: contextSize,
      llm_dtype: "float32",
      model_name: modelName,
      k_values: [...mean.saeTop.keys()],
    },
    metrics: { llm: llmAccuracies(mean), sae: saeAccuracies(mean) },
    details: datasets.map((dataset) => ({
      dataset_name: `${dataset.name}_results`,
      ...llmAccuracies(dataset.mean),
      ...saeAccuracies(dataset.mean),
    })),
    unstructured: Object.fromEntries(
      datasets.map(({ name, classes }) => {
        const each = classes.map((one) => [one.label, { ...llmAccuracies(one), ...saeAccuracies(one) }] as const);
        const metrics = Object.keys(each[0]![1]);
        const byMetric = metrics.map((metric) => [
          metric,
          Object.fromEntries(each.map(([label, accuracies]) => [label, accuracies[metric]!])),
        ]);
        return [`${name}_results`, Object.fromEntries(byMetric)];
      }),
    ),
  };
}

function llmAccuracies({ llm, llmTop }: ProbeAccuracies): { [metric: string]: number } {
  return { llm_test_accuracy: llm, ...topAccuracies("llm", llmTop) };
}

function saeAccuracies({ sae, saeTop }: ProbeAccuracies): { [metric: string]: number } {
  return { sae_test_accuracy: sae, ...topAccuracies("sae", saeTop) };
}

function topAccuracies(what: string, top: ReadonlyMap<number, number>): { [metric: string]: number } {
  return Object.fromEntries(Array.from(top, ([k, accuracy]) => [`${what}_top_${k}_test_accuracy`, accuracy]));
}

/** The settings by which absorption is evaluated unless options say otherwise. */
export function absorptionConfig(
  { modelName, seed }: BenchSetting,
  {
    f1Jump = ABSORPTION_DEFAULTS.f1Jump,
    mostLatents = ABSORPTION_DEFAULTS.mostLatents,
    l1Penalty = ABSORPTION_DEFAULTS.l1Penalty,
    leastProbeF1 = ABSORPTION_DEFAULTS.leastProbeF1,
    leastLetters = ABSORPTION_DEFAULTS.leastLetters,
  }: Pick<AbsorptionOptions, "f1Jump" | "mostLatents" | "l1Penalty" | "leastProbeF1" | "leastLetters"> = {},
): { readonly [key: string]: Json } {
  return {
    model_name: modelName,
    random_seed: seed,
    f1_jump_threshold: f1Jump,
    max_k_value: mostLatents,
    prompt_template: `{word}${QUESTION}`,
    llm_dtype: "float32",
    k_sparse_probe_l1_decay: l1Penalty,
    min_GT_probe_f1: leastProbeF1,
    min_feats_for_eval: leastLetters,
  };
}

/** @param letters - those that were found: `AbsorptionOfLetters.letters` where there are enough */
export function absorptionResult(
  letters: NonNullable<AbsorptionOfLetters["letters"]>,
  {
    task,
    config,
  }: { readonly task: Omit<AbsorptionEvaluation, "letters">; readonly config: { readonly [key: string]: Json } },
): BenchMeasurement {
  const fraction = meanAndDeviation(letters.map(({ meanFraction }) => meanFraction));
  const full = meanAndDeviation(letters.map(({ fullRate }) => fullRate));
  const split = meanAndDeviation(letters.map(({ mainLatents }) => mainLatents.length));
  return {
    typeId: "absorption_first_letter",
    config,
    metrics: {
      mean: {
        mean_absorption_fraction_score: fraction.mean,
        mean_full_absorption_score: full.mean,
        mean_num_split_features: split.mean,
        std_dev_absorption_fraction_score: fraction.deviation,
        std_dev_full_absorption_score: full.deviation,
        std_dev_num_split_features: split.deviation,
      },
    },
    details: letters.map(({ letter, meanFraction, fullRate, fullCount, truePositives, mainLatents }) => ({
      first_letter: letter,
      mean_absorption_fraction: meanFraction,
      full_absorption_rate: fullRate,
      num_full_absorption: fullCount,
      num_probe_true_positives: truePositives,
      num_split_features: mainLatents.length,
    })),
    unstructured: {
      ...absorptionFacts(task),
      letters: Object.fromEntries(
        letters.map(({ letter, probeF1, mainLatents, latentF1, chance }) => [
          letter,
          { probe_f1: probeF1, main_latents: [...mainLatents], latent_f1: [...latentF1], chance: { ...chance } },
        ]),
      ),
    },
  };
}

/** What tells whether the model can do the task at all. */
export function absorptionFacts(task: Omit<AbsorptionEvaluation, "letters">): { readonly [key: string]: Json } {
  return {
    spelling_accuracy: task.spellingAccuracy,
    letters_found: task.lettersFound,
    letters_needed: task.lettersNeeded,
    probe_f1: task.probeF1.map((f1) => f1 ?? null),
    train_words: task.trainWords,
    test_words: task.testWords,
    words_left_out: task.leftOut,
    examples_per_prompt: task.examples,
  };
}

/** @returns undefined where no latent has a score */
export function autoInterpResult(
  { latents, leftOut }: AutoInterpEvaluation,
  {
    setting: { modelName, contextSize, seed },
    judge,
    dataset,
    tokens,
  }: { readonly setting: BenchSetting; readonly judge: string; readonly dataset: string; readonly tokens: number },
): BenchMeasurement | undefined {
  const scores = latents.flatMap((one) => ("score" in one ? [one.score] : []));
  if (scores.length === 0) return undefined;
  const { mean, deviation } = meanAndDeviation(scores);
  const { explained, shown } = AUTO_INTERP;
  return {
    typeId: "autointerp",
    config: {
      model_name: modelName,
      n_latents: latents.length,
      random_seed: seed,
      dataset_name: dataset,
      llm_context_size: contextSize,
      llm_dtype: "float32",
      total_tokens: tokens,
      scoring: true,
      n_top_ex_for_generation: explained.strongest,
      n_iw_sampled_ex_for_generation: explained.sampled,
      n_top_ex_for_scoring: shown.strongest,
      n_random_ex_for_scoring: shown.silent,
      n_iw_sampled_ex_for_scoring: shown.sampled,
    },
    metrics: { autointerp: { autointerp_score: mean, autointerp_std_dev: deviation } },
    details: [],
    unstructured: {
      judge,
      chance: AUTO_INTERP_CHANCE,
      left_out: [...leftOut],
      latents: Object.fromEntries(latents.map(({ latent, ...rest }) => [String(latent), rest])),
    },
  };
}
