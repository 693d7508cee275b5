import type { Command } from "commander";
import { Corpus } from "../activations/corpus.js";
import { StoredActivations } from "../activations/storedActivations.js";
import { evaluateInModel } from "../analysis/modelEvaluation.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { evaluate } from "../sae/evaluation.js";
import { Sae } from "../sae/sae.js";
import { addCorpusOptions, type CorpusFlags, contextsForSae } from "./corpusOptions.js";
import { withInterruption } from "./interruption.js";
import { type DeviceFlags, deviceOption, positiveInteger, threadsOption, withDevice } from "./options.js";
import { startProgress } from "./progress.js";

interface EvalFlags extends DeviceFlags, CorpusFlags {
  readonly sae: string;
  readonly activations?: string;
  readonly tensor?: string;
  readonly batchSize: number;
  readonly model?: string;
  readonly hook?: string;
  readonly corpus?: readonly string[];
  readonly json?: boolean;
}

export function registerEval(program: Command): void {
  const command = program
    .command("eval")
    .summary("measure how well an SAE reconstructs")
    .description(
      `On stored activations (--activations): l0, mse (summed over dIn, averaged over rows), fvu, explainedVariance, cosine, deadFraction (latents that fire on no row).

In the model (--model, --corpus): ceClean, ceSae, ceZero (cross-entropy in nats per token, untouched, with the SAE, with zeros at the hook point), lossRecovered and klDivergence. Special tokens keep their activations.`,
    )
    .requiredOption("--sae <dir>", "folder of the SAE")
    .option("--activations <file>", "safetensors file, or folder of shards, of activations")
    .option("--tensor <name>", 'name of the tensor in the file (default: "activations")')
    .option("--batch-size <n>", "rows at a time", positiveInteger, 4096)
    .option("--model <dir>", "folder of the model that the SAE was trained on")
    .option("--hook <name>", "hook point (default: the SAE's)")
    .option("--corpus <glob...>", "text files (.txt, .jsonl)")
    .option("--json", "print one JSON object");
  addCorpusOptions(command, 100_000)
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem eval --sae runs/first/sae --activations heldout.safetensors --json
  monosem eval --sae runs/first/sae --activations heldout.safetensors --model models/gpt2 --corpus 'heldout/*.txt'`,
    )
    .action((flags: EvalFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => evaluateSae(flags, device, signal))),
    );
}

async function evaluateSae(flags: EvalFlags, device: Device, signal: AbortSignal): Promise<void> {
  const { activations, model, corpus } = flags;
  if ((model === undefined) !== (corpus === undefined)) {
    throw new MonosemError("ERR_CONFIG", "--model and --corpus belong together: give both or neither");
  }
  if (activations === undefined && model === undefined) {
    throw new MonosemError("ERR_CONFIG", "nothing to evaluate on: give --activations, or --model and --corpus, or all");
  }
  using sae = await Sae.load(flags.sae, device);
  const metrics: Record<string, number> = {};
  if (activations !== undefined) Object.assign(metrics, await onActivations(sae, activations, flags, signal));
  if (model !== undefined && corpus !== undefined) {
    Object.assign(metrics, await inModel(sae, model, corpus, flags, signal));
  }
  for (const [name, value] of Object.entries(metrics)) {
    if (!Number.isFinite(value)) {
      throw new MonosemError("ERR_NON_FINITE", `${name} is ${value}: are the activations all the same, or too large?`);
    }
  }
  const lines = Object.entries(metrics).map(([name, value]) => `${name.padEnd(18)}${value}\n`);
  process.stdout.write(flags.json ? `${JSON.stringify(metrics)}\n` : lines.join(""));
}

async function onActivations(
  sae: Sae,
  path: string,
  flags: EvalFlags,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const source = await StoredActivations.open(path, sae.device, {
    ...(flags.tensor === undefined ? {} : { tensor: flags.tensor }),
    shuffle: false,
    seed: 0,
  });
  try {
    const { l0, mse, fvu, explainedVariance, cosine, deadFraction } = await evaluate(sae, source, {
      batchSize: flags.batchSize,
      tokens: source.rows, // stored activations start again after the last row
      signal,
    });
    return { l0, mse, fvu, explainedVariance, cosine, deadFraction };
  } finally {
    source.dispose();
  }
}

async function inModel(
  sae: Sae,
  directory: string,
  globs: readonly string[],
  flags: EvalFlags,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  using model = await HookedTransformer.load(directory, sae.device);
  const contexts = contextsForSae(await Corpus.fromFiles(globs), model, sae, flags);
  const progress = startProgress("evaluating", undefined, "tokens");
  const { ceClean, ceSae, ceZero, lossRecovered, klDivergence } = await evaluateInModel({
    sae,
    model,
    contexts,
    ...(flags.hook === undefined ? {} : { hook: flags.hook }),
    signal,
    onProgress: ({ tokens }) => progress.update(tokens),
  }).finally(() => progress.stop());
  return { ceClean, ceSae, ceZero, lossRecovered, klDivergence };
}
