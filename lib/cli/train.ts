import { join } from "node:path";
import { type Command, Option } from "commander";
import { ActivationBuffer } from "../activations/buffer.js";
import { Corpus } from "../activations/corpus.js";
import type { ActivationSource } from "../activations/source.js";
import { StoredActivations } from "../activations/storedActivations.js";
import { percentText } from "../analysis/percentText.js";
import { visibleText } from "../analysis/visibleText.js";
import { type Device, precisions } from "../engine/device.js";
import { isAborted, MonosemError } from "../errors.js";
import { readJsonFile } from "../formats/jsonFile.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { SaeTrainingConfig } from "../sae/config.js";
import { hooksNeeded, type ModelDataConfig, parseConfig, type RunConfig } from "../training/config.js";
import { sumText } from "../training/hookColumns.js";
import { saePath } from "../training/saeNames.js";
import { prepareOutput, Trainer, type TrainingProgress } from "../training/trainer.js";
import { loadModel } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { type DeviceFlags, deviceName, threadsOption, withDevice } from "./options.js";
import { startProgress, startProgressTable } from "./progress.js";
import { adviceAfter, adviceBefore } from "./trainAdvice.js";

interface TrainFlags extends Partial<DeviceFlags> {
  readonly set?: readonly string[];
  readonly resume?: boolean;
}

export function registerTrain(program: Command): void {
  program
    .command("train")
    .argument("<config>", "JSON file with the run's configuration")
    .summary("train an SAE")
    .description(
      'Trains a sparse autoencoder as the configuration says. Its "output" folder receives sae/ (a SAELens folder), metrics.jsonl, config.json and checkpoints/. "sae" may be a list: several SAEs are then trained side by side on the same activations, each with a folder of its "name". Ctrl-C writes a checkpoint first; --resume continues from the newest one, bit for bit.',
    )
    .option(
      "--set <key=value>",
      "override one key, such as training.lr=1e-3; in a list by place, from 0: sae.1.k=64; repeatable",
      (override: string, earlier: readonly string[] = []) => [...earlier, override],
    )
    .option("--device <name>", "for --set device=NAME", deviceName)
    .addOption(new Option("--precision <name>", "for --set precision=NAME").choices(precisions))
    .addOption(threadsOption())
    .option("--resume", 'continue the run in "output"')
    .addHelpText(
      "after",
      `
A configuration, with every key that has no default:
  { "sae":      { "architecture": "topk", "dIn": 768, "dSae": 24576, "k": 32 },
    "data":     { "model": "models/gpt2", "hook": "blocks.8.hook_resid_pre", "corpus": ["texts/*.jsonl"] },
    "training": { "tokens": 200000000 },
    "output":   "runs/first" }
For activations on the disk, "data" is { "activations": "FILE.safetensors or a folder of shards" }.
On a GPU: "device": "cuda:0" (default: "auto") and "precision": "tf32" or "bfloat16", or the flags of these names.
For several SAEs, "sae" is a list: [{ "name": "small", ... }, { "name": "large", ... }].

Examples:
  monosem train run.json
  monosem train run.json --set sae.k=64 --set training.lr=1e-4 --set output=runs/k64
  monosem train several.json --set sae.0.k=16 --set sae.1.k=64
  monosem train run.json --resume`,
    )
    .action((path: string, { resume = false, ...flags }: TrainFlags) =>
      withInterruption((signal) => train(path, { set: overridesOf(flags), resume }, signal)),
    );
}

/** Where to compute is a key of the configuration; these flags are for whoever expects them. */
function overridesOf({ set = [], device, precision, threads }: TrainFlags): string[] {
  const flags = Object.entries({ device, precision, threads }).filter(([, value]) => value !== undefined);
  return [...set, ...flags.map(([key, value]) => `${key}=${value}`)];
}

interface TrainArguments {
  /** Overrides: "key=value". */
  readonly set: readonly string[];
  readonly resume: boolean;
}

async function train(path: string, flags: TrainArguments, signal: AbortSignal): Promise<void> {
  const config = parseConfig(
    await readJsonFile(path, { missing: `there is no configuration file ${path}`, malformed: "ERR_CONFIG" }),
    flags.set,
    `configuration ${path}`,
  );
  for (const advice of adviceBefore(config)) process.stderr.write(`${advice}\n`);
  // Refuses what cannot be used before a model is loaded; the trainer takes the folder for as long as it works.
  (await prepareOutput(config.output, flags.resume, signal)).release();
  await withDevice(config, async (device) => {
    using data = await beforeFirstStep(openData(config, device, signal), path, flags);
    const creating = Trainer.create({
      ...config,
      source: data.source,
      runConfig: { ...config, precision: device.precision },
      device,
      resume: flags.resume,
      signal,
    });
    using trainer = await beforeFirstStep(creating, path, flags);
    using _saes = disposingAll(trainer.saes);
    if (flags.resume) {
      process.stderr.write(`the run in ${visibleText(config.output)} ${resumptionText(trainer.step, config)}\n`);
    }
    const last = await runWithProgress(trainer, config, signal).catch((error: unknown) => {
      if (!isAborted(error)) throw error;
      const text = `training was aborted after step ${trainer.step}; continue with: ${commandLine(path, { ...flags, resume: true })}`;
      throw new MonosemError("ERR_ABORTED", text, { cause: error });
    });
    for (const progress of last) process.stdout.write(factLine(progress, config));
    for (const progress of last) {
      for (const advice of adviceAfter(progress, configOf(progress, config.sae), config.training)) {
        process.stderr.write(`${labelOf(progress)}${advice}\n`);
      }
    }
    process.stdout.write(summaryOf(config));
  });
}

/** What is done before training: after an abort, nothing is lost that a checkpoint could keep. */
async function beforeFirstStep<Result>(work: Promise<Result>, path: string, flags: TrainArguments): Promise<Result> {
  return await work.catch((error: unknown) => {
    if (!isAborted(error)) throw error;
    const text = `stopped before the first step (${error.message}); start with: ${commandLine(path, flags)}`;
    throw new MonosemError("ERR_ABORTED", text, { cause: error });
  });
}

function resumptionText(step: number, { training: { steps } }: RunConfig): string {
  if (step === 0) return "begins with its first step: there is no later checkpoint";
  return step < steps ? `continues after step ${step}` : `is finished: all ${steps} steps have been taken`;
}

/** As it would be typed in a shell. */
function commandLine(path: string, { set, resume }: TrainArguments): string {
  const overrides = set.flatMap((override) => ["--set", override]);
  const words = ["monosem", "train", path, ...overrides, ...(resume ? ["--resume"] : [])];
  return words.map((word) => (/^[\w./=:,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

interface TrainingData extends Disposable {
  readonly source: ActivationSource;
}

async function openData(config: RunConfig, device: Device, signal: AbortSignal): Promise<TrainingData> {
  const { data, training } = config;
  const hook = hooksNeeded(config);
  if ("activations" in data) {
    const { activations, shuffle } = data;
    const source = await StoredActivations.open(activations, device, { tensor: hook, shuffle, seed: training.seed });
    return { source, [Symbol.dispose]: () => source.dispose() };
  }
  const { model: name, tokenizer, corpus: globs, processing = [], targetHook: _, ...cut } = data;
  const corpus = await Corpus.fromFiles(globs);
  const processed = Object.fromEntries(processing.map((step) => [step, true]));
  const model = await loadModel(name, device, { tokenizer, signal, ...processed });
  try {
    for (const [index, sae] of [config.sae].flat().entries()) {
      checkWidths(sae, saePath(config.sae, index), data, model);
    }
    const source = await ActivationBuffer.create({ model, ...cut, hook: hook!, corpus, seed: training.seed });
    return {
      source,
      [Symbol.dispose]: () => {
        source.dispose();
        model.dispose();
      },
    };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** Says which hook point of which model does not fit, before anything runs. */
function checkWidths(sae: SaeTrainingConfig, path: string, data: ModelDataConfig, model: HookedTransformer): void {
  const hooks = [sae.hook ?? data.hook ?? []].flat();
  const target = sae.targetHook ?? data.targetHook;
  const { dIn, dOut = dIn } = sae;
  const check = (key: string, size: number, names: readonly string[]): void => {
    const widths = names.map((name) => model.hookWidth(name));
    if (widths.reduce((sum, width) => sum + width, 0) === size) return;
    const [points, are] = names.length === 1 ? ["hook point", "is"] : ["hook points", "are"];
    const where = `${points} "${names.join('" and "')}" of model "${model.config.name}"`;
    throw new MonosemError("ERR_CONFIG", `${path}.${key} is ${size}, but ${where} ${are} ${sumText(widths)} wide`);
  };
  check("dIn", dIn, hooks);
  if (target !== undefined) check("dOut", dOut, [target]);
}

/** Trains; the last that was logged of each SAE. */
async function runWithProgress(
  trainer: Trainer,
  { training: { steps }, sae }: RunConfig,
  signal: AbortSignal,
): Promise<readonly TrainingProgress[]> {
  const saes = [sae].flat();
  const names = saes.map(({ name = "training" }) => name);
  const [only] = names;
  const single = names.length === 1 ? startProgress(only!, steps, "steps") : undefined;
  const table = single === undefined ? startProgressTable(names, steps, "steps") : undefined;
  const last = new Map<string, TrainingProgress>();
  try {
    for await (const logged of trainer.run({ signal })) {
      const name = logged.name ?? only!;
      const facts = factsOf(logged, saes[names.indexOf(name)]!);
      single?.update(logged.step, facts);
      table?.update(name, logged.step, facts);
      last.set(name, logged);
    }
    return [...last.values()];
  } finally {
    single?.stop();
    table?.stop();
  }
}

function factsOf(
  { loss, l0, explainedVariance, deadFraction, tokens, skippedSteps }: TrainingProgress,
  { deadAfterTokens }: SaeTrainingConfig,
): string {
  const facts = [
    `loss ${loss.toPrecision(4)}`,
    `L0 ${l0.toFixed(1)}`,
    `explained variance ${Number.isNaN(explainedVariance) ? "-" : percentText(explainedVariance, 1)}`,
    // before that many tokens no latent can count as dead
    ...(tokens < deadAfterTokens ? [] : [`dead ${(100 * deadFraction).toFixed(1)}%`]),
    ...(skippedSteps === 0 ? [] : [`skipped ${skippedSteps}`]),
  ];
  return facts.join("  ");
}

function factLine(last: TrainingProgress, { training, sae }: RunConfig): string {
  return `${labelOf(last)}${training.steps} steps  ${factsOf(last, configOf(last, sae))}\n`;
}

function configOf({ name }: TrainingProgress, sae: RunConfig["sae"]): SaeTrainingConfig {
  const all = [sae].flat();
  return all.find((config) => config.name === name) ?? all[0]!;
}

function labelOf({ name }: TrainingProgress): string {
  return name === undefined ? "" : `${visibleText(name)}: `;
}

function summaryOf({ output, sae }: RunConfig): string {
  const folders = Array.isArray(sae)
    ? (sae as readonly SaeTrainingConfig[]).map(({ name }) => join(output, name!, "sae"))
    : [join(output, "sae")];
  return folders.map((folder) => `wrote ${visibleText(folder)}\n`).join("");
}

function disposingAll(saes: readonly Disposable[]): Disposable {
  return {
    [Symbol.dispose]: () => {
      for (const sae of saes) sae[Symbol.dispose]();
    },
  };
}
