import { type Command, InvalidArgumentError, Option } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { attributionPatching } from "../patching/attributionPatching.js";
import type { LatentPatchingOptions } from "../patching/latentDifferences.js";
import type { PatchingOptions } from "../patching/patchedRuns.js";
import { patchingHtml } from "../patching/patchingPage.js";
import { patchingPictures } from "../patching/patchingPicture.js";
import { patchingText } from "../patching/patchingReport.js";
import {
  attributionMap,
  latentPatchingSweep,
  type PatchingMap,
  type PatchingSweep,
  patchingSweep,
  type SweepOver,
} from "../patching/patchingSweep.js";
import { metricText, type PatchMetric } from "../patching/patchMetric.js";
import type { PatchingDirection, PromptPair } from "../patching/promptPair.js";
import type { Sae } from "../sae/sae.js";
import { pictureFile } from "../toy/superpositionPicture.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { type MeasureFlags, measureOf } from "./measureFlags.js";
import {
  type DeviceFlags,
  deviceOption,
  positiveInteger,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { type Progress, startProgress } from "./progress.js";
import { requireFittingPrompt } from "./promptLength.js";
import { printedColumns, printsColour } from "./terminal.js";

interface PatchFlags extends DeviceFlags, TokenizerFlags, MeasureFlags {
  readonly model: string;
  readonly clean: string;
  readonly corrupted: string;
  readonly kl?: boolean;
  readonly direction: PatchingDirection;
  readonly align?: readonly (readonly [number, number])[];
  readonly components?: readonly string[];
  readonly by?: SweepOver;
  readonly sae?: string;
  readonly hook?: readonly string[];
  readonly allowMismatch?: boolean;
  readonly strongest?: number;
  readonly attribution?: boolean;
  readonly html?: string;
  readonly svg?: string;
  readonly json?: boolean;
}

export function registerPatch(program: Command): void {
  program
    .command("patch")
    .summary("find where a model carries the difference between two prompts (activation patching)")
    .description(
      `Puts activations of one prompt into the model's run on another, one place at a
time, and says how far that takes the prediction from the one to the other: 0,
nothing happens; 1, the place alone makes the difference. The prompts should be
of one length; in others, --align says which positions correspond.

Without --sae, every layer is patched at every position (or head by head); with
it, the latents that differ between the prompts, the SAE's error kept: of more
than 256, those that differ most, which need not be those of largest effect.`,
    )
    .requiredOption("--model <dir>", "folder of the model")
    .addOption(tokenizerOption())
    .requiredOption("--clean <text>", "prompt after which the model does what is to be explained; BOS is put before it")
    .requiredOption("--corrupted <text>", "prompt after which it does something else")
    .option("--target <token>", "the next token that is scored (default: the likeliest one after the clean prompt)")
    .option("--against <token>", "score the difference of the logits of the target and of this token")
    .option("--kl", "score how far the next token's distribution is from the clean run's, instead of a token")
    .addOption(
      new Option(
        "--direction <which>",
        "denoising: clean activations into the corrupted run; noising: the other way round",
      )
        .choices(["denoising", "noising"])
        .default("denoising"),
    )
    .option(
      "--align <clean:corrupted...>",
      "positions that correspond, BOS being 0, in prompts of different lengths",
      alignedPair,
    )
    .option(
      "--components <names...>",
      "what is patched in every layer, or whole names of hook points (default: resid_pre attn_out mlp_out; by head: z)",
    )
    .addOption(
      new Option("--by <columns>", "of the table (default: position)").choices([
        "position",
        "head",
        "head-and-position",
      ]),
    )
    .option("--sae <dir>", "patch latents of this SAE")
    .option("--hook <name...>", "hook point of the SAE, of a crosscoder all of them (default: the SAE's)")
    .option("--allow-mismatch", "use an SAE that was trained on another model or hook point")
    .option(
      "--strongest <n>",
      "with --sae: patch and show the n latents that differ most, whatever their effects (default: patch up to 256, show the 20 of largest effect); with --attribution: show n",
      positiveInteger,
    )
    .option("--attribution", "with --sae: estimate the effects of all latents from derivatives (attribution patching)")
    .option("--html <file>", "also write a self-contained HTML page")
    .option("--svg <file>", "also write a picture")
    .option("--json", "print JSON instead of a table")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem patch --model models/gpt2 --clean "The girl said that" --corrupted "The boy said that" --target " she" --against " he"
  monosem patch --model models/gpt2 --clean "The girl said that" --corrupted "The boy said that" --by head --html heads.html
  monosem patch --model models/gpt2 --clean "The girl said that" --corrupted "The boy said that" --sae runs/first/sae`,
    )
    .action((flags: PatchFlags) => {
      checkFlags(flags);
      return withInterruption((signal) => withDevice(flags, (device) => patch(flags, device, signal)));
    });
}

function alignedPair(
  text: string,
  earlier: readonly (readonly [number, number])[] = [],
): readonly (readonly [number, number])[] {
  const found = /^(\d+):(\d+)$/.exec(text);
  if (found === null) throw new InvalidArgumentError("expected two positions, such as 3:2.");
  return [...earlier, [Number(found[1]), Number(found[2])]];
}

function checkFlags(flags: PatchFlags): void {
  const needsSae = ["hook", "allowMismatch", "strongest", "attribution"] as const;
  const unusable = flags.sae === undefined ? needsSae : (["components", "by"] as const);
  const wrong = unusable.find((name) => flags[name] !== undefined);
  if (wrong !== undefined) {
    const option = wrong.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const why = flags.sae === undefined ? "needs --sae" : "is for patching without --sae";
    throw new MonosemError("ERR_CONFIG", `--${option} ${why}`);
  }
  if (flags.kl && (flags.target ?? flags.against) !== undefined) {
    throw new MonosemError("ERR_CONFIG", "--kl looks at all tokens; leave --target and --against out");
  }
}

async function patch(flags: PatchFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkOutputFiles(flags.html, flags.svg);
  using sae = flags.sae === undefined ? undefined : await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, {
    tokenizer: flags.tokenizer,
    signal,
    saes: sae === undefined ? [] : [sae],
  });
  for (const name of ["clean", "corrupted"] as const) requireFittingPrompt(model, `--${name}`, flags[name]);
  const pair: PromptPair = {
    clean: model.promptTokens(flags.clean)[0]!,
    corrupted: model.promptTokens(flags.corrupted)[0]!,
    aligned: flags.align,
  };
  const metric: PatchMetric = flags.kl ? { kind: "kl-divergence" } : await measureOf(model, pair.clean, flags, signal);
  let progress: Progress | undefined;
  const started = performance.now();
  const found = await sweep(flags, sae, {
    model,
    pair,
    metric,
    direction: flags.direction,
    signal,
    onProgress: ({ patches, of }) => {
      progress ??= startProgress("patching", of, "runs");
      progress.update(patches);
    },
  }).finally(() => progress?.stop());
  const seconds = (performance.now() - started) / 1000;
  const maps = shownMaps(flags, found);
  const report = {
    title: "Activation patching",
    facts: factsOf(flags, model, metric, found, maps, seconds),
    maps,
  };
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) await writeFileAtomically(flags.html, patchingHtml(report));
  if (flags.svg !== undefined) await writeFileAtomically(flags.svg, pictureFile(patchingPictures(maps)));
  if (flags.json) {
    const { maps: all, ...numbers } = found;
    const result = {
      model: model.config.name,
      ...(flags.sae === undefined ? {} : { sae: flags.sae }),
      prompts: { clean: flags.clean, corrupted: flags.corrupted },
      metric: metricText(model.tokenizer, metric),
      ...numbers,
      seconds,
      maps: all,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  process.stdout.write(patchingText(report, { colour: printsColour(), width: printedColumns() }));
  for (const file of [flags.html, flags.svg]) {
    if (file !== undefined) process.stdout.write(`\nwrote ${visibleText(file)}\n`);
  }
}

/** Of latents, the map may hold fewer than differ. */
interface Sweep extends PatchingSweep {
  readonly latentsThatDiffer?: number;
}

/** A patched run is cheap: up to so many latents, none is left out for its small difference. */
const MOST_PATCHED = 256;
const SHOWN_LATENTS = 20;

async function sweep(flags: PatchFlags, sae: Sae | undefined, options: PatchingOptions): Promise<Sweep> {
  if (sae === undefined) {
    const by = flags.by ?? "position";
    return await patchingSweep(flags.components ?? defaultComponents[by], by, options);
  }
  const { hook, allowMismatch, strongest } = flags;
  const latentOptions: LatentPatchingOptions = { ...options, sae, hook, allowMismatch };
  if (!flags.attribution) {
    return await latentPatchingSweep(strongest ?? MOST_PATCHED, latentOptions);
  }
  const found = await attributionPatching(latentOptions);
  const { latents, ...result } = found;
  const maps = [attributionMap(found, strongest ?? SHOWN_LATENTS, options)];
  return { ...result, latentsThatDiffer: latents.length, maps };
}

/** What people are shown: of latents that nobody asked for by number, the largest effects, which come first. */
function shownMaps({ sae, strongest }: PatchFlags, { maps }: Sweep): readonly PatchingMap[] {
  if (sae === undefined || strongest !== undefined) return maps;
  return maps.map((map) => ({
    ...map,
    rows: map.rows.slice(0, SHOWN_LATENTS),
    effects: map.effects.slice(0, SHOWN_LATENTS),
  }));
}

/** Which of the latents that differ were patched, and which of these are shown. */
function latentsText({ attribution }: PatchFlags, { latentsThatDiffer: differ, maps }: Sweep, shown: number): string {
  const patched = maps[0]!.rows.length;
  const all = `all ${differ} that differ between the prompts`;
  if (attribution) {
    return shown === differ
      ? all
      : `the ${shown} of largest estimated effect, of ${differ} that differ (--strongest ${differ} shows all)`;
  }
  const which =
    patched === differ
      ? all
      : `the ${patched} that differ most, of ${differ} that differ (--strongest ${differ} patches all)`;
  return shown === patched ? which : `${which}; the ${shown} of largest effect are shown, all in --json`;
}

const defaultComponents: Readonly<Record<SweepOver, readonly string[]>> = {
  position: ["resid_pre", "attn_out", "mlp_out"],
  head: ["z"],
  "head-and-position": ["z"],
};

function factsOf(
  flags: PatchFlags,
  model: HookedTransformer,
  metric: PatchMetric,
  found: Sweep,
  maps: readonly PatchingMap[],
  seconds: number,
): readonly (readonly [string, string])[] {
  const { clean, corrupted, forwardPasses } = found;
  return [
    ["model", model.config.name],
    ...(flags.sae === undefined ? [] : [["SAE", flags.sae] as const]),
    ["clean", flags.clean],
    ["corrupted", flags.corrupted],
    ["metric", metricText(model.tokenizer, metric)],
    ["score", `${clean.toFixed(4)} clean, ${corrupted.toFixed(4)} corrupted`],
    [
      "direction",
      flags.direction === "denoising"
        ? "denoising: clean activations in the corrupted run"
        : "noising: corrupted activations in the clean run",
    ],
    ...(flags.sae === undefined ? [] : [["latents", latentsText(flags, found, maps[0]!.rows.length)] as const]),
    ["cost", `${forwardPasses} forward passes, ${seconds.toFixed(1)} s`],
  ];
}
