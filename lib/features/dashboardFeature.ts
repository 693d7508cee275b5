import type { Histogram } from "../analysis/activationHistogram.js";
import type { FeatureExample } from "../analysis/features.js";
import type { OptionNames } from "../checkArguments.js";
import type { FeatureReport, ReportedLatent } from "./report.js";

/** What the exports say of the text that latents were observed on, and of the latents' directions. */
export interface ExportedRun {
  /** Contexts of the pass. */
  readonly contexts: number;
  /** Tokens of a context. */
  readonly contextSize: number;
  /** The text's name, as a person would look for it. */
  readonly dataset: string;
  /** A latent's decoder direction [dOut]; without it the neurons that it is aligned with are left out. */
  readonly direction?: (latent: number) => Promise<ArrayLike<number>>;
}

export const exportedRunOptionNames: OptionNames<ExportedRun> = {
  contexts: true,
  contextSize: true,
  dataset: true,
  direction: "function",
};

/** Which latents are exported; a `FeatureReport` is one. */
export type ExportedLatents = Pick<FeatureReport, "latents" | "latent" | "tokenText">;

/**
 * A stretch of text in SAEDashboard's fields. Top activations have `bin_min` and `bin_contains` -1; of others the bins say
 * from which range of activations they are drawn, and which share of firings lies in it.
 */
export interface DashboardActivation {
  readonly bin_min: number;
  readonly bin_max: number;
  readonly bin_contains: number;
  readonly tokens: readonly string[];
  readonly values: readonly number[];
  /** Where in `tokens` the activation stands for which the stretch was chosen. */
  readonly qualifying_token_index: number;
}

/**
 * A latent in SAEDashboard's fields (`NeuronpediaDashboardFeature`, sae-dashboard 0.8.0), which Neuronpedia's are made of.
 * Histograms are given by the middles of their bins and their counts. Correlations with neurons and other latents are not
 * measured here: those lists are empty. Negative activations have no place in the format: only histograms hold them.
 */
export interface DashboardFeature {
  readonly feature_index: number;
  readonly neuron_alignment_indices: readonly number[];
  readonly neuron_alignment_values: readonly number[];
  readonly neuron_alignment_l1: readonly number[];
  readonly correlated_neurons_indices: readonly number[];
  readonly correlated_neurons_l1: readonly number[];
  readonly correlated_neurons_pearson: readonly number[];
  readonly correlated_features_indices: readonly number[];
  readonly correlated_features_l1: readonly number[];
  readonly correlated_features_pearson: readonly number[];
  readonly neg_str: readonly string[];
  readonly neg_values: readonly number[];
  readonly pos_str: readonly string[];
  readonly pos_values: readonly number[];
  readonly frac_nonzero: number;
  readonly freq_hist_data_bar_values: readonly number[];
  readonly freq_hist_data_bar_heights: readonly number[];
  readonly logits_hist_data_bar_heights: readonly number[];
  readonly logits_hist_data_bar_values: readonly number[];
  readonly n_prompts_total: number;
  readonly n_tokens_in_prompt: number;
  readonly dataset: string;
  readonly decoder_weights_dist: readonly number[];
  readonly activations: readonly DashboardActivation[];
  readonly vector: readonly number[];
}

export async function dashboardFeature(
  latent: ReportedLatent,
  run: ExportedRun,
  tokenText: (id: number) => string,
): Promise<DashboardFeature> {
  const { raised = [], lowered = [], histogram: logitHistogram } = latent.logits ?? {};
  const alignment = run.direction === undefined ? [] : alignedNeurons(await run.direction(latent.latent));
  const text = ({ token }: { readonly token: number }): string => tokenText(token);
  return {
    feature_index: latent.latent,
    neuron_alignment_indices: alignment.map(({ neuron }) => neuron),
    neuron_alignment_values: rounded(alignment.map(({ value }) => value)),
    neuron_alignment_l1: rounded(alignment.map(({ share }) => share)),
    correlated_neurons_indices: [],
    correlated_neurons_l1: [],
    correlated_neurons_pearson: [],
    correlated_features_indices: [],
    correlated_features_l1: [],
    correlated_features_pearson: [],
    neg_str: lowered.map(text),
    neg_values: rounded(lowered.map(({ effect }) => effect)),
    pos_str: raised.map(text),
    pos_values: rounded(raised.map(({ effect }) => effect)),
    frac_nonzero: latent.density,
    freq_hist_data_bar_values: middles(latent.histogram),
    freq_hist_data_bar_heights: latent.histogram.counts,
    logits_hist_data_bar_heights: logitHistogram?.counts ?? [],
    logits_hist_data_bar_values: logitHistogram === undefined ? [] : middles(logitHistogram),
    n_prompts_total: run.contexts,
    n_tokens_in_prompt: run.contextSize,
    dataset: run.dataset,
    decoder_weights_dist: [],
    activations: dashboardActivations(latent, tokenText),
    vector: [],
  };
}

function dashboardActivations(latent: ReportedLatent, tokenText: (id: number) => string): DashboardActivation[] {
  const { examples, quantiles = [], maxActivation } = latent;
  const inBin = (example: FeatureExample, min: number, max: number, share: number): DashboardActivation => ({
    bin_min: rounded([min])[0]!,
    bin_max: rounded([max])[0]!,
    bin_contains: share,
    tokens: Array.from(example.tokens, tokenText),
    values: rounded(example.activations),
    qualifying_token_index: example.peak,
  });
  return [
    ...examples.map((example) => inBin(example, -1, maxActivation, -1)),
    ...quantiles
      .filter(({ high }) => high > 0)
      .flatMap(({ low, high, share, examples }) => examples.map((example) => inBin(example, low, high, share))),
  ];
}

const ALIGNED_NEURONS = 3;

/** The largest entries of a direction, and their part of its L1 norm. */
function alignedNeurons(direction: ArrayLike<number>): { neuron: number; value: number; share: number }[] {
  const values = Array.from(direction);
  const norm = values.reduce((sum, value) => sum + Math.abs(value), 0);
  const largest = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, ALIGNED_NEURONS);
  return largest.map((neuron) => ({
    neuron,
    value: values[neuron]!,
    share: norm === 0 ? 0 : Math.abs(values[neuron]!) / norm,
  }));
}

function middles({ firstEdge, binWidth, counts }: Histogram): number[] {
  return rounded(counts.map((_, bin) => firstEdge + (bin + 0.5) * binWidth));
}

/** To six digits: what a float32 is worth. */
function rounded(values: ArrayLike<number>): number[] {
  return Array.from(values, (value) => Number(value.toPrecision(6)));
}
