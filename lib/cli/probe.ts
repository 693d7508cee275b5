import { type Command, Option } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { binaryLabels, type LabelledText, readLabelledTexts } from "../probing/labelledTexts.js";
import type { ProbeKind } from "../probing/linearProbe.js";
import { type Pooling, pooledFeatures } from "../probing/pooledFeatures.js";
import { type ProbeOptions, probe } from "../probing/probe.js";
import { probeHtml } from "../probing/probePage.js";
import { type NamedProbe, type ProbeReport, probeText } from "../probing/probeText.js";
import { sparseProbes } from "../probing/sparseProbe.js";
import type { Sae } from "../sae/sae.js";
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

interface ProbeFlags extends DeviceFlags, TokenizerFlags {
  readonly model: string;
  readonly data: string;
  readonly hook?: readonly string[];
  readonly sae?: string;
  readonly positive?: string;
  readonly pooling: Pooling;
  readonly kind: ProbeKind;
  readonly k?: readonly number[];
  readonly contextSize?: number;
  readonly testFraction: number;
  readonly seed: number;
  readonly json?: boolean;
  readonly html?: string;
}

export function registerProbe(program: Command): void {
  program
    .command("probe")
    .summary("can a label be read off activations or latents?")
    .description(
      `Fits linear probes that tell texts with a label from the others by the
activations at a hook point, or by the latents of an SAE, and measures them on
texts that they have not seen. The penalty is chosen by cross-validation.
Selectivity is the accuracy less that on permuted labels, in percentage points:
what says nothing about the texts can only be learnt by heart.

FILE has one JSON object in a line: {"text": "...", "label": "..."}; with a "type",
permuted labels are the same for all texts of one type.`,
    )
    .requiredOption("--model <dir>", "folder of the model")
    .addOption(tokenizerOption())
    .requiredOption("--data <file>", "labelled texts (.jsonl)")
    .option(
      "--hook <name...>",
      "hook points whose activations are probed, each by itself; or the one that the SAE reads",
    )
    .option("--sae <dir>", "probe the latents of this SAE")
    .option("--positive <label>", "the label to tell from the others (default: of two, the last in the alphabet)")
    .addOption(
      new Option("--pooling <how>", "the vector of a text: the mean of its tokens', or the last one's")
        .choices(["mean", "last"])
        .default("mean"),
    )
    .addOption(new Option("--kind <kind>", "of the probes").choices(["logistic", "ridge"]).default("logistic"))
    .option(
      "--k <n...>",
      "also probes of the n features that differ most between the labels (default with --sae: 1 2 5)",
      (text: string, earlier: readonly number[] = []) => [...earlier, positiveInteger(text)],
    )
    .option(
      "--context-size <n>",
      "tokens of a text that are read (default: as many as the model reads)",
      positiveInteger,
    )
    .option("--test-fraction <x>", "share of the texts that is held out", nonNegativeNumber, 0.2)
    .option("--seed <n>", "seed of the split, the folds and the permuted labels", naturalNumber, 0)
    .option("--json", "print JSON, with the probes' weights, instead of a table; a line for each hook point")
    .option("--html <file>", "also write a self-contained HTML page")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem probe --model models/gpt2 --data reviews.jsonl --hook blocks.6.hook_resid_post
  monosem probe --model models/gpt2 --data reviews.jsonl --pooling last --hook blocks.{0,3,6,9}.hook_resid_post --html layers.html
  monosem probe --model models/gpt2 --data reviews.jsonl --sae runs/first/sae --k 1 2 5 10 20
  monosem probe --model models/gpt2 --data topics.jsonl --hook blocks.6.hook_resid_post --positive sports --json`,
    )
    .action((flags: ProbeFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => probeTexts(flags, device, signal))),
    );
}

/** What the labels are read off: activations at one hook point, or an SAE's latents. */
interface Probed {
  readonly hooks: readonly string[];
  /** Texts that were longer than the context. */
  readonly cut: number;
  readonly probes: readonly NamedProbe[];
}

async function probeTexts(flags: ProbeFlags, device: Device, signal: AbortSignal): Promise<void> {
  const hooks = [...new Set(flags.hook)];
  if (hooks.length === 0 && flags.sae === undefined) {
    throw new MonosemError("ERR_CONFIG", "nothing to probe: give --hook, --sae or both");
  }
  if (hooks.length > 1 && flags.sae !== undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      `--sae reads one hook point, found ${hooks.length}: name one, or leave --sae out`,
    );
  }
  await checkOutputFiles(flags.html);
  const texts = await readLabelledTexts(flags.data);
  const { labels, positive } = binaryLabels(texts, flags.positive);
  using sae = flags.sae === undefined ? undefined : await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, {
    tokenizer: flags.tokenizer,
    saes: sae === undefined ? [] : [sae],
    signal,
  });
  for (const [columns, what] of sae === undefined
    ? hooks.map((hook) => [model.hookWidth(hook), `features at ${hook}`] as const)
    : [[sae.config.dSae, "latents of the SAE"] as const]) {
    const tooMany = flags.k?.find((k) => k > columns);
    if (tooMany === undefined) continue;
    throw new MonosemError("ERR_CONFIG", `--k must be at most the ${columns} ${what}, found ${tooMany}`);
  }
  const found: Probed[] = [];
  for (const hook of hooks.length === 0 ? [undefined] : hooks) {
    const named = hooks.length > 1 ? `${hook}, ` : "";
    found.push(await probeOne({ flags, texts, labels, sae, model, hook, named, signal }));
  }
  const positives = labels.reduce((sum, label) => sum + label, 0);
  const probes = found.flatMap((probed) => probed.probes);
  const what = sae === undefined ? "features" : "latents";
  const { test } = probes[0]!.outcome;
  const duplicates = texts.length - new Set(texts.map(({ text }) => text)).size;
  if (duplicates > 0) {
    process.stderr.write(
      `warning: ${duplicates} of ${texts.length} texts occur earlier in ${visibleText(flags.data)}: what is tested may be known from training\n`,
    );
  }
  const cut = Math.max(...found.map((probed) => probed.cut));
  const report: ProbeReport = {
    facts: [
      ["label", `${JSON.stringify(positive)}: ${positives} of ${texts.length} texts`],
      [
        what,
        `${flags.sae ?? (found.length === 1 ? found[0]!.hooks.join(", ") : `${found.length} hook points`)}, ${flags.pooling === "mean" ? "mean of the tokens" : "last token"}`,
      ],
      ["probes", `${flags.kind}, tested on ${test.rows} texts, ${test.positives} of them ${JSON.stringify(positive)}`],
      ...(duplicates === 0
        ? []
        : [
            [
              "duplicates",
              `${duplicates} of ${texts.length} texts occur earlier: what is tested may be known from training`,
            ] as const,
          ]),
      ...(cut === 0 ? [] : [["cut", `${cut} texts were longer than the context`] as const]),
    ],
    probes,
  };
  // Before anything is printed, as in `features`.
  if (flags.html !== undefined) {
    const title = `Can ${JSON.stringify(positive)} be read off ${sae === undefined ? "activations" : "latents"} of ${model.config.name}?`;
    await writeFileAtomically(flags.html, probeHtml(title, report));
  }
  if (!flags.json) {
    process.stdout.write(probeText(report));
    if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
    return;
  }
  for (const probed of found) {
    const result = {
      model: model.config.name,
      hooks: probed.hooks,
      ...(flags.sae === undefined ? {} : { sae: flags.sae }),
      data: flags.data,
      positive,
      texts: texts.length,
      positives,
      duplicates,
      cut: probed.cut,
      pooling: flags.pooling,
      probes: probed.probes.map(({ outcome: { probe: fitted, ...outcome }, features: chosen }) => ({
        ...outcome,
        features: chosen ?? "all",
        weights: Array.from(fitted.weights),
        bias: fitted.bias,
      })),
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
}

async function probeOne(task: {
  readonly flags: ProbeFlags;
  readonly texts: readonly LabelledText[];
  readonly labels: Uint8Array;
  readonly sae: Sae | undefined;
  readonly model: HookedTransformer;
  readonly hook: string | undefined;
  /** Before the names of the probes. */
  readonly named: string;
  readonly signal: AbortSignal;
}): Promise<Probed> {
  const { flags, texts, labels, sae, model, hook, named, signal } = task;
  const progress = startProgress(`reading${hook === undefined ? "" : ` ${hook}`}`, texts.length, "texts");
  const { features, hooks, cut } = await pooledFeatures(
    texts.map(({ text }) => text),
    {
      model,
      sae,
      hook,
      pooling: flags.pooling,
      contextSize: flags.contextSize,
      signal,
      onProgress: (done) => progress.update(done.texts),
    },
  ).finally(() => progress.stop());
  const types = texts.flatMap(({ type }) => type ?? []);
  const options: ProbeOptions = {
    kind: flags.kind,
    testFraction: flags.testFraction,
    seed: flags.seed,
    ...(types.length === 0 ? {} : { types }),
    signal,
  };
  const what = sae === undefined ? "features" : "latents";
  const ks = flags.k ?? (sae === undefined ? [] : [1, 2, 5]);
  const sparse = await sparseProbes(features, labels, ks, options);
  const probes: readonly NamedProbe[] = [
    { name: `${named}all ${features.columns}`, outcome: await probe(features, labels, options) },
    ...sparse.map(({ features: chosen, ...outcome }) => ({
      name: `${named}${chosen.length} ${chosen.length === 1 ? what.slice(0, -1) : what}`,
      outcome,
      features: chosen,
    })),
  ];
  return { hooks, cut, probes };
}
