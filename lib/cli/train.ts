import { join } from "node:path";
import type { Command } from "commander";
import { ActivationBuffer } from "../activations/buffer.js";
import { Corpus } from "../activations/corpus.js";
import type { ActivationSource } from "../activations/source.js";
import { StoredActivations } from "../activations/storedActivations.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import type { SaeMetadata } from "../sae/sae.js";
import { parseConfig, type RunConfig } from "../training/config.js";
import { Trainer, type TrainingProgress } from "../training/trainer.js";
import { withInterruption } from "./interruption.js";
import { withDevice } from "./options.js";
import { startProgress } from "./progress.js";

interface TrainFlags {
  readonly set?: readonly string[];
  readonly resume?: boolean;
}

export function registerTrain(program: Command): void {
  program
    .command("train")
    .argument("<config>", "JSON file with the run's configuration")
    .summary("train an SAE")
    .description(
      'Trains a sparse autoencoder as the configuration says. Its "output" folder receives sae/ (a SAELens folder), metrics.jsonl, config.json and checkpoints/. Ctrl-C writes a checkpoint first; --resume continues from the newest one, bit for bit.',
    )
    .option(
      "--set <key=value>",
      "override one key, such as training.lr=1e-3; repeatable",
      (override: string, earlier: readonly string[] = []) => [...earlier, override],
    )
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

Examples:
  monosem train run.json
  monosem train run.json --set sae.k=64 --set training.lr=1e-4 --set output=runs/k64
  monosem train run.json --resume`,
    )
    .action((path: string, flags: TrainFlags) => withInterruption((signal) => train(path, flags, signal)));
}

async function train(path: string, flags: TrainFlags, signal: AbortSignal): Promise<void> {
  const config = parseConfig(
    await readJsonFile(path, { missing: `there is no configuration file ${path}`, malformed: "ERR_CONFIG" }),
    flags.set ?? [],
  );
  await withDevice(config, async (device) => {
    using data = await openData(config, device);
    using trainer = await Trainer.create({
      ...config,
      source: data.source,
      metadata: data.metadata,
      runConfig: config,
      device,
      resume: flags.resume ?? false,
      signal,
    });
    using _sae = trainer.sae;
    if (flags.resume) {
      const from = trainer.step > 0 ? `continues after step ${trainer.step}` : "finds no checkpoint and starts anew";
      process.stderr.write(`the run in ${visibleText(config.output)} ${from}\n`);
    }
    const last = await runWithProgress(trainer, config, signal);
    process.stdout.write(summaryOf(last, config));
  });
}

interface TrainingData extends Disposable {
  readonly source: ActivationSource;
  readonly metadata: SaeMetadata;
}

async function openData({ data, training, sae }: RunConfig, device: Device): Promise<TrainingData> {
  if ("activations" in data) {
    const { activations, tensor, shuffle } = data;
    const source = await StoredActivations.open(activations, device, { tensor, shuffle, seed: training.seed });
    return { source, metadata: {}, [Symbol.dispose]: () => source.dispose() };
  }
  const { model: directory, hook, corpus: globs, contextSize, prependBos, excludeSpecialTokens, bufferTokens } = data;
  const corpus = await Corpus.fromFiles(globs);
  const model = await HookedTransformer.load(directory, device);
  try {
    const width = model.hookWidth(hook);
    if (width !== sae.dIn) {
      throw new MonosemError(
        "ERR_CONFIG",
        `sae.dIn is ${sae.dIn}, but hook point "${hook}" of model "${model.config.name}" is ${width} wide`,
      );
    }
    const cut = { contextSize, prependBos };
    const source = await ActivationBuffer.create({
      model,
      hook,
      corpus,
      ...cut,
      excludeSpecialTokens,
      bufferTokens,
      seed: training.seed,
    });
    return {
      source,
      metadata: { modelName: model.config.name, hookName: hook, ...cut },
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

async function runWithProgress(
  trainer: Trainer,
  { training: { steps }, sae: { deadAfterTokens } }: RunConfig,
  signal: AbortSignal,
): Promise<TrainingProgress | undefined> {
  const progress = startProgress("training", steps, "steps");
  let last: TrainingProgress | undefined;
  try {
    for await (const logged of trainer.run({ signal })) {
      progress.update(logged.step, factsOf(logged, deadAfterTokens));
      last = logged;
    }
    return last;
  } finally {
    progress.stop();
  }
}

function factsOf(
  { loss, l0, explainedVariance, deadFraction, tokens }: TrainingProgress,
  deadAfterTokens: number,
): string {
  const facts = [
    `loss ${loss.toPrecision(4)}`,
    `L0 ${l0.toFixed(1)}`,
    `explained variance ${(100 * explainedVariance).toFixed(1)}%`,
    // before that many tokens no latent can count as dead
    ...(tokens < deadAfterTokens ? [] : [`dead ${(100 * deadFraction).toFixed(1)}%`]),
  ];
  return facts.join("  ");
}

function summaryOf(last: TrainingProgress | undefined, { output, training, sae }: RunConfig): string {
  const facts = last === undefined ? "" : `  ${factsOf(last, sae.deadAfterTokens)}`;
  return `${training.steps} steps${facts}\nwrote ${visibleText(join(output, "sae"))}\n`;
}
