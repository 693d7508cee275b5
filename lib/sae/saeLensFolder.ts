/**
 * SAELens folders: `cfg.json` and `sae_weights.safetensors` with W_enc [dIn, dSae], b_enc [dSae], W_dec [dSae, dIn],
 * b_dec [dIn].
 *
 * What is written loads in SAELens unchanged. What is read must be understood to the last key that changes numbers: an
 * option that this library does not compute is refused by name.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Json } from "../activations/source.js";
import { MonosemError } from "../errors.js";
import { isDeadTemporary, replacePairOfFiles } from "../formats/atomicFile.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { type SafetensorsDType, SafetensorsFile, writeSafetensors } from "../formats/safetensors.js";
import { quote } from "../formats/safetensorsHeader.js";
import { checkedBy } from "../schemaMessages.js";
import type { SavedForm } from "./architecture.js";
import { architectureNamed, knownArchitectures } from "./architectures.js";
import { type CheckedSaeConfig, parseSaeConfig } from "./config.js";
import { known, type SaeMetadata } from "./metadata.js";
import { type ParameterLayout, parameterLayout } from "./parameterLayout.js";
import { isPre6, upgradePre6 } from "./saeLensPre6.js";
import type { SaeLoadOptions, StoredSae, StoredWeight } from "./storedSae.js";

const configFile = "cfg.json";
const weightsFile = "sae_weights.safetensors";
/** The SAELens version whose meaning of the keys the folder follows; at least 6, or SAELens takes it for an older one. */
const saeLensVersion = "6.0.0";

/** The parameters by our names, as SAELens stores them (encoders transposed). */
type SavedWeights = Readonly<Record<string, Float32Array>>;

interface SaeLensFolder {
  readonly config: CheckedSaeConfig;
  readonly weights: SavedWeights;
  readonly metadata: SaeMetadata;
}

/** @throws MonosemError ERR_NON_FINITE for NaN or infinity among the weights, ERR_IO when the file system refuses. */
export async function writeSaeLensFolder(
  directory: string,
  { config, weights, metadata }: SaeLensFolder,
): Promise<void> {
  const saved = asSaved(config);
  const layout = parameterLayout(saved);
  for (const { name, savedAs } of layout) refuseNonFinite(weights[name]!, `${directory}: ${savedAs}`);
  await makeDirectory(directory);
  const tensors = layout.map(({ name, savedAs, shape, savedTransposed }) => [
    savedAs,
    { shape: savedTransposed ? [...shape].reverse() : shape, data: weights[name]! },
  ]);
  const cfg = saeLensCfg(config, metadata);
  await replacePairOfFiles(directory, { key: configFile, other: weightsFile }, async (folder) => {
    await writeSafetensors(join(folder, weightsFile), Object.fromEntries(tensors));
    await writeFile(join(folder, configFile), `${JSON.stringify(cfg, null, 2)}\n`);
  });
}

/** Whether the names in a folder are those that a killed `writeSaeLensFolder` leaves, and nothing else. */
export function isUnfinishedSaeLensFolder(names: readonly string[]): boolean {
  return names.every((name) => name === weightsFile || isDeadTemporary(name));
}

/** SAELens' names of what is done with activations. */
const saeLensNormalization = {
  none: "none",
  "layer-norm": "layer_norm",
  "constant-norm": "constant_norm_rescale",
} as const;

/** What cfg.json of an SAE holds. */
export function saeLensCfg(config: CheckedSaeConfig, metadata: SaeMetadata): Record<string, Json> {
  const saved = asSaved(config);
  const { modelName, hookName, hookNames, hookNameOut, trainedAs, contextSize, prependBos, ...others } = metadata;
  const trainedAsAnother = saved.architecture === config.architecture ? trainedAs : config.architecture;
  const form = savedFormOf(saved.architecture);
  const name = nameInForm(form, saved);
  return {
    architecture: saved.transcoder ? transcoderName(name, saved.skip) : name,
    ...form.keys?.(saved),
    d_in: saved.dIn,
    d_sae: saved.dSae,
    ...(saved.transcoder ? { d_out: saved.dOut } : {}),
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: saved.applyBDecToInput,
    normalize_activations: saeLensNormalization[saved.normalizeActivations],
    reshape_activations: "none",
    metadata: known({
      sae_lens_version: saeLensVersion,
      sae_lens_training_version: null,
      ...others,
      model_name: modelName,
      hook_name: hookName,
      hook_names: hookNames,
      hook_name_out: hookNameOut,
      trained_as: trainedAsAnother,
      hook_widths: saved.hookWidths,
      context_size: contextSize,
      prepend_bos: prependBos,
    }),
  };
}

/** The configuration as which an SAE is saved: batchtopk, for example, as the jumprelu that it encodes like. */
function asSaved(config: CheckedSaeConfig): CheckedSaeConfig {
  const { saved } = architectureNamed(config.architecture);
  return "as" in saved ? asSaved(parseSaeConfig({ ...config, architecture: saved.as })) : config;
}

function savedFormOf(architecture: string): SavedForm<object> {
  const { saved } = architectureNamed(architecture);
  if ("as" in saved) throw new Error(`${architecture} is saved as ${saved.as}`);
  return saved;
}

/** The name of the variant that has the configuration's options, or the form's own. */
function nameInForm({ name, variants = {} }: SavedForm<object>, config: CheckedSaeConfig): string {
  const values = new Map<string, unknown>(Object.entries(config));
  const isVariant = (options: object): boolean =>
    Object.entries(options).every(([option, value]) => values.get(option) === value);
  return Object.entries(variants).find(([, options]) => isVariant(options))?.[0] ?? name;
}

/** SAELens' names of transcoders; those of the architectures that it has none for follow the same pattern. */
function transcoderName(name: string, skip: boolean): string {
  const kind = skip ? "skip_transcoder" : "transcoder";
  return name === "standard" ? kind : `${name}_${kind}`;
}

/** What cfg.json's `architecture` says. */
interface NamedForm {
  readonly architecture: string;
  readonly form: SavedForm<object>;
  /** Of a variant: the options that the name stands for. */
  readonly options: object;
  readonly transcoder: boolean;
  readonly skip: boolean;
}

/** Every name that can be loaded. */
function namedForms(): ReadonlyMap<string, NamedForm> {
  const forms = new Map<string, NamedForm>();
  for (const { name: architecture, saved: form } of knownArchitectures().values()) {
    if ("as" in form) continue;
    for (const [name, options] of Object.entries<object>({ [form.name]: {}, ...form.variants })) {
      forms.set(name, { architecture, form, options, transcoder: false, skip: false });
      for (const skip of [false, true]) {
        forms.set(transcoderName(name, skip), { architecture, form, options, transcoder: true, skip });
      }
    }
  }
  return forms;
}

const dtypeOf: ReadonlyMap<string, SafetensorsDType> = new Map([
  ["float32", "F32"],
  ["float16", "F16"],
  ["bfloat16", "BF16"],
]);

/** Keys of cfg.json that matter to the numbers; others (device, training records) are left alone. */
const cfgSchema = z.looseObject({
  architecture: z.string(),
  d_in: z.int().positive(),
  d_sae: z.int().positive(),
  d_out: z.int().positive().optional(),
  dtype: z.string().default("float32"),
  apply_b_dec_to_input: z.boolean().default(true),
  normalize_activations: z.string().default("none"),
  reshape_activations: z.enum(["none", "hook_z"]).default("none"),
  finetuning_scaling_factor: z.boolean().default(false),
  rescale_acts_by_decoder_norm: z.boolean().default(false),
  metadata: z.record(z.string(), z.json()).default({}),
});

/**
 * Reads a folder of SAELens 6, or of an earlier one.
 *
 * @param options.inputScale - that factor, for a folder that says there is one, but not which
 * @throws MonosemError as `Sae.load` says.
 */
export async function readSaeLensFolder(directory: string, { inputScale }: SaeLoadOptions = {}): Promise<StoredSae> {
  const path = join(directory, configFile);
  const json = await readJsonFile(path, {
    missing: `${path} does not exist; an SAE folder holds ${configFile} and ${weightsFile}`,
  });
  const flat = z.looseObject({}).safeParse(json);
  const old = flat.success && isPre6(flat.data);
  const cfg = parseCfg(path, old ? upgradePre6(path, flat.data) : json);
  const forms = namedForms();
  const named = forms.get(cfg.architecture);
  if (named === undefined) {
    unsupported(path, `architecture is ${quote(cfg.architecture)}; ${[...forms.keys()].join(", ")} can be loaded`);
  }
  const scaled = cfg.normalize_activations === "expected_average_only_in" && inputScale !== undefined;
  const normalizeActivations = scaled ? "none" : normalizationNamed(path, cfg.normalize_activations);
  if (cfg.finetuning_scaling_factor) unsupported(path, "finetuning_scaling_factor is true");
  const dtype = dtypeOf.get(cfg.dtype.replace(/^torch\./, ""));
  if (dtype === undefined) {
    unsupported(path, `dtype is ${quote(cfg.dtype)}; ${[...dtypeOf.keys()].join(", ")} can be loaded`);
  }

  const { architecture, form, options, transcoder, skip } = named;
  const config = inFile(path, () =>
    parseSaeConfig({
      ...(form.options ?? ((keys) => keys))(cfg),
      ...options,
      architecture,
      dIn: cfg.d_in,
      dSae: cfg.d_sae,
      transcoder,
      skip,
      ...(transcoder ? { dOut: cfg.d_out ?? cfg.d_in } : {}),
      // SAELens' transcoders never subtract b_dec, whatever the key says
      applyBDecToInput: transcoder ? false : cfg.apply_b_dec_to_input,
      normalizeActivations,
      ...(cfg.metadata.hook_widths === undefined ? {} : { hookWidths: cfg.metadata.hook_widths }),
    }),
  );
  return {
    config,
    // before version 6 the configuration's dtype was the one that weights were to be loaded in
    weights: await readWeights(join(directory, weightsFile), parameterLayout(config), old ? undefined : dtype),
    metadata: readMetadata(cfg.metadata),
    latentsInDecoderNorm: cfg.rescale_acts_by_decoder_norm,
    ...(scaled ? { scale: { input: inputScale, output: inputScale } } : {}),
  };
}

/** @throws MonosemError ERR_UNSUPPORTED */
function normalizationNamed(path: string, name: string): CheckedSaeConfig["normalizeActivations"] {
  for (const [ours, theirs] of Object.entries(saeLensNormalization)) {
    if (theirs === name) return ours as CheckedSaeConfig["normalizeActivations"];
  }
  const problem = `normalize_activations is ${quote(name)}`;
  if (name !== "expected_average_only_in") {
    const known = [...Object.values(saeLensNormalization), "expected_average_only_in"].join(", ");
    unsupported(path, `${problem}, which is not supported; ${known} can be loaded`);
  }
  return unsupported(
    path,
    `${problem}, one factor for all activations that is not folded into the weights: load it with that factor as ` +
      "`inputScale` (`monosem convert --input-scale` folds it), or fold it in SAELens (fold_activation_norm_scaling_factor) " +
      "and save again",
  );
}

async function readWeights(
  path: string,
  layout: readonly ParameterLayout[],
  dtype: SafetensorsDType | undefined,
): Promise<StoredSae["weights"]> {
  await using file = await SafetensorsFile.open(path);
  const names = layout.map(({ savedAs }) => savedAs);
  const superfluous = new Set([...file.entries.keys()].filter((name) => !names.includes(name)));
  if (superfluous.has(finetuningFactors)) {
    await refuseFinetuningFactors(path, file);
    superfluous.delete(finetuningFactors);
  }
  if (superfluous.size > 0) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${path}: unexpected tensor ${[...superfluous].slice(0, 10).join(", ")}; expected ${names.join(", ")} and nothing else`,
    );
  }
  const weights: Record<string, StoredWeight> = {};
  for (const parameter of layout) {
    const values = await readWeight(path, file, parameter, dtype);
    weights[parameter.name] = { values, transposed: parameter.savedTransposed };
  }
  return weights;
}

/** Factors of the latents that old versions wrote into every file, all of them 1 unless the SAE was finetuned by them. */
const finetuningFactors = "scaling_factor";

async function refuseFinetuningFactors(path: string, file: SafetensorsFile): Promise<void> {
  const factors = await file.readFloat32(finetuningFactors);
  if (factors.some((factor) => factor !== 1)) unsupported(path, `its ${finetuningFactors} is not 1 everywhere`);
}

async function readWeight(
  path: string,
  file: SafetensorsFile,
  parameter: ParameterLayout,
  dtype: SafetensorsDType | undefined,
): Promise<Float32Array> {
  const name = parameter.savedAs;
  const shape = parameter.savedTransposed ? [...parameter.shape].reverse() : parameter.shape;
  const entry = file.entries.get(name);
  if (entry === undefined)
    throw new MonosemError("ERR_NOT_FOUND", `${path}: tensor ${name} [${shape.join(", ")}] is missing`);
  // SAELens keeps the thresholds of an SAE in half precision in float32
  if (dtype !== undefined && entry.dtype !== dtype && !(name === "threshold" && entry.dtype === "F32")) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${path}: tensor ${name} is ${entry.dtype}, but cfg.json's dtype says ${dtype}`,
    );
  }
  if (entry.shape.join() !== shape.join()) {
    const transposed = shape.length === 2 && entry.shape.join() === [...shape].reverse().join();
    throw new MonosemError(
      "ERR_FORMAT",
      `${path}: tensor ${name} has shape [${entry.shape.join(", ")}], expected [${shape.join(", ")}]` +
        (transposed ? ": it is transposed" : ""),
    );
  }
  const values = await file.readFloat32(name, shape);
  refuseNonFinite(values, `${path}: tensor ${name}`);
  return values;
}

function readMetadata(metadata: Record<string, unknown>): SaeMetadata {
  const {
    model_name,
    hook_name,
    hook_names,
    hook_name_out,
    hook_widths: _,
    trained_as,
    context_size,
    prepend_bos,
    ...rest
  } = metadata as Record<string, Json>;
  const { sae_lens_version, sae_lens_training_version, ...others } = rest;
  return {
    ...others,
    ...(typeof model_name === "string" ? { modelName: model_name } : {}),
    ...(typeof hook_name === "string" ? { hookName: hook_name } : {}),
    ...(Array.isArray(hook_names) ? { hookNames: hook_names.map(String) } : {}),
    ...(typeof trained_as === "string" ? { trainedAs: trained_as } : {}),
    ...(typeof hook_name_out === "string" ? { hookNameOut: hook_name_out } : {}),
    ...(typeof context_size === "number" ? { contextSize: context_size } : {}),
    ...(typeof prepend_bos === "boolean" ? { prependBos: prepend_bos } : {}),
  };
}

function parseCfg(path: string, json: unknown): z.infer<typeof cfgSchema> {
  const result = checkedBy(cfgSchema, json);
  if (result.success) return result.data;
  throw new MonosemError("ERR_FORMAT", `${path} is no SAELens configuration: ${result.problems.join("; ")}`);
}

function inFile<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new MonosemError("ERR_FORMAT", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

function unsupported(path: string, what: string): never {
  throw new MonosemError("ERR_UNSUPPORTED", `${path}: ${what}`);
}

/** @throws MonosemError ERR_NON_FINITE */
export function refuseNonFinite(values: Float32Array, what: string): void {
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index >= 0) throw new MonosemError("ERR_NON_FINITE", `${what} holds ${values[index]} at element ${index}`);
}
