import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { keyedShuffle } from "../interpretation/keyedNumber.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { FeatureMatrix } from "../probing/featureMatrix.js";
import type { LabelledText } from "../probing/labelledTexts.js";
import { fitLogisticProbe, probeScores } from "../probing/linearProbe.js";
import { pooledFeatures } from "../probing/pooledFeatures.js";
import { probeMetrics } from "../probing/probeMetrics.js";
import { rankByMeanDifference } from "../probing/sparseProbe.js";
import type { Sae } from "../sae/sae.js";

/** The numbers of features that SAEBench's form has a place for. */
export const PROBING_KS: readonly number[] = [1, 2, 5, 10, 20, 50, 100];

export interface ProbingDataset {
  readonly name: string;
  readonly texts: readonly LabelledText[];
}

export interface SparseProbingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice | undefined;
  readonly datasets: readonly ProbingDataset[];
  /** Some of `PROBING_KS`. Default 1, 2, 5. */
  readonly ks?: readonly number[];
  readonly contextSize: number;
  readonly prependBos: boolean;
  /** Of the split and of which texts of other classes a class is told from. Default 42. */
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?:
    | ((progress: { readonly dataset: string; readonly done: number; readonly of: number }) => void)
    | undefined;
}

/** Test accuracy of probes that tell a class from as many texts of the others: 0.5 is chance. */
export interface ProbeAccuracies {
  /** On everything that the SAE reads; the baseline. */
  readonly llm: number;
  /** On the k dimensions of that which differ most, by k. */
  readonly llmTop: ReadonlyMap<number, number>;
  /** On all latents. */
  readonly sae: number;
  readonly saeTop: ReadonlyMap<number, number>;
}

export interface DatasetProbing {
  readonly name: string;
  /** Means over the classes. */
  readonly mean: ProbeAccuracies;
  readonly classes: readonly (ProbeAccuracies & {
    readonly label: string;
    readonly trainTexts: number;
    readonly testTexts: number;
    /** The latents that the sparse probes see, in order. */
    readonly latents: readonly number[];
  })[];
  /** Texts that were longer than `contextSize`. */
  readonly cut: number;
}

const TEST_SHARE = 0.2;

const optionNames: OptionNames<SparseProbingOptions> = {
  sae: true,
  model: true,
  hook: true,
  datasets: true,
  ks: true,
  contextSize: true,
  prependBos: "boolean",
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Sparse probing as in SAEBench: each class of a dataset against as many texts of the others, activations and latents
 * averaged over the tokens of a text, logistic probes (penalty 1, features as they are) on all of them and on the k that
 * differ most in their means between the classes of the training part, accuracy on a fifth of the texts.
 *
 * @throws MonosemError ERR_CONFIG for a dataset with one label, or with a label of too few texts; ERR_INVALID_ARGUMENT for
 *   a k that SAEBench's form has no place for; as `pooledFeatures` and `fitLogisticProbe`
 */
export async function evaluateSparseProbing(options: SparseProbingOptions): Promise<readonly DatasetProbing[]> {
  checkOptions("evaluateSparseProbing", options, optionNames);
  const { model, sae, hook, datasets, ks = [1, 2, 5], contextSize, prependBos, seed = 42, signal } = options;
  for (const k of ks) {
    if (PROBING_KS.includes(k)) continue;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `k must be one of ${PROBING_KS.join(", ")}, found ${k}`);
  }
  const { input } = hooksForSae(model, sae, hook);
  if (input.length > 1) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `sparse probing is for SAEs that read one hook point, but this crosscoder reads ${input.length}`,
    );
  }
  const splits = datasets.map((dataset) => splitClasses(dataset, seed));
  const evaluated: DatasetProbing[] = [];
  for (const [index, { name, texts }] of datasets.entries()) {
    const all = texts.map(({ text }) => text);
    const reading = (offset: number) => ({
      model,
      contextSize,
      prependBos,
      signal,
      onProgress: ({ texts: done }: { texts: number }) =>
        options.onProgress?.({ dataset: name, done: offset + done, of: 2 * all.length }),
    });
    const activations = await pooledFeatures(all, { hook: input[0], ...reading(0) });
    const latents = await pooledFeatures(all, { sae, hook: input[0], ...reading(all.length) });
    const classes: DatasetProbing["classes"][number][] = [];
    for (const split of splits[index]!) {
      throwIfAborted(signal, "sparse probing");
      const llm = await probesOf(activations.features, split, ks, signal);
      const ofLatents = await probesOf(latents.features, split, ks, signal);
      classes.push({
        label: split.label,
        trainTexts: split.train.length,
        testTexts: split.test.length,
        llm: llm.all,
        llmTop: llm.top,
        sae: ofLatents.all,
        saeTop: ofLatents.top,
        latents: ofLatents.ranked,
      });
    }
    evaluated.push({ name, mean: meanAccuracies(classes), classes, cut: activations.cut });
  }
  return evaluated;
}

/** Means of accuracies over classes or datasets. */
export function meanAccuracies(all: readonly ProbeAccuracies[]): ProbeAccuracies {
  const mean = (of: (one: ProbeAccuracies) => number): number =>
    all.reduce((sum, one) => sum + of(one), 0) / all.length;
  const means = (which: "llmTop" | "saeTop"): ReadonlyMap<number, number> =>
    new Map(Array.from(all[0]![which].keys(), (k) => [k, mean((one) => one[which].get(k)!)]));
  return { llm: mean(({ llm }) => llm), llmTop: means("llmTop"), sae: mean(({ sae }) => sae), saeTop: means("saeTop") };
}

/** Texts of a class and as many others, by their numbers; the first half of each part is of the class. */
interface ClassTexts {
  readonly label: string;
  readonly train: readonly number[];
  readonly test: readonly number[];
}

function splitClasses({ name, texts }: ProbingDataset, seed: number): readonly ClassTexts[] {
  const labels = [...new Set(texts.map(({ label }) => label))].sort();
  if (labels.length < 2) {
    throw new MonosemError("ERR_CONFIG", `${name}: a probe tells labels apart, but there are ${labels.length}`);
  }
  const parts = labels.map((label, index) => {
    const rows = Array.from(texts.keys()).filter((row) => texts[row]!.label === label);
    if (rows.length < 4) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${name}: the label ${JSON.stringify(label)} has ${rows.length} texts, but at least 4 are needed`,
      );
    }
    const order = keyedShuffle(rows, seed, index);
    const tested = Math.max(1, Math.round(TEST_SHARE * rows.length));
    return { test: order.slice(0, tested), train: order.slice(tested) };
  });
  return labels.map((label, index) => {
    const balanced = (part: "train" | "test"): number[] => {
      const own = parts[index]![part];
      const others = parts.filter((_, other) => other !== index).map((rows) => rows[part]);
      // One of each other class in turn, as long as they last.
      const longest = Math.max(...others.map(({ length }) => length));
      const turns = Array.from({ length: longest }, (_, i) => others.flatMap((rows) => rows.slice(i, i + 1))).flat();
      const count = Math.min(own.length, turns.length);
      return [...own.slice(0, count), ...turns.slice(0, count)];
    };
    return { label, train: balanced("train"), test: balanced("test") };
  });
}

async function probesOf(
  features: FeatureMatrix,
  { train, test }: ClassTexts,
  ks: readonly number[],
  signal: AbortSignal | undefined,
): Promise<{ readonly all: number; readonly top: ReadonlyMap<number, number>; readonly ranked: readonly number[] }> {
  const labelsOf = (rows: readonly number[]): Uint8Array =>
    Uint8Array.from(rows, (_, index) => (index < rows.length / 2 ? 1 : 0));
  const [trainFeatures, testFeatures] = [features.selectRows(train), features.selectRows(test)];
  const [trainLabels, testLabels] = [labelsOf(train), labelsOf(test)];
  const accuracy = async (fit: FeatureMatrix, tested: FeatureMatrix): Promise<number> => {
    const probe = await fitLogisticProbe(fit, trainLabels, { penalty: 1, standardise: false, signal });
    return probeMetrics(probeScores(probe, tested), testLabels).accuracy;
  };
  const ranked = rankByMeanDifference(trainFeatures, trainLabels);
  const top = new Map<number, number>();
  for (const k of ks) {
    const chosen = ranked.slice(0, k);
    top.set(k, await accuracy(trainFeatures.selectColumns(chosen), testFeatures.selectColumns(chosen)));
  }
  return { all: await accuracy(trainFeatures, testFeatures), top, ranked: ranked.slice(0, Math.max(0, ...ks)) };
}
