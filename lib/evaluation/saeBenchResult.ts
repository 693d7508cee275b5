import type { Json } from "../activations/source.js";

/** What an evaluation is of, and when and by what it was made. */
export interface BenchSubject {
  /** By which a reader knows the SAE, such as its folder. */
  readonly saeName: string;
  /** What a cfg.json of it holds. */
  readonly cfg: Json;
  /** Unique for each run of the evaluation. */
  readonly id: string;
  readonly time: Date;
  /** Name and version of what measured. */
  readonly madeBy: string;
}

export interface BenchMeasurement {
  readonly typeId: "core" | "sparse_probing" | "absorption_first_letter" | "autointerp";
  readonly config: { readonly [key: string]: Json };
  readonly metrics: { readonly [category: string]: { readonly [metric: string]: Json } };
  readonly details: readonly Json[];
  readonly unstructured?: Json;
}

export type SaeBenchResult = { readonly [key: string]: Json };

/** SAE's id where it is none of SAELens' registry, as SAEBench writes it. */
export const CUSTOM_SAE = "custom_sae";

/** An evaluation in the form of SAEBench 0.6 (its `eval_output_schema_*.json`), so that its readers and plots take it. */
export function saeBenchResult(
  { typeId, config, metrics, details, unstructured = {} }: BenchMeasurement,
  { saeName, cfg, id, time, madeBy }: BenchSubject,
): SaeBenchResult {
  return {
    eval_type_id: typeId,
    eval_config: config,
    eval_id: id,
    datetime_epoch_millis: time.getTime(),
    eval_result_metrics: metrics,
    eval_result_details: [...details],
    sae_bench_commit_hash: `none: made by ${madeBy}`,
    sae_lens_id: CUSTOM_SAE,
    sae_lens_release_id: saeName,
    sae_lens_version: null,
    sae_cfg_dict: cfg,
    eval_result_unstructured: unstructured,
  };
}

/** Mean and sample standard deviation; of a single value the latter is 0. */
export function meanAndDeviation(values: readonly number[]): { readonly mean: number; readonly deviation: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length < 2 ? 0 : Math.sqrt(squares / (values.length - 1)) };
}
