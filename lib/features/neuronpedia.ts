import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { ioError, writeDirectoryAtomically } from "../formats/atomicFile.js";
import {
  type DashboardActivation,
  type DashboardFeature,
  dashboardFeature,
  type ExportedLatents,
  type ExportedRun,
  exportedRunOptionNames,
} from "./dashboardFeature.js";
import type { ReportedLatent } from "./report.js";
import { LATENTS_PER_BATCH } from "./saeDashboard.js";
import { strictJson } from "./strictJson.js";

/** The user whom Neuronpedia's own tools name where none is given. */
const DEFAULT_CREATOR = "clkht01d40000jv08hvalcvly";

export interface NeuronpediaOptions extends ExportedRun {
  readonly model: {
    /** Letters, digits, dots, dashes and underscores. */
    readonly id: string;
    readonly layers: number;
    /** Width of the residual stream. */
    readonly dimension: number;
    /** Width of an MLP. */
    readonly neuronsPerLayer: number;
  };
  /** The layer that the SAE reads. */
  readonly layer: number;
  readonly hookName: string;
  /** The name that SAEs of this kind share, such as "res-jb"; characters as in a model's name. */
  readonly sourceSet: string;
  /** What these SAEs are, in a sentence. */
  readonly description: string;
  readonly creatorName: string;
  /** Of a user of the Neuronpedia that it is imported to. Default: the one that Neuronpedia's own tools name. */
  readonly creatorId?: string;
  /** Where to read more. */
  readonly urls?: readonly string[];
  /** Default: now. */
  readonly createdAt?: Date;
  readonly signal?: AbortSignal;
  /** After each latent, with the latents written so far. */
  readonly onProgress?: (latents: number) => void;
}

const optionNames: OptionNames<NeuronpediaOptions> = {
  ...exportedRunOptionNames,
  model: true,
  layer: true,
  hookName: true,
  sourceSet: true,
  description: true,
  creatorName: true,
  creatorId: true,
  urls: true,
  createdAt: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Writes latents in the layout that Neuronpedia imports: `{folder}/{model}/{layer}-{source set}/` with `release.jsonl`,
 * `model.jsonl`, `sourceset.jsonl`, `source.jsonl`, and per 128 latents `features/batch-N.jsonl.gz` and
 * `activations/batch-N.jsonl.gz`. Rows have the fields that both Neuronpedia's database (schema.prisma) and SAEDashboard's
 * exporter know. One batch of latents is in memory at a time.
 *
 * @returns the folder of the source; one of that name is replaced as a whole
 * @throws MonosemError ERR_INVALID_ARGUMENT for a name that cannot be one there, ERR_NON_FINITE for a number that is none,
 * ERR_IO, ERR_ABORTED; a previous folder is then in place
 */
export async function writeNeuronpedia(
  folder: string,
  { latents, latent, tokenText }: ExportedLatents,
  options: NeuronpediaOptions,
): Promise<string> {
  checkOptions("writeNeuronpedia", options, optionNames);
  const { signal, onProgress } = options;
  const source = sourceFolder(folder, options);
  await mkdir(join(folder, options.model.id), { recursive: true }).catch((error: unknown) => {
    throw ioError(`cannot write ${source}`, error);
  });
  const createdAt = (options.createdAt ?? new Date()).toISOString();
  const creatorId = options.creatorId ?? DEFAULT_CREATOR;
  const row: RowContext = { options, sourceId: sourceId(options), createdAt, creatorId };
  await writeDirectoryAtomically(source, async (directory) => {
    for (const [name, metadata] of Object.entries(metadataRows(row))) {
      await writeFile(join(directory, `${name}.jsonl`), `${strictJson(metadata, name)}\n`);
    }
    await mkdir(join(directory, "features"));
    await mkdir(join(directory, "activations"));
    for (let first = 0; first < latents.length; first += LATENTS_PER_BATCH) {
      const features: string[] = [];
      const activations: string[] = [];
      for (const [index, number] of latents.slice(first, first + LATENTS_PER_BATCH).entries()) {
        throwIfAborted(signal, "the export");
        const record = await latent(number);
        const feature = await dashboardFeature(record, options, tokenText);
        const what = `latent ${number}`;
        features.push(strictJson(neuronRow(feature, record, row), what));
        feature.activations.forEach((activation, rank) => {
          activations.push(strictJson(activationRow(activation, number, rank, row), what));
        });
        onProgress?.(first + index + 1);
      }
      const file = `batch-${first / LATENTS_PER_BATCH}.jsonl.gz`;
      await writeGzip(join(directory, "features", file), features);
      await writeGzip(join(directory, "activations", file), activations);
    }
  });
  return source;
}

/** What the folder of a source holds that `writeNeuronpedia` wrote. */
export const NEURONPEDIA_FILES: RegExp = /^((release|model|sourceset|source)\.jsonl|features|activations)$/;

/**
 * Where `writeNeuronpedia` puts a source.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for a name that cannot be one there
 */
export function sourceFolder(folder: string, { model, layer, sourceSet }: SourceName): string {
  for (const [what, name] of [
    ["the model's id", model.id],
    ["the source set", sourceSet],
  ] as const) {
    if (/^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(name)) continue;
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `${what} may have letters, digits, dots, dashes and underscores, found ${JSON.stringify(name)}`,
    );
  }
  return join(folder, model.id, sourceId({ layer, sourceSet }));
}

interface SourceName {
  readonly model: { readonly id: string };
  readonly layer: number;
  readonly sourceSet: string;
}

function sourceId({ layer, sourceSet }: Omit<SourceName, "model">): string {
  return `${layer}-${sourceSet}`;
}

interface RowContext {
  readonly options: NeuronpediaOptions;
  readonly sourceId: string;
  readonly createdAt: string;
  readonly creatorId: string;
}

/** Rows of the tables SourceRelease, Model, SourceSet and Source, by the names of their files. */
function metadataRows({ options, sourceId, createdAt, creatorId }: RowContext): Record<string, object> {
  const { model, sourceSet, description, creatorName, urls = [] } = options;
  return {
    release: {
      name: sourceSet,
      description,
      descriptionShort: description,
      creatorName,
      creatorNameShort: creatorName,
      creatorId,
      creatorEmail: null,
      visibility: "PUBLIC",
      isNewUi: false,
      featured: false,
      urls,
      defaultSourceSetName: null,
      defaultSourceId: null,
      defaultUmapSourceIds: [],
      createdAt,
    },
    model: {
      id: model.id,
      displayName: model.id,
      displayNameShort: model.id,
      creatorId,
      tlensId: null,
      dimension: model.dimension,
      visibility: "PUBLIC",
      defaultSourceSetName: null,
      defaultSourceId: null,
      inferenceEnabled: false,
      instruct: false,
      layers: model.layers,
      neuronsPerLayer: model.neuronsPerLayer,
      owner: "",
      website: null,
      createdAt,
      updatedAt: createdAt,
    },
    sourceset: {
      modelId: model.id,
      name: sourceSet,
      creatorId,
      creatorName,
      creatorEmail: null,
      description,
      type: "",
      urls,
      releaseName: sourceSet,
      visibility: "PUBLIC",
      hasDashboards: true,
      defaultOfModelId: null,
      defaultRange: 1,
      defaultShowBreaks: true,
      showDfa: false,
      showCorrelated: false,
      showHeadAttribution: false,
      showUmap: false,
      createdAt,
    },
    source: {
      id: sourceId,
      modelId: model.id,
      setName: sourceSet,
      creatorId,
      hasDashboards: true,
      inferenceEnabled: false,
      saelensConfig: null,
      saelensRelease: null,
      saelensSaeId: null,
      hfRepoId: null,
      hfFolderId: null,
      visibility: "PUBLIC",
      defaultOfModelId: null,
      hasUmap: false,
      hasUmapLogSparsity: false,
      hasUmapClusters: false,
      num_prompts: options.contexts,
      num_tokens_in_prompt: options.contextSize,
      dataset: options.dataset,
      notes: null,
      createdAt,
    },
  };
}

/** A row of the table Neuron: a latent. */
function neuronRow(
  feature: DashboardFeature,
  { maxActivation, neighbours = [] }: ReportedLatent,
  { options, sourceId, createdAt, creatorId }: RowContext,
): object {
  const { feature_index, n_prompts_total, n_tokens_in_prompt, dataset, activations, vector, ...shared } = feature;
  return {
    modelId: options.model.id,
    layer: sourceId,
    index: String(feature_index),
    creatorId,
    createdAt,
    maxActApprox: maxActivation,
    hasVector: false,
    vector,
    vectorLabel: null,
    vectorDefaultSteerStrength: 10,
    hookName: options.hookName,
    topkCosSimIndices: neighbours.map(({ latent }) => latent),
    topkCosSimValues: neighbours.map(({ cosine }) => cosine),
    sourceSetName: options.sourceSet,
    ...shared,
  };
}

/** A row of the table Activation: a stretch of text. */
function activationRow(
  { tokens, values, bin_min, bin_max, bin_contains, qualifying_token_index }: DashboardActivation,
  latent: number,
  rank: number,
  { options, sourceId, createdAt, creatorId }: RowContext,
): object {
  const maxValue = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  return {
    id: rowId(options.model.id, sourceId, latent, rank),
    tokens,
    index: String(latent),
    layer: sourceId,
    modelId: options.model.id,
    dataIndex: null,
    dataSource: null,
    maxValue,
    maxValueTokenIndex: values.indexOf(maxValue),
    minValue: values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY),
    values,
    dfaValues: [],
    dfaTargetIndex: null,
    dfaMaxValue: null,
    zValues: [],
    creatorId,
    createdAt,
    lossValues: [],
    logitContributions: null,
    binMin: bin_min,
    binMax: bin_max,
    binContains: bin_contains,
    qualifyingTokenIndex: qualifying_token_index,
  };
}

/** In the form of a cuid, the same for the same stretch whenever it is exported. */
function rowId(...parts: readonly (string | number)[]): string {
  const digest = createHash("sha256").update(parts.join("\n")).digest("hex");
  return `c${BigInt(`0x${digest}`).toString(36).padStart(24, "0").slice(-24)}`;
}

async function writeGzip(path: string, lines: readonly string[]): Promise<void> {
  const text = Readable.from(lines.map((line) => `${line}\n`));
  await pipeline(text, createGzip(), createWriteStream(path, { flags: "wx" }));
}
