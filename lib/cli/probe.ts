import { type Command, Option } from "commander";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { binaryLabels, readLabelledTexts } from "../probing/labelledTexts.js";
import type { ProbeKind } from "../probing/linearProbe.js";
import { type Pooling, pooledFeatures } from "../probing/pooledFeatures.js";
import { type ProbeOptions, probe } from "../probing/probe.js";
import { type NamedProbe, probeText } from "../probing/probeText.js";
import { sparseProbes } from "../probing/sparseProbe.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { startProgress } from "./progress.js";

interface ProbeFlags extends DeviceFlags, TokenizerFlags {
  readonly model: string;
  readonly data: string;
  readonly hook?: string;
  readonly sae?: string;
  readonly positive?: string;
  readonly pooling: Pooling;
  readonly kind: ProbeKind;
  readonly k?: readonly number[];
  readonly contextSize?: number;
  readonly testFraction: number;
  readonly seed: number;
  readonly json?: boolean;
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
    .option("--hook <name>", "hook point whose activations are probed, or that the SAE reads")
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
    .option("--json", "print JSON, with the probes' weights, instead of a table")
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem probe --model models/gpt2 --data reviews.jsonl --hook blocks.6.hook_resid_post
  monosem probe --model models/gpt2 --data reviews.jsonl --sae runs/first/sae --k 1 2 5 10 20
  monosem probe --model models/gpt2 --data topics.jsonl --hook blocks.6.hook_resid_post --positive sports --json`,
    )
    .action((flags: ProbeFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => probeTexts(flags, device, signal))),
    );
}

async function probeTexts(flags: ProbeFlags, device: Device, signal: AbortSignal): Promise<void> {
  if (flags.hook === undefined && flags.sae === undefined) {
    throw new MonosemError("ERR_CONFIG", "nothing to probe: give --hook, --sae or both");
  }
  const texts = await readLabelledTexts(flags.data);
  const { labels, positive } = binaryLabels(texts, flags.positive);
  using sae = flags.sae === undefined ? undefined : await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, {
    tokenizer: flags.tokenizer,
    signal,
    saes: sae === undefined ? [] : [sae],
  });
  const progress = startProgress("reading", texts.length, "texts");
  const { features, hooks, cut } = await pooledFeatures(
    texts.map(({ text }) => text),
    {
      model,
      sae,
      hook: flags.hook,
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
    { name: `all ${features.columns}`, outcome: await probe(features, labels, options) },
    ...sparse.map(({ features: chosen, ...outcome }) => ({
      name: `${chosen.length} ${chosen.length === 1 ? what.slice(0, -1) : what}`,
      outcome,
      features: chosen,
    })),
  ];
  const positives = labels.reduce((sum, label) => sum + label, 0);
  if (flags.json) {
    const result = {
      model: model.config.name,
      hooks,
      ...(flags.sae === undefined ? {} : { sae: flags.sae }),
      data: flags.data,
      positive,
      texts: texts.length,
      positives,
      cut,
      pooling: flags.pooling,
      probes: probes.map(({ outcome: { probe: fitted, ...outcome }, features: chosen }) => ({
        ...outcome,
        features: chosen ?? "all",
        weights: Array.from(fitted.weights),
        bias: fitted.bias,
      })),
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  const [first] = probes;
  const { test } = first!.outcome;
  const facts: readonly (readonly [string, string])[] = [
    ["label", `${JSON.stringify(positive)}: ${positives} of ${texts.length} texts`],
    [what, `${flags.sae ?? hooks.join(", ")}, ${flags.pooling === "mean" ? "mean of the tokens" : "last token"}`],
    ["probes", `${flags.kind}, tested on ${test.rows} texts, ${test.positives} of them ${JSON.stringify(positive)}`],
    ...(cut === 0 ? [] : [["cut", `${cut} texts were longer than the context`] as const]),
  ];
  process.stdout.write(probeText(facts, probes));
}
