/**
 * The configuration file of `monosem train`, and what is made of it. Every key is checked; an unknown one is an error,
 * because a misspelt option that is silently ignored costs a training run.
 */
import { z } from "zod";
import type { Json } from "../activations/source.js";
import { type Precision, precisions } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { probableName } from "../models/closestNames.js";
import { type ProcessingName, processingNames } from "../models/processing.js";
import { naturalNumber, nonNegative, positive, positiveInteger } from "../sae/architecture.js";
import { type AnyArchitecture, knownArchitectures } from "../sae/architectures.js";
import { configurationProblems, type SaeTrainingConfig } from "../sae/config.js";
import { problemText, requirement } from "../schemaMessages.js";
import { nameProblem } from "./saeNames.js";

/** Activations from a file or a folder of shards. With `shuffle` false, batches are consecutive rows, in order. */
export interface StoredDataConfig {
  readonly activations: string;
  /** What is encoded: a tensor, or several side by side (a crosscoder). By default the manifest's, or "activations". */
  readonly tensor?: string | readonly string[] | undefined;
  /** What a transcoder reconstructs. */
  readonly targetTensor?: string | undefined;
  readonly shuffle: boolean;
}

/** Activations of a language model's hook points on a corpus. */
export interface ModelDataConfig {
  readonly model: string;
  /** Where the model's tokenizer is, if not with it. */
  readonly tokenizer?: string | undefined;
  /** What is done to the model's weights before anything runs. */
  readonly processing: readonly ProcessingName[];
  /** What is encoded: a hook point, or several side by side (a crosscoder); where SAEs name their own, none. */
  readonly hook?: string | readonly string[] | undefined;
  /** What a transcoder reconstructs. */
  readonly targetHook?: string | undefined;
  readonly corpus: readonly string[];
  readonly contextSize: number;
  readonly prependBos: boolean;
  readonly excludeSpecialTokens: boolean;
  readonly bufferTokens: number;
}

export type DataConfig = StoredDataConfig | ModelDataConfig;

export interface TrainingConfig {
  /** Activations per step. */
  readonly batchSize: number;
  /** Number of steps; in the file either this or `tokens`, which gives floor(tokens / batchSize) steps. */
  readonly steps: number;
  readonly lr: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  readonly lrWarmupSteps: number;
  readonly lrDecaySteps: number;
  readonly lrSchedule: "constant" | "cosine";
  readonly l1WarmupSteps: number;
  readonly clipGradNorm: number | null;
  readonly seed: number;
  /**
   * What happens when activations, the loss or a gradient hold NaN or infinity: the run ends with an error, the step is
   * left without effect, or the run goes back to its last checkpoint and on with the next activations; after more than
   * `badStepsInARow` of them it ends all the same. Default: "stop".
   */
  readonly onNonFinite?: "stop" | "skip" | "rollback" | undefined;
  readonly logEvery: number;
  readonly checkpointEvery: number;
}

export interface RunConfig {
  /** One SAE, or several that are trained on the same batches. */
  readonly sae: SaeTrainingConfig | readonly SaeTrainingConfig[];
  readonly data: DataConfig;
  readonly training: TrainingConfig;
  readonly device: "auto" | "cpu" | `cuda:${number}`;
  /** CPU threads; by default all cores. */
  readonly threads?: number;
  /** How a GPU computes; see {@link DeviceOptions.precision}. */
  readonly precision: Precision;
  readonly output: string;
}

/**
 * More bad steps than this in a row (of rollbacks: since the last checkpoint) and a run has not met a bad batch: it is
 * broken, and ends whatever `onNonFinite` says.
 */
export const badStepsInARow = 5;

/** A name, or several whose activations lie side by side. */
const names: z.ZodType<string | string[]> = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);

/** The keys of `sae` that every architecture has. */
const commonSaeKeys = {
  dIn: positiveInteger.describe(
    "Width of the activations that are encoded; of a crosscoder the sum of its hooks' widths.",
  ),
  dSae: positiveInteger.describe("Number of latents."),
  decoderUnitNorm: z
    .boolean()
    .optional()
    .describe(
      "Keep the decoder rows at norm 1; sparsity penalties are then not weighted by the norms. Default: the architecture's.",
    ),
  deadAfterTokens: positiveInteger
    .default(10_000_000)
    .describe("A latent that has not fired for so many tokens counts as dead."),
  resampleEvery: naturalNumber
    .default(0)
    .describe("Every so many steps dead latents get new weights (Bricken et al. 2023); 0: never."),
  applyBDecToInput: z
    .boolean()
    .optional()
    .describe("The encoder sees x − b_dec. Default: true, for a transcoder always false."),
  bDecInit: z
    .enum(["zero", "geometric-median"])
    .default("zero")
    .describe("What the decoder bias starts as; the geometric median is that of the first 8,192 activations."),
  normalizeActivations: z
    .enum(["none", "expected-average-only-in", "layer-norm"])
    .default("none")
    .describe(
      "expected-average-only-in: scaled to a mean norm of √dIn (each hook of a crosscoder, and a transcoder's input and target, by itself), folded into the saved weights. layer-norm: every activation less its mean, divided by its standard deviation; the saved SAE does the same.",
    ),
  hook: names
    .optional()
    .describe(
      "Which of the hook points (of stored activations: the tensors) this SAE encodes; several make a crosscoder. Default: `data.hook` or `data.tensor`.",
    ),
  targetHook: z
    .string()
    .min(1)
    .optional()
    .describe(
      "The hook point (or tensor) that a transcoder reconstructs. Default: `data.targetHook` or `data.targetTensor`.",
    ),
  transcoder: z.boolean().optional().describe("Default: whether there is a target."),
  dOut: positiveInteger.optional().describe("Width of what a transcoder reconstructs. Default: dIn."),
  skip: z.boolean().default(false).describe("transcoders: x W_skipᵀ is added to the output, W_skip trained from 0."),
  hookWidths: z
    .array(positiveInteger)
    .min(1)
    .optional()
    .describe("Widths of a crosscoder's hooks. Default: what the hooks have."),
  name: z
    .string()
    .min(1)
    .optional()
    .describe(
      "In a list of SAEs: its folder in the output. A single SAE has none. Default: its place in the list and its architecture.",
    ),
  seed: naturalNumber.optional().describe("Of the initial weights. Default: `training.seed`."),
  init: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Folder of an SAE to start from, of the same architecture and sizes; batchtopk and matryoshka start from what they were saved as.",
    ),
};

/**
 * The options of the other architectures are checked and left out, so that one file serves to compare architectures
 * (`--set sae.architecture=relu`).
 *
 * @param steps of the run, where they are known
 */
function saeSchema(
  architecture: AnyArchitecture,
  targetInData: boolean,
  steps: number | undefined,
): z.ZodType<SaeTrainingConfig> {
  const { name, options, trainingOptions, decoderUnitNorm } = architecture;
  const own: Record<string, z.ZodType> = { ...options, ...trainingOptions };
  const others: Record<string, z.ZodType> = {};
  for (const other of knownArchitectures().values()) {
    for (const [key, type] of Object.entries<z.ZodType>({ ...other.options, ...other.trainingOptions })) {
      if (!(key in own)) others[key] = type.optional();
    }
  }
  return z
    .strictObject({
      architecture: z.literal(name),
      ...commonSaeKeys,
      decoderUnitNorm: commonSaeKeys.decoderUnitNorm.default(decoderUnitNorm),
      ...own,
      ...others,
    })
    .transform(({ transcoder, applyBDecToInput, ...sae }) => {
      const isTranscoder = transcoder ?? (targetInData || sae.targetHook !== undefined);
      const kept = Object.entries(sae).filter(([key, value]) => !(key in others) && value !== undefined);
      return {
        ...Object.fromEntries(kept),
        transcoder: isTranscoder,
        applyBDecToInput: applyBDecToInput ?? !isTranscoder,
      } as unknown as SaeTrainingConfig;
    })
    .superRefine((sae, context) => {
      for (const [option, message] of configurationProblems(sae, steps)) {
        context.addIssue({ code: "custom", path: [option], message, input: (sae as never)[option] });
      }
    }) as unknown as z.ZodType<SaeTrainingConfig>;
}

/** The keys of `data` for stored activations. */
const storedDataKeys = {
  activations: z
    .string()
    .min(1)
    .describe("A safetensors file with a tensor [tokens, dIn] (f32, f16 or bf16), or a folder of such shards."),
  tensor: names
    .optional()
    .describe(
      "Name of the tensor, or of several side by side (a crosscoder). Default: the folder's manifest's, or activations.",
    ),
  targetTensor: z.string().min(1).optional().describe("The tensor that a transcoder reconstructs."),
  shuffle: z
    .boolean()
    .default(true)
    .describe("Another random order in every pass over the activations; false: the order of the file."),
};

/** The keys of `data` for a language model's activations. */
const modelDataKeys = {
  model: z
    .string()
    .min(1)
    .describe(
      "Folder of a language model in the Hugging Face layout, file of llama2.c, or name of a model on the hub.",
    ),
  tokenizer: z
    .string()
    .min(1)
    .optional()
    .describe("Folder of the model's tokenizer, or file of a llama2.c tokenizer. Default: beside the model."),
  processing: z
    .array(z.enum(processingNames))
    .default([])
    .describe("What is done to the model's weights, as TransformerLens does by default; SAEs remember it."),
  hook: names
    .optional()
    .describe(
      "TransformerLens' name of the hook point that is encoded, or of several side by side (a crosscoder). Needed unless every SAE names its own.",
    ),
  targetHook: z.string().min(1).optional().describe("The hook point that a transcoder reconstructs."),
  corpus: z
    .array(z.string().min(1))
    .min(1)
    .describe(
      "Globs of .txt files, .jsonl files (objects with a `text`) and .parquet files (a column `text`). Gone through again and again where the run is longer.",
    ),
  contextSize: positiveInteger.default(128).describe("Texts are joined and cut into contexts of so many tokens."),
  prependBos: z.boolean().default(true).describe("Every context begins with the BOS token."),
  excludeSpecialTokens: z.boolean().default(true).describe("Leave BOS and the like out of training."),
  bufferTokens: positiveInteger.default(65_536).describe("Activations held for shuffling."),
};

const storedDataSchema: z.ZodType<StoredDataConfig> = z.strictObject(storedDataKeys);
const modelDataSchema: z.ZodType<ModelDataConfig> = z.strictObject(modelDataKeys);

const momentDecay = z.number().min(0).lt(1);

/** The keys of `training`. */
const trainingKeys = {
  steps: positiveInteger.optional().describe("How long: number of steps. Either this or `tokens` is needed."),
  tokens: positiveInteger
    .optional()
    .describe("How long: number of activations; a last batch that is not full is left out."),
  batchSize: positiveInteger.default(4096).describe("Activations per step."),
  lr: positive.default(3e-4).describe("Adam's learning rate."),
  lrSchedule: z
    .enum(["constant", "cosine"])
    .default("constant")
    .describe("cosine: down to a tenth, between warm-up and decay."),
  lrWarmupSteps: naturalNumber.default(0).describe("Linear rise of the learning rate at the start."),
  lrDecaySteps: naturalNumber.default(0).describe("Linear fall of the learning rate to 0 at the end."),
  l1WarmupSteps: naturalNumber
    .default(0)
    .describe("Linear rise of the sparsity coefficient (l1Coefficient, l0Coefficient) at the start."),
  adamBeta1: momentDecay.default(0.9).describe("Decay of the gradient's running mean."),
  adamBeta2: momentDecay.default(0.999).describe("Decay of the squared gradient's running mean."),
  adamEpsilon: nonNegative.default(1e-8).describe("Added to the root of the squared gradient's mean."),
  clipGradNorm: positive.nullable().default(1).describe("Largest global L2 norm of the gradient; null: no clipping."),
  seed: naturalNumber.default(0).describe("Of initial weights and shuffling."),
  onNonFinite: z
    .enum(["stop", "skip", "rollback"])
    .default("stop")
    .describe(
      `When activations, the loss or a gradient hold NaN or infinity: end the run with an error; leave that step without effect; or go back to the last checkpoint (of which there is none before step checkpointEvery) and on with the next activations. More than ${badStepsInARow} such steps in a row, with rollback since the last checkpoint, end the run all the same.`,
    ),
  logEvery: positiveInteger.default(10).describe("Steps between lines of metrics.jsonl."),
  checkpointEvery: positiveInteger.default(1000).describe("Steps between checkpoints."),
};

/** The keys outside of the sections. */
const runKeys = {
  device: z
    .string()
    .regex(/^(auto|cpu|cuda:\d+)$/, 'must be "auto", "cpu" or "cuda:N"')
    .default("auto")
    .describe('"auto" or "cpu"; "cuda:N" needs a build with CUDA.'),
  threads: positiveInteger.optional().describe("CPU threads. Default: all cores."),
  precision: z
    .enum(precisions)
    .default("float32")
    .describe(
      'How a GPU computes: matrix products in "float32"; in "tf32", factors rounded to 10 bits; in "bfloat16", to 8 bits, and so are the rows that decoders and gradients gather, which is several times as fast. Weights and sums are float32 in all of them. The CPU computes in float32.',
    ),
  output: z
    .string()
    .min(1)
    .describe("Folder for the SAE, metrics.jsonl, config.json and checkpoints; of several SAEs a folder each."),
};

/** The keys of the configuration file by section, each with its description; those of architectures are theirs. */
export const configurationKeys: Readonly<
  Record<"run" | "sae" | "storedData" | "modelData" | "training", Readonly<Record<string, z.ZodType>>>
> = {
  run: runKeys,
  sae: commonSaeKeys,
  storedData: storedDataKeys,
  modelData: modelDataKeys,
  training: trainingKeys,
};

const trainingSchema: z.ZodType<TrainingConfig> = z
  .strictObject(trainingKeys)
  .superRefine(({ tokens, steps, batchSize, ...schedule }, context) => {
    const complain = (path: string, message: string): void =>
      context.addIssue({ code: "custom", path: [path], message });
    if ((tokens === undefined) === (steps === undefined))
      complain("steps", 'exactly one of "steps" and "tokens" is needed');
    if (tokens !== undefined && tokens < batchSize) complain("tokens", `must be at least one batch (${batchSize})`);
    const total = steps ?? Math.floor((tokens ?? Number.POSITIVE_INFINITY) / batchSize);
    if (total <= 0) return; // whatever makes it so is the problem
    for (const key of ["lrWarmupSteps", "lrDecaySteps", "l1WarmupSteps"] as const) {
      if (schedule[key] > total) {
        const message = `must be at most the number of steps (${total})`;
        context.addIssue({ code: "custom", path: [key], message, input: schedule[key] });
      }
    }
  })
  .transform(({ tokens, steps, ...rest }) => ({ ...rest, steps: steps ?? Math.floor((tokens ?? 0) / rest.batchSize) }));

/**
 * Reads a configuration, with overrides of the form `a.b=v` applied first (v as JSON, or as text where it is none). One of
 * `training.steps` or `training.tokens` takes the place of the other.
 *
 * @param name - what messages call the configuration
 * @throws MonosemError ERR_CONFIG with one line per problem, each naming the key's path, what is expected and found.
 */
export function parseConfig(json: unknown, overrides: readonly string[] = [], name = "configuration"): RunConfig {
  const config = overrides.reduce(applyOverride, withoutReplacedLength(json, overrides));
  const sections = isObject(config) ? config : {};
  const data = isObject(sections.data) ? sections.data : {};
  const stored = "activations" in data;
  const target = stored ? data.targetTensor : data.targetHook;
  const steps = stepsIn(sections.training);
  const oneSae = (sae: unknown): z.ZodType => schemaOfSae(sae, target !== undefined, steps);
  const schema = z
    .strictObject({
      sae: Array.isArray(sections.sae) ? listOfSaes(sections.sae.map(oneSae)) : singleSae(oneSae(sections.sae)),
      data: stored ? storedDataSchema : modelDataSchema,
      training: trainingSchema,
      ...runKeys,
    })
    .superRefine((run, context) => {
      if (steps !== undefined) refuseEmptySelections(run as unknown as RunConfig, context);
      if ("activations" in run.data || run.data.hook !== undefined) return;
      const saes = [(run as unknown as RunConfig).sae].flat();
      if (saes.every(({ hook }) => hook !== undefined)) return;
      context.addIssue({ code: "custom", path: ["data", "hook"], message: "is needed unless every SAE names its own" });
    });
  return withHooks(checkedRun(schema, config, name, stored) as RunConfig);
}

/**
 * The sections of a run that is put together in a program, checked as `parseConfig` checks them, with what is missing
 * filled in. What `parseConfig` gave passes unchanged.
 *
 * @param name - what messages call them
 * @throws MonosemError ERR_CONFIG as `parseConfig`
 */
export function checkedSections(
  { sae, training }: { readonly sae: unknown; readonly training: unknown },
  name: string,
): Pick<RunConfig, "sae" | "training"> {
  const steps = stepsIn(training);
  const oneSae = (one: unknown): z.ZodType => schemaOfSae(one, false, steps);
  // Names belong to the list as the trainer sees it; z.tuple wants at least one entry.
  const list = (saes: readonly unknown[]): z.ZodType =>
    saes.length === 0 ? z.array(z.unknown()) : z.tuple(saes.map(oneSae) as [z.ZodType, ...z.ZodType[]]);
  const schema = z
    .strictObject({ sae: Array.isArray(sae) ? list(sae) : oneSae(sae), training: trainingSchema })
    .superRefine((sections, context) => {
      if (steps !== undefined) refuseEmptySelections(sections as unknown as RunConfig, context);
    });
  return checkedRun(schema, { sae, training }, name, true) as Pick<RunConfig, "sae" | "training">;
}

/** The number of steps that a section `training` says, if it is without mistakes. */
function stepsIn(training: unknown): number | undefined {
  return trainingSchema.safeParse(training).data?.steps;
}

/** The branches are chosen by hand, so that a problem is reported against the one meant and not against all. */
function schemaOfSae(sae: unknown, targetInData: boolean, steps: number | undefined): z.ZodType {
  const known = knownArchitectures();
  const architecture = known.get(String(isObject(sae) ? sae.architecture : undefined));
  return architecture === undefined
    ? z.looseObject({ architecture: z.enum([...known.keys()]) })
    : saeSchema(architecture, targetInData, steps);
}

/** @param stored - which kind of `data` was chosen */
function checkedRun(schema: z.ZodType, run: unknown, name: string, stored: boolean): unknown {
  const result = schema.safeParse(run, { reportInput: true, error: requirement });
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => `${[...issue.path, key].join(".")}: ${unknownKey(key, issue.path[0], stored)}`)
      : problemText(issue),
  );
  throw new MonosemError("ERR_CONFIG", `${name}: ${problems.join("\n  ")}`);
}

/** A batch of which no latent is selected would teach nothing. */
function refuseEmptySelections({ sae, training: { batchSize } }: RunConfig, context: z.RefinementCtx): void {
  for (const [index, one] of [sae].flat().entries()) {
    if (one.architecture !== "batchtopk" && one.architecture !== "matryoshka") continue;
    if (one.k * batchSize >= 1) continue;
    const path = ["sae", ...(Array.isArray(sae) ? [index] : []), "k"];
    const message = `must select at least one latent per batch: at least 1 / training.batchSize (${1 / batchSize})`;
    context.addIssue({ code: "custom", path, message, input: one.k });
  }
}

/** One SAE, whose folder needs no name. */
function singleSae(schema: z.ZodType): z.ZodType {
  return schema.superRefine((sae, context) => {
    const { name } = sae as SaeTrainingConfig;
    if (name === undefined) return;
    const message = 'is for SAEs in a list; a single one is written to "output" itself';
    context.addIssue({ code: "custom", path: ["name"], message, input: name });
  });
}

/** Several SAEs: each with a name, by default its place in the list and its architecture. */
function listOfSaes(each: readonly z.ZodType[]): z.ZodType {
  const named = each.map((schema, index) =>
    schema.transform((sae) => {
      const { name, architecture, ...rest } = sae as SaeTrainingConfig;
      return { name: name ?? `${index + 1}-${architecture}`, architecture, ...rest };
    }),
  );
  if (named.length === 0) return z.array(z.unknown()).min(1);
  return z.tuple(named as unknown as [z.ZodType, ...z.ZodType[]]).superRefine((saes, context) => {
    const names = (saes as readonly SaeTrainingConfig[]).map(({ name }) => name);
    for (const [index, name] of names.entries()) {
      const message = names.indexOf(name) === index ? nameProblem(name!) : "another SAE has this name";
      if (message !== undefined) context.addIssue({ code: "custom", path: [index, "name"], message, input: name });
    }
  });
}

/**
 * The hook points (of stored activations: the tensors) that a run needs, in the order in which its source should hold
 * them; undefined for stored activations whose tensor has the default name.
 */
export function hooksNeeded({ sae, data }: Pick<RunConfig, "sae" | "data">): readonly string[] | undefined {
  const { input, target } = hooksOf(data);
  const needed = [sae].flat().flatMap((one) => [one.hook ?? input, one.targetHook ?? target].flat());
  const found = [...new Set(needed)].filter((name) => name !== undefined);
  return found.length === 0 ? undefined : found;
}

/** What `data` says is encoded and reconstructed, where an SAE does not say so itself. */
function hooksOf(data: DataConfig): { input: ModelDataConfig["hook"]; target: string | undefined } {
  if (!("activations" in data)) return { input: data.hook, target: data.targetHook };
  const { tensor, targetTensor } = data;
  return { input: tensor ?? (targetTensor === undefined ? undefined : "activations"), target: targetTensor };
}

/** Lets every SAE that does not take all that the source holds say what it takes. */
function withHooks(config: RunConfig): RunConfig {
  const { data } = config;
  const { input, target } = hooksOf(data);
  const needed = hooksNeeded(config)?.join("\n");
  const complete = (sae: SaeTrainingConfig): SaeTrainingConfig => {
    const hook = sae.hook ?? input;
    const targetHook = sae.targetHook ?? target;
    const all = [hook].flat().join("\n") === needed && targetHook === undefined;
    return {
      ...sae,
      ...(all || hook === undefined ? {} : { hook }),
      ...(targetHook === undefined ? {} : { targetHook }),
    };
  };
  const isList = (sae: RunConfig["sae"]): sae is readonly SaeTrainingConfig[] => Array.isArray(sae);
  return { ...config, sae: isList(config.sae) ? config.sae.map(complete) : complete(config.sae) };
}

/** What is wrong with a key that the section (of `data`, the kind that was chosen) does not have. */
function unknownKey(key: string, section: PropertyKey | undefined, stored: boolean): string {
  if (section === "data" && key in (stored ? modelDataKeys : storedDataKeys)) {
    const [kind, other] = stored ? ["activations", "model"] : ["model", "activations"];
    const problem = key === other ? "excludes" : `goes with data.${other}, which excludes`;
    return `${problem} data.${kind}: give activations that there are already, or a model that makes them`;
  }
  const near = probableName(key, keysOf(section, stored));
  return `unknown key${near === undefined ? "" : `; did you mean "${near}"?`}`;
}

function keysOf(section: PropertyKey | undefined, stored: boolean): readonly string[] {
  if (section === undefined) return ["sae", "data", "training", ...Object.keys(runKeys)];
  if (section === "data") return Object.keys(stored ? storedDataKeys : modelDataKeys);
  if (section === "training") return Object.keys(trainingKeys);
  const architectures = [...knownArchitectures().values()];
  return [
    ...["architecture", ...Object.keys(commonSaeKeys)],
    ...architectures.flatMap(({ options, trainingOptions }) => Object.keys({ ...options, ...trainingOptions })),
  ];
}

/** A run's length is said in steps or in tokens: an override of the one is meant instead of the file's other. */
function withoutReplacedLength(config: unknown, overrides: readonly string[]): unknown {
  if (!isObject(config) || !isObject(config.training)) return config;
  const isSet = (key: string): boolean => overrides.some((override) => override.startsWith(`training.${key}=`));
  if (isSet("steps") === isSet("tokens")) return config;
  const replaced = isSet("steps") ? "tokens" : "steps";
  const training = Object.fromEntries(Object.entries(config.training).filter(([key]) => key !== replaced));
  return { ...config, training };
}

/** `config` with the value at the dotted path replaced; the original stays as it is. */
function applyOverride(config: unknown, override: string): unknown {
  const match = /^([^=]+)=(.*)$/s.exec(override);
  if (match === null) {
    const missing = override.startsWith("=") ? "key" : '"="';
    throw new MonosemError("ERR_CONFIG", `override "${override}" has no ${missing}; write it as section.key=value`);
  }
  const [, path, text] = match as unknown as [string, string, string];
  return replaced(config, path.split("."), parseValue(text), path);
}

function replaced(config: unknown, [key, ...rest]: readonly string[], value: Json, path: string): unknown {
  if (key === undefined) return value;
  if (key === "" || key === "__proto__") throw new MonosemError("ERR_CONFIG", `override "${path}" names no key`);
  if (Array.isArray(config)) {
    const index = /^\d+$/.test(key) ? Number(key) : undefined;
    if (index === undefined || index >= config.length) {
      const above = path
        .split(".")
        .slice(0, -1 - rest.length)
        .join(".");
      const example = [above, 0, ...(index === undefined ? [key] : []), ...rest].join(".");
      throw new MonosemError(
        "ERR_CONFIG",
        `override "${path}": "${above}" is a list of ${config.length}: say which by its place, counted from 0, as in "${example}"`,
      );
    }
    return config.map((entry, i) => (i === index ? replaced(entry, rest, value, path) : entry));
  }
  if (config !== undefined && !isObject(config)) {
    throw new MonosemError("ERR_CONFIG", `override "${path}": there is no section to hold "${key}"`);
  }
  return { ...config, [key]: replaced(config?.[key], rest, value, path) };
}

function parseValue(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
