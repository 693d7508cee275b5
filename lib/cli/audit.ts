import { type Command, Option } from "commander";
import { Corpus } from "../activations/corpus.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { architectureText } from "../analysis/trainedArchitecture.js";
import { visibleText } from "../analysis/visibleText.js";
import { AUDIT_TOPICS, auditSae } from "../audit/audit.js";
import { auditHtml } from "../audit/auditPage.js";
import { type AuditReport, type AuditTopic, auditJson } from "../audit/auditReport.js";
import { auditText } from "../audit/auditText.js";
import { readPairs } from "../audit/pairFile.js";
import type { Device } from "../engine/device.js";
import { FeaturePass } from "../features/featurePass.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { warnOfBadReconstruction } from "./badReconstruction.js";
import { addCorpusOptions, type CorpusFlags, contextShapeForSae, contextsForSae } from "./corpusOptions.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { StagedProgress } from "./progress.js";
import { printedColumns } from "./terminal.js";

interface AuditFlags extends DeviceFlags, TokenizerFlags, CorpusFlags {
  readonly sae: string;
  readonly model: string;
  readonly corpus: readonly string[];
  readonly hook?: readonly string[];
  readonly topics?: readonly AuditTopic[];
  readonly pairs?: string;
  readonly seed: number;
  readonly json?: boolean;
  readonly html?: string;
}

export function registerAudit(program: Command): void {
  const command = program
    .command("audit")
    .summary("can the latents of an SAE be relied on?")
    .description(
      `One report on the reliability of an SAE's latents, with the definition of each
number, what it would be by chance, and on how many things it is measured:

consistency      do reconstructions come out the same in repeated runs and in
                 batches of other shapes?
counterfactuals  do latents stay the same where an edit does not matter?
effects          does the model's prediction change when a latent is taken out?
overlap          how alike are decoder rows, and encoder rows?
fragmentation    which concepts are spread over several latents?
absorption       do other latents take first letters over from their main ones?
                 (of models that know how words are spelled)
firing           which latents never fire, or nearly always?`,
    )
    .requiredOption("--sae <dir>", "folder of the SAE")
    .requiredOption("--model <dir>", "folder of the model that the SAE was trained on")
    .addOption(tokenizerOption())
    .requiredOption("--corpus <glob...>", "text files (.txt, .jsonl, .parquet)")
    .option("--hook <name...>", "hook point, of a crosscoder all of them (default: the SAE's)")
    .addOption(new Option("--topics <name...>", "what to look into (default: all)").choices(AUDIT_TOPICS))
    .option(
      "--pairs <file>",
      'also pairs of texts whose latents should be the same (.jsonl: {"original": "...", "edited": "..."}, and a name under "edit")',
    )
    .option("--seed <n>", "of random choices and chance levels", naturalNumber, 0)
    .option("--json", "print JSON, with the numbers of each latent, instead of text")
    .option("--html <file>", "also write a self-contained HTML page");
  addCorpusOptions(command, 50_000)
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem audit --sae runs/first/sae --model models/gpt2 --corpus 'heldout/*.txt' --html audit.html
  monosem audit --sae runs/first/sae --model models/gpt2 --corpus 'heldout/*.txt' --topics counterfactuals --pairs pairs.jsonl
  monosem audit --sae runs/first/sae --model models/gpt2 --corpus 'heldout/*.txt' --json > audit.json`,
    )
    .action((flags: AuditFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => audit(flags, device, signal))),
    );
}

async function audit(flags: AuditFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkOutputFiles(flags.html);
  const pairs = flags.pairs === undefined ? [] : await readPairs(flags.pairs);
  using sae = await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes: [sae] });
  const { input } = hooksForSae(model, sae, flags.hook, flags);
  const corpus = await Corpus.fromFiles(flags.corpus);
  const contexts: Int32Array[] = [];
  for await (const context of contextsForSae(corpus, model, sae, flags)) contexts.push(context);
  const stages = new StagedProgress();
  const sections = await auditSae({
    sae,
    model,
    hook: flags.hook,
    allowMismatch: flags.allowMismatch,
    contexts,
    ...contextShapeForSae(model, sae, flags),
    pairs,
    ...(flags.topics === undefined ? {} : { topics: flags.topics }),
    seed: flags.seed,
    signal,
    onProgress: ({ topic, done, of }) =>
      topic === "text"
        ? stages.update("reading", done, of, "texts")
        : stages.update("auditing", done, of, "topics", topic),
  }).finally(() => stages.stop());
  warnOfBadReconstruction(flags.sae, await explainedVariance(contexts.slice(0, 48), sae, model, flags));
  const report: AuditReport = {
    title: `Audit of ${flags.sae}`,
    facts: [
      ["model", model.config.name],
      ["hook point", input.join(", ")],
      ["architecture", architectureText(sae)],
      ["latents", String(sae.config.dSae)],
      ["text", flags.corpus.join(" ")],
      ["tokens", String(contexts.reduce((sum, { length }) => sum + length, 0))],
      ["seed", String(flags.seed)],
    ],
    sections,
  };
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) {
    await writeFileAtomically(flags.html, auditHtml(report));
    process.stderr.write(`wrote ${visibleText(flags.html)}\n`);
  }
  process.stdout.write(flags.json ? `${auditJson(report)}\n` : auditText(report, { width: printedColumns() }));
}

async function explainedVariance(
  contexts: readonly Int32Array[],
  sae: Sae,
  model: HookedTransformer,
  { hook, allowMismatch }: AuditFlags,
): Promise<number> {
  using pass = new FeaturePass({ sae, model, allowMismatch, ...(hook === undefined ? {} : { hook }) });
  for (const tokens of contexts) await pass.add([{ tokens }]);
  return (await pass.metrics()).explainedVariance;
}
