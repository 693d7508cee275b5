import { type Command, InvalidArgumentError, Option } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import { singleToken } from "../attribution/nextToken.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import type { LatentChange } from "../steering/latentChange.js";
import { type SteeredPart, type SteeringTrial, steer } from "../steering/steering.js";
import { steeringHtml } from "../steering/steeringPage.js";
import { type SteeringReport, steeringText } from "../steering/steeringReport.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { startProgress } from "./progress.js";
import { requireFittingPrompt } from "./promptLength.js";
import { printedColumns } from "./terminal.js";

interface SteerFlags extends DeviceFlags, TokenizerFlags {
  readonly model: string;
  readonly sae: string;
  readonly prompt: string;
  readonly latent: readonly number[];
  readonly add?: number;
  readonly scale?: number;
  readonly set?: number;
  readonly clamp?: readonly number[];
  readonly strengths?: readonly number[];
  readonly hook?: string;
  readonly allowMismatch?: boolean;
  readonly errorTerm: boolean;
  readonly part: SteeredPart;
  readonly target?: string;
  readonly samples: number;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
  readonly html?: string;
  readonly json?: boolean;
}

export function registerSteer(program: Command): void {
  program
    .command("steer")
    .summary("let a model write with latents changed, and without")
    .description(
      `Continues a prompt twice, as the model does by itself and with latents of an SAE
changed, or at several strengths, and says what that does: how far the latent is
active in what was written, and how strange that is to the unchanged model
(perplexity).`,
    )
    .requiredOption("--model <dir>", "folder of the model")
    .addOption(tokenizerOption())
    .requiredOption("--sae <dir>", "folder of the SAE")
    .requiredOption("--prompt <text>", 'text to continue; "" begins a new document')
    .requiredOption("--latent <n...>", "latents to change", (text: string, earlier: readonly number[] = []) => [
      ...earlier,
      naturalNumber(text),
    ])
    .option("--add <x>", "add this much of the latent's decoder direction, whether it fires or not", anyNumber)
    .option("--scale <x>", "multiply its activation; 0 takes it out", anyNumber)
    .option("--set <x>", "replace its activation", anyNumber)
    .option("--clamp <low high...>", "keep its activation between two numbers", numbers)
    .option("--strengths <x...>", "a sweep of --add; 0 is the model as it is", numbers)
    .option("--hook <name>", "hook point of the SAE (default: the SAE's)")
    .option("--allow-mismatch", "use an SAE that was trained on another model or hook point")
    .option("--no-error-term", "put the SAE's reconstruction in the activations' place; what it misses is lost")
    .addOption(
      new Option("--part <which>", "where the latents are changed; BOS is left alone")
        .choices(["everywhere", "prompt", "generated"])
        .default("everywhere"),
    )
    .option("--target <token>", 'also tell the probability of this next token after the prompt, such as " she"')
    .option("--samples <n>", "texts that the numbers are taken from; the first is printed", positiveInteger, 4)
    .option("--max-new-tokens <n>", "tokens to write at most", positiveInteger, 48)
    .option("--temperature <x>", "0 always takes the likeliest token", nonNegativeNumber, 0.8)
    .option("--top-k <n>", "choose among the n likeliest tokens only", positiveInteger)
    .option("--top-p <x>", "choose among the likeliest tokens that hold this share of probability", nonNegativeNumber)
    .option("--seed <n>", "seed of the random choices, the same for every text", naturalNumber, 0)
    .option("--html <file>", "also write a self-contained HTML page with all texts")
    .option("--json", "print JSON instead")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem steer --model models/gpt2 --sae runs/first/sae --prompt "The child" --latent 17 --add 8
  monosem steer --model models/gpt2 --sae runs/first/sae --prompt "The child" --latent 17 --strengths 0 2 4 8 --html steering.html
  monosem steer --model models/gpt2 --sae runs/first/sae --prompt "The child" --latent 17 512 --scale 0 --part generated`,
    )
    .action((flags: SteerFlags) => {
      const trials = trialsOf(flags);
      return withInterruption((signal) => withDevice(flags, (device) => run(flags, trials, device, signal)));
    });
}

function anyNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

function numbers(text: string, earlier: readonly number[] = []): readonly number[] {
  return [...earlier, anyNumber(text)];
}

/** @throws MonosemError ERR_CONFIG unless exactly one kind of change is asked for */
function trialsOf({ latent, add, scale, set, clamp, strengths }: SteerFlags): readonly SteeringTrial[] {
  const adding = (x: number): LatentChange => ({ latent, add: x });
  const changes: readonly (readonly [string, LatentChange])[] = [
    ...(add === undefined ? [] : [[`add ${add}`, adding(add)] as const]),
    ...(scale === undefined ? [] : [[`scale by ${scale}`, { latent, scale }] as const]),
    ...(set === undefined ? [] : [[`set to ${set}`, { latent, set }] as const]),
    ...(clamp === undefined ? [] : [clampOf(latent, clamp)]),
  ];
  if (changes.length + (strengths === undefined ? 0 : 1) !== 1) {
    throw new MonosemError(
      "ERR_CONFIG",
      "say what to do with the latents: one of --add, --scale, --set, --clamp, --strengths",
    );
  }
  if (strengths !== undefined) {
    return strengths.map((x) => ({ label: x === 0 ? "unchanged" : `add ${x}`, changes: x === 0 ? [] : [adding(x)] }));
  }
  const [[label, change]] = changes as readonly [readonly [string, LatentChange]];
  return [
    { label: "unchanged", changes: [] },
    { label, changes: [change] },
  ];
}

function clampOf(latent: readonly number[], ends: readonly number[]): readonly [string, LatentChange] {
  const [lowest, highest] = ends;
  if (ends.length !== 2) {
    throw new MonosemError("ERR_CONFIG", `--clamp takes two numbers, the lower one first, found ${ends.length}`);
  }
  return [`clamp to ${lowest} ... ${highest}`, { latent, clamp: [lowest!, highest!] }];
}

async function run(
  flags: SteerFlags,
  trials: readonly SteeringTrial[],
  device: Device,
  signal: AbortSignal,
): Promise<void> {
  await checkOutputFiles(flags.html);
  using sae = await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes: [sae] });
  const { prompt, hook, allowMismatch, errorTerm, part, samples, maxNewTokens, temperature, topK, topP, seed } = flags;
  requireFittingPrompt(model, "--prompt", prompt);
  const target = flags.target === undefined ? undefined : singleToken(model.tokenizer, flags.target);
  const targetText = target === undefined ? undefined : model.tokenizer.tokenText(target);
  const progress = startProgress("writing", trials.length, "trials");
  const found = await steer({
    model,
    sae,
    prompt,
    trials,
    hook,
    allowMismatch,
    errorTerm,
    part,
    target,
    samples,
    maxNewTokens,
    temperature,
    topK,
    topP,
    seed,
    signal,
    onProgress: (done) => progress.update(done.trials),
  }).finally(() => progress.stop());
  const latents = `latent${flags.latent.length === 1 ? "" : "s"} ${flags.latent.join(", ")}`;
  const report: SteeringReport = {
    title: `Steering by ${latents}`,
    facts: [
      ["model", model.config.name],
      ["SAE", flags.sae],
      ["changed", `${latents}, ${part}${errorTerm ? "" : ", the SAE's error left out"}`],
      ["prompt", prompt],
      ["texts", `${samples} of ${maxNewTokens} tokens at most, temperature ${temperature}, seed ${seed}`],
    ],
    prompt,
    target: targetText,
    trials: found,
  };
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) await writeFileAtomically(flags.html, steeringHtml(report));
  if (flags.json) {
    const result = {
      model: model.config.name,
      sae: flags.sae,
      prompt,
      part,
      errorTerm,
      samples,
      maxNewTokens,
      temperature,
      seed,
      ...(targetText === undefined ? {} : { target: targetText }),
      trials: found,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  process.stdout.write(steeringText(report, { width: printedColumns() }));
  if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
}
