import type { Command } from "commander";
import { Corpus } from "../activations/corpus.js";
import { FEWEST_EXAMPLES, rankLatents } from "../analysis/featureRanking.js";
import { featureSummary } from "../analysis/featureSummary.js";
import { collectFeatures } from "../analysis/features.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { architectureText } from "../analysis/trainedArchitecture.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { recordPrompt } from "../features/recordPrompt.js";
import type { FeatureReport, RecordedPrompt } from "../features/report.js";
import { latentsInModel } from "../features/statisticsLatents.js";
import { addCorpusOptions, type CorpusFlags, contextShapeForSae, contextsForSae } from "./corpusOptions.js";
import { addExportOptions, type ExportFlags, planExports } from "./featureExports.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  positiveInteger,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { startProgress } from "./progress.js";
import { checkReportOutput, presentReport, type ReportFlags } from "./reportOutput.js";

interface FeaturesFlags extends DeviceFlags, TokenizerFlags, CorpusFlags, ExportFlags, ReportFlags {
  readonly sae: string;
  readonly model: string;
  readonly corpus: readonly string[];
  readonly hook?: readonly string[];
  readonly top: number;
  readonly latents?: readonly number[];
}

export function registerFeatures(program: Command): void {
  const command = program
    .command("features")
    .summary("show what the latents of an SAE fire on")
    .description(
      "Runs text through the model and the SAE once, gathers statistics and the strongest examples of every latent, and prints a page of latents: by default those whose examples are the most uniform and specific. Strongly active tokens are shaded, or stand in [brackets] where there is no colour. A latent fires where it is not 0: of an architecture whose latents can be negative, each latent's most negative examples follow its largest ones, shaded blue or in {braces}.",
    )
    .requiredOption("--sae <dir>", "folder of the SAE")
    .requiredOption("--model <dir>", "folder of the model that the SAE was trained on")
    .addOption(tokenizerOption())
    .requiredOption("--corpus <glob...>", "text files (.txt, .jsonl, .parquet)")
    .option("--hook <name...>", "hook point, of a crosscoder all of them (default: the SAE's)")
    .option("--latents <n...>", "show these latents", (text: string, earlier: readonly number[] = []) => [
      ...earlier,
      naturalNumber(text),
    ])
    .option("--top <n>", "show this many latents", positiveInteger, 20)
    .option("--all", "put every latent that fires into the report and the exports, not only those printed")
    .option("--examples <n>", "examples printed per latent, and of its negative activations", positiveInteger, 5)
    .option(
      "--html <path>",
      "also write a self-contained HTML page, or, where the path ends in / or is a folder, a folder of pages",
    )
    .option("--html-prompts <text...>", "texts for that report to show the active latents of, token by token");
  addExportOptions(command);
  addCorpusOptions(command, 500_000)
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem features --sae runs/first/sae --model models/gpt2 --corpus 'texts/*.txt'
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --html features.html --top 100
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --html report/ --all --html-prompts "The king said" "Once upon a time"
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --all --neuronpedia exports --source-set res-mine
  monosem features --sae runs/first/sae --model models/gpt2 --corpus a.txt --latents 17 512`,
    )
    .action((flags: FeaturesFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => features(flags, device, signal))),
    );
}

async function features(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkReportOutput(flags);
  using sae = await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes: [sae] });
  const { allowMismatch } = flags;
  const chosen = { allowMismatch, ...(flags.hook === undefined ? {} : { hook: flags.hook }) };
  const { input, output } = hooksForSae(model, sae, flags.hook, { allowMismatch });
  const writeExports = await planExports(flags, { sae, model, input });
  const { dSae } = sae.config;
  for (const latent of flags.latents ?? []) {
    if (latent < dSae) continue;
    const message = `--latents: there is no latent ${latent}; the SAE has ${dSae}, numbered 0 to ${dSae - 1}`;
    throw new MonosemError("ERR_INVALID_ARGUMENT", message);
  }
  const prompts: RecordedPrompt[] = [];
  for (const prompt of flags.htmlPrompts ?? []) prompts.push(await recordPrompt({ sae, model, ...chosen, prompt }));
  const contexts = contextsForSae(await Corpus.fromFiles(flags.corpus), model, sae, flags);
  const progress = startProgress("collecting", undefined, "tokens");
  const { statistics, metrics } = await collectFeatures({
    sae,
    model,
    ...chosen,
    contexts,
    signal,
    onProgress: ({ tokens }) => progress.update(tokens),
  }).finally(() => progress.stop());
  const tokenText = (id: number): string => model.tokenizer.tokenText(id);
  const latents = flags.latents ?? rankLatents(statistics, tokenText, flags.top);
  const report: FeatureReport = {
    title: `Features of ${flags.sae}`,
    facts: [
      ["model", model.config.name],
      ["hook point", input.join(", ")],
      ...(sae.config.transcoder ? ([["writes to", output.join(", ")]] as const) : []),
      ["architecture", architectureText(sae)],
      ["latents", String(dSae)],
    ],
    summary: featureSummary({ statistics, metrics }),
    densities: statistics,
    latents,
    latent: latentsInModel({ statistics, sae, model, ...chosen }),
    prompts,
    tokenText,
  };
  const { contextSize } = contextShapeForSae(model, sae, flags);
  const text = { contexts: statistics.contexts, contextSize, dataset: flags.corpus.join(" ") };
  await presentReport(report, flags, {
    firing: [...statistics.firingCounts.keys()].filter((latent) => statistics.firingCounts[latent] !== 0),
    writeExports: (latents) => writeExports(latents, text, signal),
    signal,
  });
  if (latents.length === 0) {
    process.stdout.write(
      `\nno latent fires in ${FEWEST_EXAMPLES} contexts of these ${statistics.tokens} tokens: give more text, or name latents with --latents\n`,
    );
  }
}
