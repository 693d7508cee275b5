/**
 * The configuration file of `monosem train`, and what is made of it. Every key is checked; an unknown one is an error,
 * because a misspelt option that is silently ignored costs a training run.
 */
import { z } from "zod";
import type { Json } from "../activations/source.js";
import { MonosemError } from "../errors.js";
import { naturalNumber, nonNegative, positive, positiveInteger } from "../sae/architecture.js";
import { type AnyArchitecture, knownArchitectures } from "../sae/architectures.js";
import { configurationProblems, type SaeTrainingConfig } from "../sae/config.js";

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
   * left without effect, or the run goes back to its last checkpoint and on with the next activations.
   */
  readonly onNonFinite: "stop" | "skip" | "rollback";
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
  readonly output: string;
}

/** A name, or several whose activations lie side by side. */
const names: z.ZodType<string | string[]> = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);

const commonSaeKeys = {
  name: z.string().min(1).optional(),
  hook: names.optional(),
  targetHook: z.string().min(1).optional(),
  dIn: positiveInteger,
  dSae: positiveInteger,
  dOut: positiveInteger.optional(),
  skip: z.boolean().default(false),
  hookWidths: z.array(positiveInteger).min(1).optional(),
  deadAfterTokens: positiveInteger.default(10_000_000),
  resampleEvery: naturalNumber.default(0),
  bDecInit: z.enum(["zero", "geometric-median"]).default("zero"),
  normalizeActivations: z.enum(["none", "expected-average-only-in", "layer-norm"]).default("none"),
  seed: naturalNumber.optional(),
  init: z.string().min(1).optional(),
};

/**
 * The options of the other architectures are checked and left out, so that one file serves to compare architectures
 * (`--set sae.architecture=relu`).
 */
function saeSchema(architecture: AnyArchitecture, targetInData: boolean): z.ZodType<SaeTrainingConfig> {
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
      transcoder: z.boolean().optional(),
      applyBDecToInput: z.boolean().optional(),
      decoderUnitNorm: z.boolean().default(decoderUnitNorm),
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
      for (const [option, message] of configurationProblems(sae)) {
        context.addIssue({ code: "custom", path: [option], message, input: (sae as never)[option] });
      }
    }) as unknown as z.ZodType<SaeTrainingConfig>;
}

const storedDataSchema: z.ZodType<StoredDataConfig> = z.strictObject({
  activations: z.string().min(1),
  tensor: names.optional(),
  targetTensor: z.string().min(1).optional(),
  shuffle: z.boolean().default(true),
});

const modelDataSchema: z.ZodType<ModelDataConfig> = z.strictObject({
  model: z.string().min(1),
  hook: names.optional(),
  targetHook: z.string().min(1).optional(),
  corpus: z.array(z.string().min(1)).min(1),
  contextSize: positiveInteger.default(128),
  prependBos: z.boolean().default(true),
  excludeSpecialTokens: z.boolean().default(true),
  bufferTokens: positiveInteger.default(65_536),
});

const momentDecay = z.number().min(0).lt(1);

const trainingSchema: z.ZodType<TrainingConfig> = z
  .strictObject({
    batchSize: positiveInteger.default(4096),
    tokens: positiveInteger.optional(),
    steps: positiveInteger.optional(),
    lr: positive.default(3e-4),
    adamBeta1: momentDecay.default(0.9),
    adamBeta2: momentDecay.default(0.999),
    adamEpsilon: nonNegative.default(1e-8),
    lrWarmupSteps: naturalNumber.default(0),
    lrDecaySteps: naturalNumber.default(0),
    lrSchedule: z.enum(["constant", "cosine"]).default("constant"),
    l1WarmupSteps: naturalNumber.default(0),
    clipGradNorm: positive.nullable().default(1),
    seed: naturalNumber.default(0),
    onNonFinite: z.enum(["stop", "skip", "rollback"]).default("stop"),
    logEvery: positiveInteger.default(10),
    checkpointEvery: positiveInteger.default(1000),
  })
  .superRefine(({ tokens, steps, batchSize }, context) => {
    const complain = (path: string, message: string): void =>
      context.addIssue({ code: "custom", path: [path], message });
    if ((tokens === undefined) === (steps === undefined))
      complain("steps", 'exactly one of "steps" and "tokens" is needed');
    if (tokens !== undefined && tokens < batchSize) complain("tokens", `must be at least one batch (${batchSize})`);
  })
  .transform(({ tokens, steps, ...rest }) => ({ ...rest, steps: steps ?? Math.floor((tokens ?? 0) / rest.batchSize) }));

/**
 * Reads a configuration, with overrides of the form `a.b=v` applied first (v as JSON, or as text where it is none).
 *
 * @throws MonosemError ERR_CONFIG with one line per problem, each naming the key's path, what is expected and found.
 */
export function parseConfig(json: unknown, overrides: readonly string[] = []): RunConfig {
  const config = overrides.reduce(applyOverride, json);
  const sections = isObject(config) ? config : {};
  const data = isObject(sections.data) ? sections.data : {};
  const target = "activations" in data ? data.targetTensor : data.targetHook;
  // the branches are chosen by hand, so that a problem is reported against the one meant and not against all
  const oneSae = (sae: unknown): z.ZodType => {
    const { architecture: name } = isObject(sae) ? sae : {};
    const architecture = knownArchitectures().get(String(name));
    const known = [...knownArchitectures().keys()];
    return architecture === undefined
      ? z.looseObject({ architecture: z.enum(known) })
      : saeSchema(architecture, target !== undefined);
  };
  const schema = z
    .strictObject({
      sae: Array.isArray(sections.sae) ? listOfSaes(sections.sae.map(oneSae)) : oneSae(sections.sae),
      data: "activations" in data ? storedDataSchema : modelDataSchema,
      training: trainingSchema,
      device: z
        .string()
        .regex(/^(auto|cpu|cuda:\d+)$/, 'must be "auto", "cpu" or "cuda:N"')
        .default("auto"),
      threads: positiveInteger.optional(),
      output: z.string().min(1),
    })
    .superRefine((run, context) => {
      if ("activations" in run.data || run.data.hook !== undefined) return;
      const saes = [(run as unknown as RunConfig).sae].flat();
      if (saes.every(({ hook }) => hook !== undefined)) return;
      context.addIssue({ code: "custom", path: ["data", "hook"], message: "is needed unless every SAE names its own" });
    });
  const result = schema.safeParse(config, { reportInput: true });
  if (!result.success) {
    throw new MonosemError("ERR_CONFIG", `configuration: ${result.error.issues.map(describe).join("\n  ")}`);
  }
  return withHooks(result.data as unknown as RunConfig);
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
      if (names.indexOf(name) === index) continue;
      context.addIssue({ code: "custom", path: [index, "name"], message: "another SAE has this name", input: name });
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

/** One problem as "path: what is wrong (found ...)". */
function describe(issue: z.core.$ZodIssue): string {
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    return `${issue.keys.map((key) => [...issue.path, key].join(".")).join(", ")}: unknown key`;
  }
  const message = issue.message.replace(/, received .*$/, "");
  if (path === "") return message;
  if (issue.code === "custom" && isObject(issue.input)) return `${path}: ${message}`;
  const found = issue.input === undefined ? "missing" : `found ${JSON.stringify(issue.input)}`;
  return `${path}: ${message} (${found})`;
}

/** `config` with the value at the dotted path replaced; the original stays as it is. */
function applyOverride(config: unknown, override: string): unknown {
  const match = /^([^=]+)=(.*)$/s.exec(override);
  if (match === null) {
    throw new MonosemError("ERR_CONFIG", `override "${override}" has no "="; write it as section.key=value`);
  }
  const [, path, text] = match as unknown as [string, string, string];
  return replaced(config, path.split("."), parseValue(text), path);
}

function replaced(config: unknown, [key, ...rest]: readonly string[], value: Json, path: string): unknown {
  if (key === undefined) return value;
  if (key === "" || key === "__proto__") throw new MonosemError("ERR_CONFIG", `override "${path}" names no key`);
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
