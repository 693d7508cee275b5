import { randomUUID } from "node:crypto";
import { type Command, Option } from "commander";
import { coreEvaluation, type EvaluatedSae } from "../analysis/coreEvaluation.js";
import { evaluationText } from "../analysis/evaluationText.js";
import type { SweepPoint } from "../analysis/pareto.js";
import { paretoHtml } from "../analysis/paretoPage.js";
import { paretoSvg } from "../analysis/paretoPicture.js";
import { paretoText } from "../analysis/paretoText.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { warnOfBadReconstruction } from "./badReconstruction.js";
import { addCorpusOptions, type CorpusFlags } from "./corpusOptions.js";
import { saeFolders } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { CONTEXTS_PER_BATCH, measureInModel, measureOnActivations, type StoredFlags } from "./measureSaes.js";
import {
  type DeviceFlags,
  deviceOption,
  positiveInteger,
  precisionOption,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { packageVersion } from "./version.js";

interface EvalFlags extends DeviceFlags, CorpusFlags, StoredFlags {
  readonly sae: readonly string[];
  readonly activations?: string;
  readonly model?: string;
  readonly hook?: readonly string[];
  readonly corpus?: readonly string[];
  readonly json?: boolean;
  readonly html?: string;
  readonly svg?: string;
}

export function registerEval(program: Command): void {
  const command = program
    .command("eval")
    .summary("measure how well SAEs reconstruct, and what that costs the model")
    .description(
      `Evaluates one SAE, or several against each other.

In the model (--model, --corpus) everything is measured: the model's loss and the divergence of its predictions with the SAE in place of the activations, against zeros and against the mean activation there; reconstruction, shrinkage, sparsity, density and consistency of the latents. Special tokens keep their activations and are not counted. On stored activations (--activations) everything but the model.

Several SAEs give a table by L0 in which those are marked that no other one at the same hook points beats in both L0 and the column. Those of several that do not fit the model or the activations are left out and named.

--json prints one line for each SAE: SAEBench's "core" evaluation with its numbers per latent, and under "monosem" what that has no place for.`,
    )
    .requiredOption("--sae <dir...>", "folders of the SAEs, or patterns such as 'runs/*/sae'")
    .option("--model <dir>", "folder of the model that the SAEs were trained on")
    .addOption(tokenizerOption())
    .option("--corpus <glob...>", "text files (.txt, .jsonl, .parquet)")
    .option("--hook <name...>", "hook point, of a crosscoder all of them (default: the SAE's)");
  addCorpusOptions(command, 100_000)
    .addOption(
      new Option("--activations <file>", "safetensors file, or folder of shards, of activations").conflicts([
        "model",
        "corpus",
        "hook",
      ]),
    )
    .option("--tensor <name...>", 'tensor in the file, of a crosscoder several (default: "activations")')
    .option("--target-tensor <name>", "tensor that a transcoder reconstructs")
    .option("--batch-size <n>", "rows of stored activations at a time", positiveInteger, 4096)
    .option("--json", "print one JSON object for each SAE")
    .option("--html <file>", "also write a page with the table and a picture of it")
    .option("--svg <file>", "also write the picture")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem eval --sae runs/first/sae --model models/gpt2 --corpus 'heldout/*.txt'
  monosem eval --sae runs/first/sae --activations heldout.safetensors --json > first.json
  monosem eval --sae 'runs/sweep/*/sae' --model models/gpt2 --corpus 'heldout/*.txt' --html sweep.html`,
    )
    .action((flags: EvalFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => evaluateSaes(flags, device, signal))),
    );
}

async function evaluateSaes(flags: EvalFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkOutputFiles(flags.html, flags.svg);
  const measured = await measure(flags, device, signal);
  for (const { name, reconstruction } of measured) warnOfBadReconstruction(name, reconstruction.explainedVariance);
  const points = measured.map(pointOf);
  const title = measured.length === 1 ? measured[0]!.name : `${measured.length} sparse autoencoders`;
  if (flags.html !== undefined) await write(flags.html, paretoHtml({ title, facts: factsOf(measured, flags), points }));
  if (flags.svg !== undefined) await write(flags.svg, paretoSvg(points));
  // After the files: whoever reads may have had enough, as in `| head`, which ends the program.
  if (flags.json) await printJson(measured, flags);
  else process.stdout.write(tableOf(measured));
}

async function measure(flags: EvalFlags, device: Device, signal: AbortSignal): Promise<readonly EvaluatedSae[]> {
  const { activations, model, corpus } = flags;
  if ((model === undefined) !== (corpus === undefined)) {
    throw new MonosemError("ERR_CONFIG", "--model and --corpus belong together: give both or neither");
  }
  const folders = await saeFolders(flags.sae);
  const options = { folders, device, signal };
  if (activations !== undefined) return await measureOnActivations(activations, flags, options);
  if (model !== undefined && corpus !== undefined) return await measureInModel({ ...flags, model, corpus }, options);
  throw new MonosemError("ERR_CONFIG", "nothing to evaluate on: give --model and --corpus, or --activations");
}

async function printJson(measured: readonly EvaluatedSae[], flags: EvalFlags): Promise<void> {
  const setting = {
    id: randomUUID(),
    time: new Date(),
    madeBy: `monosem ${await packageVersion()}`,
    dataset: datasetOf(flags),
    contextsPerBatch: CONTEXTS_PER_BATCH,
  };
  for (const sae of measured) process.stdout.write(`${JSON.stringify(coreEvaluation(sae, setting))}\n`);
}

function tableOf(measured: readonly EvaluatedSae[]): string {
  const [sae] = measured;
  if (measured.length !== 1 || sae === undefined) return paretoText(measured.map(pointOf));
  const { architecture, reconstruction } = sae;
  const facts = `${architecture}, ${reconstruction.latents.density.length} latents, on ${reconstruction.tokens} tokens`;
  return `${visibleText(`${sae.name}: ${facts}`)}\n\n${evaluationText(sae)}`;
}

function pointOf({ name, architecture, modelName, hooks, reconstruction, inModel }: EvaluatedSae): SweepPoint {
  const { l0, explainedVariance, latents } = reconstruction;
  return {
    name,
    architecture,
    dSae: latents.density.length,
    modelName,
    hooks,
    l0,
    explainedVariance,
    lossRecovered: inModel?.lossRecovered,
  };
}

function factsOf(measured: readonly EvaluatedSae[], flags: EvalFlags): readonly (readonly [string, string])[] {
  const tokens = [...new Set(measured.map(({ reconstruction }) => reconstruction.tokens))];
  return [
    ...(flags.model === undefined ? [] : ([["model", flags.model]] as const)),
    [flags.activations === undefined ? "text" : "activations", datasetOf(flags)],
    ["tokens", tokens.join(", ")],
  ];
}

function datasetOf({ activations, corpus = [] }: EvalFlags): string {
  return activations ?? corpus.join(" ");
}

/** What was written is said where it does not get into the results. */
async function write(path: string, content: string): Promise<void> {
  await writeFileAtomically(path, content);
  process.stderr.write(`wrote ${visibleText(path)}\n`);
}
