import type { Command } from "commander";
import { hooksForSae } from "../analysis/saeHook.js";
import { visibleText } from "../analysis/visibleText.js";
import { measureText } from "../attribution/nextToken.js";
import { compareMethods } from "../comparison/compareMethods.js";
import { comparisonHtml } from "../comparison/comparisonPage.js";
import { comparisonText } from "../comparison/comparisonReport.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { readLabelledTexts } from "../probing/labelledTexts.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { type MeasureFlags, measureOf } from "./measureFlags.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  positiveInteger,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { startProgress } from "./progress.js";
import { refuseEmpty, requireFittingPrompt } from "./promptLength.js";

interface CompareFlags extends DeviceFlags, TokenizerFlags, MeasureFlags {
  readonly model: string;
  readonly prompt: string;
  readonly corrupted?: string;
  readonly sae?: string;
  readonly hook?: string;
  readonly allowMismatch?: boolean;
  readonly data?: string;
  readonly positive?: string;
  readonly limeSamples: number;
  readonly seed: number;
  readonly html?: string;
  readonly json?: boolean;
}

export function registerCompare(program: Command): void {
  program
    .command("compare")
    .summary("five methods on one prompt: patching, probing, LIME, SHAP, SAE features")
    .description(
      `Asks five methods why a model goes on as it does after a prompt, and prints their
answers side by side, with what each costs in forward passes (sequences that went
through the model) and in time. What a method needs and is not given leaves it out.`,
    )
    .requiredOption("--model <dir>", "folder of the model")
    .addOption(tokenizerOption())
    .requiredOption("--prompt <text>", "what the model reads, after BOS where it has one")
    .option("--target <token>", 'the next token that is scored, such as " she" (default: the likeliest one)')
    .option("--against <token>", "score the difference of the logits of the target and of this token")
    .option("--corrupted <text>", "for patching: a prompt of as many tokens that something else follows")
    .option("--data <file>", "for probing: labelled texts (.jsonl), as of `monosem probe`")
    .option("--positive <label>", "for probing: the label to tell from the others (default: of two, the last one)")
    .option("--sae <dir>", "for SAE features: folder of the SAE")
    .option(
      "--hook <name>",
      "where patching and the probe look (default: where the SAE reads, else behind the middle block)",
    )
    .option("--allow-mismatch", "use an SAE that was trained on another model or hook point")
    .option("--lime-samples <n>", "random removals that LIME fits to", positiveInteger, 500)
    .option("--seed <n>", "seed of the random choices", naturalNumber, 0)
    .option("--html <file>", "also write a self-contained HTML page")
    .option("--json", "print JSON instead of tables")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem compare --model models/gpt2 --sae runs/first/sae --prompt "The girl said that" --corrupted "The boy said that" --target " she" --against " he" --html compare.html
  monosem compare --model models/gpt2 --sae runs/first/sae --prompt "The film was" --data reviews.jsonl`,
    )
    .action((flags: CompareFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => compare(flags, device, signal))),
    );
}

async function compare(flags: CompareFlags, device: Device, signal: AbortSignal): Promise<void> {
  if (flags.positive !== undefined && flags.data === undefined) {
    throw new MonosemError("ERR_CONFIG", "--positive needs --data");
  }
  refuseEmpty("--prompt", flags.prompt);
  await checkOutputFiles(flags.html);
  const texts = flags.data === undefined ? undefined : await readLabelledTexts(flags.data);
  using sae = flags.sae === undefined ? undefined : await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, {
    tokenizer: flags.tokenizer,
    signal,
    saes: sae === undefined ? [] : [sae],
  });
  const { prompt, corrupted, hook, allowMismatch, limeSamples, seed } = flags;
  requireFittingPrompt(model, "--prompt", prompt);
  if (corrupted !== undefined) requireFittingPrompt(model, "--corrupted", corrupted);
  const measure = await measureOf(model, model.promptTokens(prompt)[0]!, flags, signal);
  const progress = startProgress("asking", 5, "methods");
  let begun = 0;
  const comparison = await compareMethods({
    model,
    prompt,
    measure,
    hook,
    sae,
    allowMismatch,
    corrupted,
    labelled: texts === undefined ? undefined : { texts, positive: flags.positive },
    limeSamples,
    seed,
    signal,
    onProgress: (method) => progress.update(begun++, method),
  }).finally(() => progress.stop());
  const saeHooks = sae === undefined ? [] : hooksForSae(model, sae, undefined, flags).input;
  const report = {
    title: "Five methods on one prompt",
    facts: [
      ["model", model.config.name],
      ["prompt", prompt],
      ["score", measureText(model.tokenizer, measure)],
      [
        "hook point",
        saeHooks.length > 1
          ? `${comparison.hook} for patching and the probe, ${saeHooks.join(" and ")} for the SAE`
          : comparison.hook,
      ],
      ...(flags.sae === undefined ? [] : [["SAE", flags.sae] as const]),
    ] as const,
    comparison,
  };
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) await writeFileAtomically(flags.html, comparisonHtml(report));
  if (flags.json) {
    const result = {
      model: model.config.name,
      ...(flags.sae === undefined ? {} : { sae: flags.sae }),
      prompt,
      score: measureText(model.tokenizer, measure),
      ...comparison,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  process.stdout.write(comparisonText(report));
  if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
}
