import { percentText } from "../analysis/percentText.js";
import { visibleText } from "../analysis/visibleText.js";
import { AUTO_INTERP_CHANCE } from "./autoInterp.js";
import type { SaeBenchResult } from "./saeBenchResult.js";

/** What came of one evaluation of one SAE. */
export type BenchOutcome = {
  readonly sae: string;
  readonly evaluation: "core" | "sparse-probing" | "absorption" | "autointerp";
} & (
  | { readonly result: SaeBenchResult }
  /** Why there are no numbers. */
  | { readonly notEvaluated: string }
);

interface Column {
  readonly title: string;
  /** Keys below the result's metrics or, of `config`, its settings. */
  readonly path: readonly string[];
  readonly config?: true;
  readonly format: (value: number) => string;
}

const percent = (value: number): string => percentText(value, 1);
const fixed =
  (digits: number) =>
  (value: number): string =>
    value.toFixed(digits);

function column(title: string, path: string, format: (value: number) => string): Column {
  return { title, path: path.split("."), format };
}

/** The same numbers of latents and of dimensions: all that one of the results has. */
function probingColumns(results: readonly SaeBenchResult[]): readonly Column[] {
  const ks = new Set(
    results.flatMap(({ eval_config }) => (eval_config as { readonly k_values: readonly number[] }).k_values),
  );
  const sorted = [...ks].sort((a, b) => a - b);
  const top = (which: "sae" | "llm", one: string): readonly Column[] =>
    sorted.map((k) => column(`${k} ${k === 1 ? one : `${one}s`}`, `${which}.${which}_top_${k}_test_accuracy`, percent));
  return [
    { ...column("tested", "probe_test_set_size", fixed(0)), config: true },
    ...top("sae", "latent"),
    column("all latents", "sae.sae_test_accuracy", percent),
    ...top("llm", "dimension"),
    column("all", "llm.llm_test_accuracy", percent),
  ];
}

const TABLES: Readonly<
  Record<
    BenchOutcome["evaluation"],
    {
      readonly meaning: string;
      readonly columns: readonly Column[] | ((results: readonly SaeBenchResult[]) => readonly Column[]);
    }
  >
> = {
  core: {
    meaning: "the model with reconstructions in place of activations: 100% recovers all of its loss, zeros recover 0%",
    columns: [
      column("loss recovered", "model_performance_preservation.ce_loss_score", percent),
      column("KL recovered", "model_behavior_preservation.kl_div_score", percent),
      column("expl. variance", "reconstruction_quality.explained_variance", percent),
      column("L0", "sparsity.l0", fixed(1)),
      column("alive", "misc_metrics.frac_alive", percent),
    ],
  },
  "sparse-probing": {
    meaning:
      "accuracy of probes on texts that they have not seen, on latents and on what the SAE reads; 50% is chance; tested: texts, of the label that has most",
    columns: probingColumns,
  },
  absorption: {
    meaning: "first letters that other latents carry in place of the main ones; 0% is none",
    columns: [
      column("fraction", "mean.mean_absorption_fraction_score", percent),
      column("full", "mean.mean_full_absorption_score", percent),
      column("latents per letter", "mean.mean_num_split_features", fixed(2)),
    ],
  },
  autointerp: {
    meaning: `examples that a judge tells apart by its explanation of a latent; "none" would be right for ${percent(AUTO_INTERP_CHANCE)}`,
    columns: [
      column("score", "autointerp.autointerp_score", percent),
      column("deviation", "autointerp.autointerp_std_dev", percent),
    ],
  },
};

/** A table for each evaluation, a line for each SAE. */
export function benchText(outcomes: readonly BenchOutcome[]): string {
  const evaluations = [...new Set(outcomes.map(({ evaluation }) => evaluation))];
  return evaluations
    .map((evaluation) => {
      const own = outcomes.filter((outcome) => outcome.evaluation === evaluation);
      const { meaning, columns: known } = TABLES[evaluation];
      const results = own.flatMap((outcome) => ("result" in outcome ? [outcome.result] : []));
      const columns = typeof known === "function" ? known(results) : known;
      const width = Math.max(...own.map(({ sae }) => visibleText(sae).length));
      const rows = own.map((outcome) =>
        "result" in outcome ? columns.map((one) => cell(outcome.result, one)) : undefined,
      );
      const widths = columns.map(({ title }, i) =>
        Math.max(title.length, ...rows.map((cells) => cells?.[i]?.length ?? 0)),
      );
      const line = (name: string, cells: readonly string[]): string =>
        [name.padEnd(width), ...cells.map((text, i) => text.padStart(widths[i]!))].join("  ");
      const head = line(
        "",
        columns.map(({ title }) => title),
      );
      const lines = own.map((outcome, i) => {
        const name = visibleText(outcome.sae);
        if ("result" in outcome) return line(name, rows[i]!);
        return `${name.padEnd(width)}  not evaluated: ${visibleText(outcome.notEvaluated)}`;
      });
      const withHead = own.some((outcome) => "result" in outcome) ? [head] : [];
      return `${[`${evaluation}: ${meaning}`, "", ...withHead, ...lines].join("\n")}\n`;
    })
    .join("\n");
}

function cell(result: SaeBenchResult, { path, config, format }: Column): string {
  let found: unknown = config ? result.eval_config : result.eval_result_metrics;
  for (const key of path) found = (found as { readonly [key: string]: unknown } | null | undefined)?.[key];
  return typeof found === "number" ? format(found) : "-";
}
