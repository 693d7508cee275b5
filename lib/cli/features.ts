import { type Command, Option } from "commander";
import { Corpus } from "../activations/corpus.js";
import { FEWEST_EXAMPLES, rankLatents } from "../analysis/featureRanking.js";
import { featureSummary } from "../analysis/featureSummary.js";
import { collectFeatures } from "../analysis/features.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { architectureText } from "../analysis/trainedArchitecture.js";
import type { Device } from "../engine/device.js";
import type { FeatureReport } from "../features/report.js";
import { latentsInModel } from "../features/statisticsLatents.js";
import { warnOfBadReconstruction } from "./badReconstruction.js";
import { addCorpusOptions, contextShapeForSae, contextsForSae } from "./corpusOptions.js";
import { addExportOptions, planExports } from "./featureExports.js";
import { checkLatents, type FeaturesFlags, loadSaeInModel, refuseUnused, required } from "./featureFlags.js";
import { featureKinds } from "./featureKinds.js";
import { featuresOfPrompt } from "./featuresOfPrompt.js";
import { withInterruption } from "./interruption.js";
import {
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  precisionOption,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { startProgress } from "./progress.js";
import { checkReportOutput, presentReport, recordPrompts } from "./reportOutput.js";
import { featuresFromStore, storeFeatures } from "./storedFeatures.js";

export function registerFeatures(program: Command): void {
  const command = program
    .command("features")
    .summary("show what the latents of an SAE fire on")
    .description(
      "Runs text through the model and the SAE once, gathers statistics and the strongest examples of every latent, and prints a page of latents: by default those whose examples are the most uniform and specific. Strongly active tokens are shaded, or stand in [brackets] where there is no colour. A latent fires where it is not 0: of an architecture whose latents can be negative, each latent's most negative examples follow its largest ones, shaded blue or in {braces}.",
    )
    .option("--sae <dir>", "folder of the SAE")
    .option("--model <dir>", "folder of the model that the SAE was trained on")
    .addOption(tokenizerOption())
    .option("--corpus <glob...>", "text files (.txt, .jsonl, .parquet)")
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
    .option("--html-prompts <text...>", "texts for that report to show the active latents of, token by token")
    .option("--store <dir>", "write what is found of all latents into this folder; Ctrl-C keeps what there is so far")
    .option(
      "--save-every <seconds>",
      "with --store: save what there is so far so often, so that a killed pass can be resumed",
      nonNegativeNumber,
    )
    .option("--resume", "continue an interrupted or killed --store, to the same result")
    .addOption(
      new Option("--from <dir>", "show what such a folder holds: needs no model, SAE or corpus").conflicts("store"),
    )
    .addOption(
      new Option("--prompt <text>", "show the latents that are active on this text; needs no corpus").conflicts(
        "store",
      ),
    )
    .addOption(
      new Option(
        "--by <score>",
        "rank them by activation (the default), by quantile among their firings (of --from; about, from its histogram), or by what they add directly to the logit of --target, over the mean of all logits",
      ).choices(["activation", "quantile", "logit"]),
    )
    .option("--target <token>", "next token whose logit to rank by")
    .option(
      "--kinds",
      "say what speaks for each kind of feature of --from: syntax, behaviour; with --sae and --model also meaning",
    )
    .option("--labels <file>", "with --kinds: labelled texts (.jsonl: text, label), for concepts")
    .option("--pattern <name=regex...>", "with --kinds: further patterns of the text before a peak, for behaviour")
    .option("--red-team <file>", "with --kinds: a list of texts, one a line, to scan for safety");
  addExportOptions(command);
  addCorpusOptions(command, 500_000)
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem features --sae runs/first/sae --model models/gpt2 --corpus 'texts/*.txt'
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --html features.html --top 100
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --html report/ --all --html-prompts "The king said" "Once upon a time"
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --all --neuronpedia exports --source-set res-mine
  monosem features --sae runs/first/sae --model models/gpt2 --corpus a.txt --latents 17 512
  monosem features --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --store features --tokens 1000000
  monosem features --from features --latents 3 17
  monosem features --sae runs/first/sae --model models/gpt2 --prompt "The king said" --by quantile --from features
  monosem features --sae runs/first/sae --model models/gpt2 --prompt "The king said that" --by logit --target " he"
  monosem features --from features --kinds --sae runs/first/sae --model models/gpt2 --labels people.jsonl`,
    )
    .action((flags: FeaturesFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => features(flags, device, signal))),
    );
}

async function features(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  refuseUnused(flags);
  await checkReportOutput(flags);
  if (flags.resume) required(flags, "store", ": --resume continues it");
  if (flags.saveEvery !== undefined) required(flags, "store", ": --save-every saves it");
  for (const name of ["by", "target"] as const) {
    if (flags[name] !== undefined) required(flags, "prompt", `: --${name} belongs to it`);
  }
  for (const name of ["labels", "pattern", "redTeam"] as const) {
    if (flags[name] !== undefined)
      required(flags, "kinds", `: --${name === "redTeam" ? "red-team" : name} belongs to it`);
  }
  if (flags.kinds) return await featureKinds(flags, device, signal);
  if (flags.prompt !== undefined) return await featuresOfPrompt(flags, device, signal);
  if (flags.from !== undefined) return await featuresFromStore(flags, device, signal);
  if (flags.store !== undefined) return await storeFeatures(flags, device, signal);
  const corpus = required(flags, "corpus");
  using loaded = await loadSaeInModel(flags, device, signal);
  const { sae, model, chosen } = loaded;
  const { allowMismatch } = flags;
  const { input, output } = hooksForSae(model, sae, flags.hook, { allowMismatch });
  const writeExports = await planExports(flags, { sae, model, input });
  const { dSae } = sae.config;
  checkLatents(flags, dSae);
  const prompts = await recordPrompts(flags, loaded);
  const contexts = contextsForSae(await Corpus.fromFiles(corpus), model, sae, flags);
  const progress = startProgress("collecting", { atMost: flags.tokens }, "tokens");
  const { statistics, metrics } = await collectFeatures({
    sae,
    model,
    ...chosen,
    contexts,
    signal,
    onProgress: ({ tokens }) => progress.update(tokens),
  }).finally(() => progress.stop());
  warnOfBadReconstruction(flags.sae!, metrics.explainedVariance);
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
  const text = { contexts: statistics.contexts, contextSize, dataset: corpus.join(" ") };
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
