import { join } from "node:path";
import type { Command } from "commander";
import type { Device } from "../engine/device.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { measureRecovery, type Recovery } from "../toy/recovery.js";
import { parseSyntheticConfig, type SyntheticOptions } from "../toy/syntheticConfig.js";
import {
  loadSyntheticModel,
  makeEmptyFolder,
  samplesFolderName,
  truthFileName,
  writeSynthetic,
} from "../toy/syntheticFiles.js";
import { SyntheticModel } from "../toy/syntheticModel.js";
import { loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  positiveInteger,
  precisionOption,
  threadsOption,
  withDevice,
} from "./options.js";
import { startProgress } from "./progress.js";

interface SyntheticFlags extends DeviceFlags {
  readonly output: string;
  readonly samples: number;
  readonly features?: number;
  readonly dimensions?: number;
  readonly seed?: number;
  readonly config?: string;
}

interface RecoveryFlags extends DeviceFlags {
  readonly sae: string;
  readonly truth: string;
  readonly samples: number;
  readonly json?: boolean;
}

/** Adds `toy synthetic` and `toy recovery` to the command `toy`. */
export function registerToySynthetic(toy: Command): void {
  toy
    .command("synthetic")
    .summary("write activations whose true features are known")
    .description(
      `Draws samples as SynthSAEBench does (arXiv:2602.14687): features with Zipf-distributed, correlated firing, part of them in trees in which a child fires only with its parent and one child at a time.

Writes a new folder:
  truth.safetensors    directions [features, dimensions], bias, probabilities
                       to draw with, means and deviations of the magnitudes,
                       correlation factors; the configuration as metadata
  activations/         F32 [rows, dimensions] under "activations", in shards
An SAE trains on the samples with data.activations = <folder>/activations, and \`monosem toy recovery\` tells what it found. The same seed writes the same files.`,
    )
    .requiredOption("--output <dir>", "folder to write; must not exist, or be empty")
    .option("--samples <n>", "samples to write", naturalNumber, 1_000_000)
    .option("--features <n>", "true features (default: 1024)", positiveInteger)
    .option("--dimensions <n>", "width of the activations (default: 128)", positiveInteger)
    .option("--seed <n>", "of the features and the samples (default: 42)", naturalNumber)
    .option(
      "--config <file>",
      "JSON with any of features, dIn, seed, probabilities {exponent, min, max}, hierarchy {roots, children, depth}, correlation {rank, scale}, magnitudes {first, last, deviationMean, deviationSpread}, orthogonalisation {steps, lr}, biasNorm; left out: the published constants",
    )
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem toy synthetic --output synthetic --samples 2000000
  monosem toy synthetic --output large --features 16384 --dimensions 768 --samples 1000000`,
    )
    .action((flags: SyntheticFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => synthetic(flags, device, signal))),
    );
  toy
    .command("recovery")
    .summary("tell what an SAE found of the true features")
    .description(
      `Compares an SAE with the truth of synthetic data, on samples that none is trained on:
  mcc                 mean |cosine| of decoder rows and features, matched one to one
  mmcs                mean over features of the largest cosine with a decoder row
  uniqueness          different features nearest to latents, per latent
  precision, recall, f1  of a latent's firing for that of its nearest feature,
                      averaged over latents, 0 where undefined
  shrinkage           mean |reconstruction| / |activation|
  deadLatents         latents that never fire`,
    )
    .requiredOption("--sae <dir>", "folder of the SAE, or file of one from another system")
    .requiredOption("--truth <path>", "folder of `monosem toy synthetic`, or the truth.safetensors in it")
    .option("--samples <n>", "samples to measure on", positiveInteger, 100_000)
    .option("--json", "print one JSON object")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Example:
  monosem toy recovery --sae runs/first/sae --truth synthetic/truth.safetensors`,
    )
    .action((flags: RecoveryFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => recovery(flags, device, signal))),
    );
}

async function synthetic(flags: SyntheticFlags, device: Device, signal: AbortSignal): Promise<void> {
  const { output, samples, features, dimensions, seed } = flags;
  const fromFile = flags.config === undefined ? {} : await optionsIn(flags.config);
  // Before the features are made, which takes its time.
  await makeEmptyFolder(output);
  using model = await SyntheticModel.create(
    {
      ...fromFile,
      ...(features !== undefined && { features }),
      ...(dimensions !== undefined && { dIn: dimensions }),
      ...(seed !== undefined && { seed }),
    },
    device,
    signal,
  );
  const progress = startProgress("drawing", samples, "samples");
  try {
    await writeSynthetic(model, output, { samples, signal, onProgress: (done) => progress.update(done) });
  } finally {
    progress.stop();
  }
  process.stdout.write(
    `${samples} samples of ${model.config.features} features in ${model.config.dIn} dimensions -> ` +
      `${join(output, samplesFolderName)}, ${join(output, truthFileName)}\n`,
  );
}

async function optionsIn(path: string): Promise<SyntheticOptions> {
  const options = (await readJsonFile(path)) as SyntheticOptions;
  parseSyntheticConfig(options, path);
  return options;
}

async function recovery(flags: RecoveryFlags, device: Device, signal: AbortSignal): Promise<void> {
  using model = await loadSyntheticModel(flags.truth, device);
  using sae = await loadSae(flags.sae, device);
  const found = await measureRecovery(sae, model, { samples: flags.samples, signal });
  process.stdout.write(flags.json ? `${JSON.stringify(found)}\n` : asLines(found));
}

function asLines(found: Recovery): string {
  const text = (value: number): string => (Number.isInteger(value) ? String(value) : value.toFixed(4));
  return Object.entries(found)
    .map(([name, value]) => `${name.padEnd(18)} ${text(value)}\n`)
    .join("");
}
