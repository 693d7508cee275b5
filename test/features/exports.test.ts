import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { LatentRecord } from "../../lib/features/latentRecord.js";
import { type NeuronpediaOptions, writeNeuronpedia } from "../../lib/features/neuronpedia.js";
import type { FeatureReport } from "../../lib/features/report.js";
import { writeSaeDashboard } from "../../lib/features/saeDashboard.js";
import neuronpedia from "../fixtures/features/neuronpedia.json" with { type: "json" };
import saeDashboard from "../fixtures/features/sae_dashboard.json" with { type: "json" };
import { fullRecord, fullReport, hostileTokens } from "./hostileReport.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-exports-"));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const run = {
  contexts: 235,
  contextSize: 128,
  dataset: "stories.txt",
  direction: async (latent: number) => [0.5, -3, latent, 0, 1.5],
};
const dashboardOptions = { ...run, modelId: "tiny-gpt2", layer: 2, saeSet: "res-64" };
const neuronpediaOptions: NeuronpediaOptions = {
  ...run,
  model: { id: "tiny-gpt2", layers: 4, dimension: 192, neuronsPerLayer: 768 },
  layer: 2,
  hookName: "blocks.2.hook_resid_post",
  sourceSet: "res-64",
  description: "SAEs for tests",
  creatorName: "somebody",
  createdAt: new Date("2026-01-02T03:04:05.678Z"),
};

// biome-ignore lint/suspicious/noExplicitAny: rows of untyped JSON
type Row = any;

async function jsonLines(path: string): Promise<Row[]> {
  const bytes = await readFile(path);
  const text = (path.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8");
  expect(text.endsWith("\n")).toBe(true);
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

function withRecord(change: Partial<LatentRecord>): FeatureReport {
  const report = fullReport(1);
  return { ...report, latent: (latent) => ({ ...fullRecord(latent), ...change }) };
}

test("SAEDashboard's batches hold exactly its fields, in its types", async () => {
  const path = join(folder, "dashboard");
  await writeSaeDashboard(path, fullReport(3), { ...dashboardOptions, saeIdSuffix: "seed-1" });
  expect(await readdir(path)).toEqual(["batch-0.json"]);
  const batch: Row = JSON.parse(await readFile(join(path, "batch-0.json"), "utf8"));
  const conforms = (object: Row, { takes, writes }: { takes: Record<string, string>; writes: string[] }): void => {
    expect(Object.keys(object).sort()).toEqual([...writes].sort());
    for (const [name, value] of Object.entries(object)) expect(isOfPythonType(value, takes[name]!), name).toBe(true);
  };
  conforms(batch, saeDashboard.batch);
  for (const feature of batch.features) {
    conforms(feature, saeDashboard.feature);
    for (const activation of feature.activations) conforms(activation, saeDashboard.activation);
  }
  expect(batch).toMatchObject({ model_id: "tiny-gpt2", layer: 2, sae_set: "res-64", sae_id_suffix: "seed-1" });
  expect(batch.features.map((feature: Row) => feature.feature_index)).toEqual([10, 11, 12]);
});

function isOfPythonType(value: unknown, annotation: string): boolean {
  if (annotation === "int") return Number.isInteger(value);
  if (annotation === "float") return typeof value === "number";
  if (annotation === "str") return typeof value === "string";
  const [, optional] = /^typing\.Optional\[(.*)\]$/.exec(annotation) ?? [];
  if (optional !== undefined) return value === null || isOfPythonType(value, optional);
  const [, item] = /^list\[(.*)\]$/.exec(annotation) ?? [];
  if (item?.startsWith("dict") || item?.startsWith("typing.Dict")) return Array.isArray(value);
  if (item !== undefined) return Array.isArray(value) && value.every((entry) => isOfPythonType(entry, item));
  throw new Error(`the test knows no type ${annotation}`);
}

test("they say what the record says: bins by their middles, the top with -1, quantiles with their shares", async () => {
  const path = join(folder, "values");
  await writeSaeDashboard(path, fullReport(1), dashboardOptions);
  const [feature]: Row[] = JSON.parse(await readFile(join(path, "batch-0.json"), "utf8")).features;
  const record = fullRecord(10);
  expect(feature).toMatchObject({
    frac_nonzero: record.density,
    freq_hist_data_bar_heights: record.histogram.counts,
    logits_hist_data_bar_heights: [1, 4, 9, 2],
    logits_hist_data_bar_values: [-0.75, -0.25, 0.25, 0.75],
    // the largest entries, signed, and their part of the L1 norm 15
    neuron_alignment_indices: [2, 4, 0],
    neuron_alignment_values: [10, 1.5, 0.5],
    neuron_alignment_l1: [0.666667, 0.1, 0.0333333],
    pos_values: record.logits!.raised.map(({ effect }) => effect),
    neg_values: record.logits!.lowered.map(({ effect }) => effect),
    n_prompts_total: 235,
    n_tokens_in_prompt: 128,
    dataset: "stories.txt",
    vector: [],
  });
  expect(feature.freq_hist_data_bar_values.slice(0, 3)).toEqual([-1.75, -1.25, -0.75]);
  const bins = feature.activations.map(({ bin_min, bin_max, bin_contains }: Row) => [bin_min, bin_max, bin_contains]);
  // two examples from the top, two and one of the quantiles; the negative example and quantile have no place there
  expect(bins).toEqual([
    [-1, 8, -1],
    [-1, 8, -1],
    [4, 8, 0.25],
    [4, 8, 0.25],
    [0, 4, 0.5],
  ]);
  for (const { tokens, values, qualifying_token_index } of feature.activations) {
    expect(values).toHaveLength(tokens.length);
    expect(values[qualifying_token_index]).toBe(Math.max(...values));
  }
});

test("batches have 128 latents, and the last one the rest", async () => {
  const path = join(folder, "batches");
  const written: number[] = [];
  const onProgress = (latents: number): unknown => written.push(latents);
  await writeSaeDashboard(path, fullReport(130), { ...dashboardOptions, onProgress });
  expect((await readdir(path)).sort()).toEqual(["batch-0.json", "batch-1.json"]);
  const last: Row = JSON.parse(await readFile(join(path, "batch-1.json"), "utf8"));
  expect(last.features.map((feature: Row) => feature.feature_index)).toEqual([138, 139]);
  expect(written).toEqual(Array.from({ length: 130 }, (_, index) => index + 1));
});

test("Neuronpedia's layout holds exactly the fields that its tables and SAEDashboard's exporter have in common", async () => {
  const path = await writeNeuronpedia(join(folder, "neuronpedia"), fullReport(130), neuronpediaOptions);
  expect(path).toBe(join(folder, "neuronpedia", "tiny-gpt2", "2-res-64"));
  expect((await readdir(path, { recursive: true })).sort()).toEqual([
    "activations",
    join("activations", "batch-0.jsonl.gz"),
    join("activations", "batch-1.jsonl.gz"),
    "features",
    join("features", "batch-0.jsonl.gz"),
    join("features", "batch-1.jsonl.gz"),
    "model.jsonl",
    "release.jsonl",
    "source.jsonl",
    "sourceset.jsonl",
  ]);
  const files = {
    SourceRelease: ["release.jsonl"],
    Model: ["model.jsonl"],
    SourceSet: ["sourceset.jsonl"],
    Source: ["source.jsonl"],
    Neuron: ["features/batch-0.jsonl.gz", "features/batch-1.jsonl.gz"],
    Activation: ["activations/batch-0.jsonl.gz", "activations/batch-1.jsonl.gz"],
  } as const;
  for (const [table, names] of Object.entries(files)) {
    const fields: Record<string, string> = neuronpedia.tables[table as keyof typeof files];
    const exported: readonly string[] = neuronpedia.exporter[table as keyof typeof files];
    const expected = exported.filter((field) => field in fields);
    for (const [field, type] of Object.entries(fields)) {
      if (!/[?=\]]$/.test(type)) expect(expected, `${table}.${field} is required`).toContain(field);
    }
    for (const row of (await Promise.all(names.map((name) => jsonLines(join(path, name))))).flat()) {
      expect(Object.keys(row).sort(), table).toEqual([...expected].sort());
      for (const [field, value] of Object.entries(row)) {
        expect(isOfColumnType(value, fields[field]!), `${table}.${field}`).toBe(true);
      }
    }
  }
});

function isOfColumnType(value: unknown, column: string): boolean {
  if (column.endsWith("[]")) {
    return Array.isArray(value) && value.every((item) => isOfColumnType(item, column.slice(0, -2)));
  }
  if (value === null) return column.endsWith("?");
  switch (column.replace(/[?=]$/, "")) {
    case "String":
      // PostgreSQL takes no NUL, JSON no half of a character
      return typeof value === "string" && !/[\0\p{Cs}]/u.test(value);
    case "Boolean":
      return typeof value === "boolean";
    case "Int":
      return Number.isInteger(value);
    case "Float":
      return typeof value === "number";
    case "DateTime":
      return typeof value === "string" && new Date(value).toISOString() === value;
    case "Visibility":
      return ["PUBLIC", "UNLISTED", "PRIVATE"].includes(value as string);
    default:
      throw new Error(`the test knows no type ${column}`);
  }
}

test("its rows refer to each other, and a stretch of text has the same id whenever it is exported", async () => {
  const path = await writeNeuronpedia(join(folder, "related"), fullReport(3), neuronpediaOptions);
  const [release] = await jsonLines(join(path, "release.jsonl"));
  const [model] = await jsonLines(join(path, "model.jsonl"));
  const [set] = await jsonLines(join(path, "sourceset.jsonl"));
  const [source] = await jsonLines(join(path, "source.jsonl"));
  expect(set).toMatchObject({ modelId: model.id, releaseName: release.name });
  expect(source).toMatchObject({ modelId: model.id, setName: set.name, num_prompts: 235, num_tokens_in_prompt: 128 });
  const neurons = await jsonLines(join(path, "features/batch-0.jsonl.gz"));
  expect(neurons.map(({ index }) => index)).toEqual(["10", "11", "12"]);
  for (const neuron of neurons) {
    expect(neuron).toMatchObject({
      ...{ modelId: model.id, layer: source.id, sourceSetName: set.name, hookName: "blocks.2.hook_resid_post" },
      ...{ maxActApprox: 8, topkCosSimValues: [0.71, -0.4] },
    });
  }
  expect(neurons[0].topkCosSimIndices).toEqual([12, 998]);
  const activations = await jsonLines(join(path, "activations/batch-0.jsonl.gz"));
  const indices = new Set(neurons.map(({ index }) => index));
  for (const { id, modelId, layer, index, values, maxValue, maxValueTokenIndex, minValue } of activations) {
    expect([modelId, layer, indices.has(index)]).toEqual([model.id, source.id, true]);
    expect(id).toMatch(/^c[a-z0-9]{24}$/);
    expect([maxValue, minValue]).toEqual([Math.max(...values), Math.min(...values)]);
    expect(values[maxValueTokenIndex]).toBe(maxValue);
  }
  expect(new Set(activations.map(({ id }) => id)).size).toBe(activations.length);
  await writeNeuronpedia(join(folder, "related"), fullReport(3), neuronpediaOptions);
  expect(await jsonLines(join(path, "activations/batch-0.jsonl.gz"))).toEqual(activations);
});

test("hostile tokens arrive as they are, but for what databases do not take", async () => {
  const path = join(folder, "hostile");
  await writeSaeDashboard(path, fullReport(1), dashboardOptions);
  const [feature]: Row[] = JSON.parse(await readFile(join(path, "batch-0.json"), "utf8")).features;
  const stored = hostileTokens.map((token) => token.replaceAll("\0", "␀").replaceAll("\ud800", "\ufffd"));
  expect(feature.activations[0].tokens).toEqual(stored);
});

test.each([
  ["maxActivation", { maxActivation: Number.NaN }, "bin_max holds NaN"],
  ["density", { density: Number.POSITIVE_INFINITY }, "frac_nonzero holds Infinity"],
  [
    "a logit",
    { logits: { ...fullRecord(0).logits!, raised: [{ token: 1, effect: Number.NaN }] } },
    "pos_values holds NaN",
  ],
] as const)("a number that is none is refused by name, and nothing is written: %s", async (_, change, message) => {
  const path = join(folder, "refused");
  const refusal = { code: "ERR_NON_FINITE", message: `cannot export latent 10: ${message}` };
  await expect(writeSaeDashboard(path, withRecord(change), dashboardOptions)).rejects.toMatchObject(refusal);
  await expect(writeNeuronpedia(path, withRecord(change), neuronpediaOptions)).rejects.toMatchObject({
    code: "ERR_NON_FINITE",
  });
  const left = await readdir(path, { recursive: true }).catch(() => []);
  expect(left).toEqual(["tiny-gpt2"]);
  await rm(path, { recursive: true });
});

test("names that could lead out of the folder are refused", async () => {
  for (const name of ["../up", "a/b", "", ".", "..", "a b"]) {
    const model = { ...neuronpediaOptions.model, id: name };
    for (const options of [
      { ...neuronpediaOptions, model },
      { ...neuronpediaOptions, sourceSet: name },
    ]) {
      await expect(writeNeuronpedia(join(folder, "names"), fullReport(1), options)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        message: expect.stringContaining(JSON.stringify(name)),
      });
    }
  }
});

test("a folder that cannot be made is an error of the file system, naming what was to be written", async () => {
  const file = join(folder, "file");
  await writeFile(file, "");
  await expect(writeNeuronpedia(file, fullReport(1), neuronpediaOptions)).rejects.toMatchObject({
    code: "ERR_IO",
    message: expect.stringContaining(join(file, "tiny-gpt2", "2-res-64")),
  });
});

test("an export that is aborted leaves the one before", async () => {
  const path = join(folder, "aborted");
  await mkdir(path);
  await writeFile(join(path, "batch-0.json"), "before");
  const controller = new AbortController();
  const onProgress = (latents: number): void => {
    if (latents === 2) controller.abort();
  };
  const options = { ...dashboardOptions, signal: controller.signal, onProgress };
  await expect(writeSaeDashboard(path, fullReport(5), options)).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(await readFile(join(path, "batch-0.json"), "utf8")).toBe("before");
});

test("a latent that never fires and one without logits are exported with empty lists", async () => {
  const path = join(folder, "dead");
  const dead = withRecord({
    ...{ firingCount: 0, density: 0, maxActivation: 0, minActivation: 0, meanActivation: 0, logits: undefined },
    ...{ histogram: { firstEdge: 0, binWidth: 0, counts: [] }, examples: [], quantiles: [], neighbours: [] },
  });
  const source = await writeNeuronpedia(path, dead, neuronpediaOptions);
  const [neuron] = await jsonLines(join(source, "features/batch-0.jsonl.gz"));
  expect(neuron).toMatchObject({ pos_str: [], freq_hist_data_bar_values: [], frac_nonzero: 0, maxActApprox: 0 });
  expect(gunzipSync(await readFile(join(source, "activations/batch-0.jsonl.gz"))).toString()).toBe("");
});
