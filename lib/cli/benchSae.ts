import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { type Command, Option } from "commander";
import { contexts } from "../activations/contexts.js";
import { Corpus } from "../activations/corpus.js";
import { limitTokens } from "../analysis/contextBatches.js";
import { coreEvaluation } from "../analysis/coreEvaluation.js";
import { collectFeatures } from "../analysis/features.js";
import { evaluateInModel } from "../analysis/modelEvaluation.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { evaluateAbsorption } from "../evaluation/absorption.js";
import { absorptionRefusal } from "../evaluation/absorptionRefusal.js";
import { AUTO_INTERP, evaluateAutoInterp } from "../evaluation/autoInterp.js";
import {
  absorptionConfig,
  absorptionFacts,
  absorptionResult,
  autoInterpResult,
  type BenchSetting,
  sparseProbingResult,
} from "../evaluation/benchResults.js";
import { type BenchOutcome, benchText } from "../evaluation/benchText.js";
import { CUSTOM_SAE, type SaeBenchResult, saeBenchResult } from "../evaluation/saeBenchResult.js";
import { evaluateSparseProbing } from "../evaluation/sparseProbing.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { exists } from "../formats/exists.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { ChatClient } from "../interpretation/chatClient.js";
import { gatherExamples } from "../interpretation/gatherExamples.js";
import { activityText } from "../interpretation/interpretationReport.js";
import { keyedShuffle } from "../interpretation/keyedNumber.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { readLabelledTexts } from "../probing/labelledTexts.js";
import type { Sae } from "../sae/sae.js";
import { saeLensCfg } from "../sae/saeLensFolder.js";
import { addCorpusOptions, type ContextShape, type CorpusFlags, contextShapeForSae } from "./corpusOptions.js";
import { fittingSaes, loadableSaes } from "./fittingSaes.js";
import { loadModel, loadSae, saeFolders } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { CONTEXTS_PER_BATCH, described } from "./measureSaes.js";
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
import { StagedProgress } from "./progress.js";
import { packageVersion } from "./version.js";

const EVALUATIONS = ["core", "sparse-probing", "absorption", "autointerp"] as const;
type Evaluation = (typeof EVALUATIONS)[number];

interface BenchFlags extends DeviceFlags, TokenizerFlags, CorpusFlags {
  readonly sae: readonly string[];
  readonly model: string;
  readonly evals: readonly Evaluation[];
  readonly output: string;
  readonly hook?: readonly string[];
  readonly corpus?: readonly string[];
  readonly data?: readonly string[];
  readonly k?: readonly number[];
  readonly server?: string;
  readonly judge?: string;
  readonly keyVariable: string;
  readonly cache: string;
  readonly tokenCap?: number;
  readonly latents: number;
  readonly seed: number;
  readonly force?: boolean;
}

export function registerBenchSae(program: Command): void {
  const command = program
    .command("bench-sae")
    .summary("SAEBench's evaluations, in its files")
    .description(
      `Evaluates SAEs as SAEBench does and writes its files, which its readers and
plots take: OUTPUT/<evaluation>/<SAE>_custom_sae_eval_results.json. Those that
are there already are kept, so that a run that was stopped goes on.

core            what reconstructions cost the model (needs --corpus)
sparse-probing  labels read off a few latents (needs --data)
absorption      first letters of words that other latents carry than the main
                ones. The model must know how words are spelled, which small
                ones do not: then there are no numbers, and the reason is said
autointerp      whether a judge's words tell where latents fire (needs --corpus,
                --server and --judge)`,
    )
    .requiredOption("--sae <dir...>", "folders of the SAEs, or patterns such as 'runs/*/sae'")
    .requiredOption("--model <dir>", "folder of the model that the SAEs were trained on")
    .addOption(tokenizerOption())
    .addOption(new Option("--evals <name...>", "what to evaluate").choices(EVALUATIONS).makeOptionMandatory())
    .requiredOption("--output <dir>", "folder of the results")
    .option("--hook <name...>", "hook point, of a crosscoder all of them (default: the SAE's)")
    .option("--corpus <glob...>", "text files (.txt, .jsonl, .parquet)")
    .option("--data <file...>", 'labelled texts (.jsonl: {"text": "...", "label": "..."}), a file for each data set')
    .option(
      "--k <n...>",
      "sparse probing: numbers of latents (default: 1 2 5)",
      (text: string, earlier: readonly number[] = []) => [...earlier, positiveInteger(text)],
    )
    .option("--server <url>", "of the judge: address below which chat/completions lies")
    .option("--judge <name>", "the judge's name at the server")
    .option("--key-variable <name>", "environment variable that holds the server's key", "MONOSEM_API_KEY")
    .option("--cache <dir>", "folder of the judge's replies", "monosem-replies")
    .option("--token-cap <n>", "pay the judge for at most this many tokens", positiveInteger)
    .option("--latents <n>", "autointerp: latents to explain, chosen at random", positiveInteger, 1000)
    .option("--seed <n>", "of random choices", naturalNumber, 0)
    .option("--force", "evaluate again what has results");
  addCorpusOptions(command, 500_000)
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem bench-sae --sae 'runs/*/sae' --model models/gpt2 --evals core absorption --corpus 'heldout/*.txt' --output bench
  monosem bench-sae --sae runs/first/sae --model models/gpt2 --evals sparse-probing --data reviews.jsonl topics.jsonl --k 1 2 5 10 --output bench
  monosem bench-sae --sae runs/first/sae --model models/gpt2 --evals autointerp --corpus 'texts/*.jsonl' --server http://127.0.0.1:8080/v1 --judge local --latents 100 --output bench`,
    )
    .action((flags: BenchFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => benchSaes(flags, device, signal))),
    );
}

const DEFAULT_KS: readonly number[] = [1, 2, 5];

/** What each evaluation cannot do without. */
const NEEDS: Readonly<Record<Evaluation, readonly (keyof BenchFlags & ("corpus" | "data" | "server" | "judge"))[]>> = {
  core: ["corpus"],
  "sparse-probing": ["data"],
  absorption: [],
  autointerp: ["corpus", "server", "judge"],
};

async function benchSaes(flags: BenchFlags, device: Device, signal: AbortSignal): Promise<void> {
  const evaluations = EVALUATIONS.filter((name) => flags.evals.includes(name));
  for (const evaluation of evaluations) {
    const missing = NEEDS[evaluation].filter((flag) => flags[flag] === undefined);
    if (missing.length === 0) continue;
    throw new MonosemError("ERR_CONFIG", `${evaluation} needs ${missing.map((flag) => `--${flag}`).join(" and ")}`);
  }
  const folders = await saeFolders(flags.sae);
  const loaded = await loadableSaes(folders, (folder) => loadSae(folder, device, signal));
  const saes = loaded.map(({ sae }) => sae);
  try {
    using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes });
    const fitting = fittingSaes(loaded, (sae) => {
      hooksForSae(model, sae, flags.hook, flags);
      return contextShapeForSae(model, sae, flags);
    });
    const outcomes: BenchOutcome[] = [];
    try {
      for (const { folder, sae, checked: shape } of fitting) {
        for (const evaluation of evaluations) {
          const one = { flags, folder, sae, model, shape, signal, madeBy: `monosem ${await packageVersion()}` };
          outcomes.push({ sae: folder, evaluation, ...(await keptOrMeasured(evaluation, one)) });
        }
      }
    } finally {
      // Also of what was finished before a failure.
      process.stdout.write(benchText(outcomes));
    }
  } finally {
    for (const sae of saes) sae.dispose();
  }
}

interface BenchedSae {
  readonly flags: BenchFlags;
  readonly folder: string;
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly shape: ContextShape;
  readonly signal: AbortSignal;
  readonly madeBy: string;
}

/** The result without what `keptOrMeasured` adds to it; or why there is none, and facts that show it. */
type Measured =
  | { readonly result: SaeBenchResult }
  | { readonly notEvaluated: string; readonly facts: { readonly [key: string]: unknown } };

/** What a file says that was written before, or what is measured now and written. */
async function keptOrMeasured(
  evaluation: Evaluation,
  one: BenchedSae,
): Promise<{ readonly result: SaeBenchResult } | { readonly notEvaluated: string }> {
  const { flags, folder } = one;
  const directory = join(flags.output, evaluation.replace("-", "_"));
  const name = `${folder}_${CUSTOM_SAE}`.replaceAll(/[/\\]/g, "_");
  const paths = {
    result: join(directory, `${name}_eval_results.json`),
    none: join(directory, `${name}_not_evaluated.json`),
  };
  const settings = await settingsDigest(evaluation, one);
  for (const path of [paths.result, paths.none]) {
    if (flags.force || !(await exists(path))) continue;
    const kept = (await readKept(path)) as
      | (SaeBenchResult & { readonly monosem?: { readonly settings?: string; readonly notEvaluated?: string } })
      | null;
    if (kept?.monosem?.settings !== settings) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${path} has results of other weights or settings: --force replaces them, another --output keeps them`,
      );
    }
    process.stderr.write(`kept ${visibleText(path)}\n`);
    const { notEvaluated } = kept.monosem;
    return notEvaluated === undefined ? { result: kept } : { notEvaluated };
  }
  const measured = await MEASURE[evaluation](one).catch(unsupported);
  await makeDirectory(directory);
  if ("result" in measured) {
    const own = (measured.result.monosem ?? {}) as SaeBenchResult;
    const result: SaeBenchResult = { ...measured.result, monosem: { ...own, madeBy: one.madeBy, settings } };
    await writeFileAtomically(paths.result, `${JSON.stringify(result, undefined, 2)}\n`);
    process.stderr.write(`wrote ${visibleText(paths.result)}\n`);
    return { result };
  }
  const { notEvaluated, facts } = measured;
  const record = { monosem: { madeBy: one.madeBy, settings, notEvaluated, ...facts } };
  await writeFileAtomically(paths.none, `${JSON.stringify(record, undefined, 2)}\n`);
  process.stderr.write(`wrote ${visibleText(paths.none)}\n`);
  return { notEvaluated };
}

/** What an evaluation is not made for, such as a crosscoder, must not keep others from theirs. */
function unsupported(error: unknown): Measured {
  if (!(error instanceof MonosemError) || error.code !== "ERR_UNSUPPORTED") throw error;
  return { notEvaluated: error.message, facts: {} };
}

/** @throws MonosemError as `readJsonFile`, with what to do about a file that is broken */
async function readKept(path: string): Promise<unknown> {
  try {
    return await readJsonFile(path);
  } catch (error) {
    if (!(error instanceof MonosemError) || error.code !== "ERR_FORMAT") throw error;
    throw new MonosemError(error.code, `${error.message}: --force replaces it`, { cause: error });
  }
}

/** Of everything that a result depends on: another SAE or other settings give another. */
async function settingsDigest(evaluation: Evaluation, { flags, sae, model, shape }: BenchedSae): Promise<string> {
  const { hook, corpus, tokens, data = [], k = DEFAULT_KS, judge, latents, seed } = flags;
  const hash = createHash("sha256");
  const settings = {
    core: { corpus, tokens },
    "sparse-probing": { k },
    absorption: {},
    autointerp: { corpus, tokens, judge, latents },
  }[evaluation];
  const cfg = saeLensCfg(sae.config, sae.metadata);
  hash.update(JSON.stringify([evaluation, settings, model.config.name, hook, shape, seed, cfg]));
  if (evaluation === "sparse-probing") for (const file of data) hash.update(file).update(await readFile(file));
  for (const [name, parameter] of Object.entries(sae.parameters)) {
    if (parameter === undefined) continue;
    const values = await parameter.readFloat32();
    hash.update(name).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest("hex");
}

const MEASURE: Readonly<Record<Evaluation, (one: BenchedSae) => Promise<Measured>>> = {
  core: measureCore,
  "sparse-probing": measureSparseProbing,
  absorption: measureAbsorption,
  autointerp: measureAutoInterp,
};

async function measureCore({ flags, folder, sae, model, shape, signal, madeBy }: BenchedSae): Promise<Measured> {
  const corpus = await Corpus.fromFiles(flags.corpus!);
  const stages = new StagedProgress(`${visibleText(folder)}: `);
  const inModel = await evaluateInModel({
    sae,
    model,
    contexts: limitTokens(contexts(corpus, model.tokenizer, shape), flags.tokens),
    contextsPerBatch: CONTEXTS_PER_BATCH,
    ...(flags.hook === undefined ? {} : { hook: flags.hook }),
    allowMismatch: flags.allowMismatch,
    signal,
    onProgress: ({ stage, tokens }) => stages.update(`core, ${stage}`, tokens, { atMost: flags.tokens }, "tokens"),
  }).finally(() => stages.stop());
  const { reconstruction, explainedVariancePerHook } = inModel;
  const known = {
    name: folder,
    hooks: hooksForSae(model, sae, flags.hook, flags),
    reconstruction,
    ...(explainedVariancePerHook === undefined ? {} : { explainedVariancePerHook }),
  };
  const evaluated = {
    ...(await described(sae, known, signal)),
    inModel,
    modelName: model.config.name,
    contextSize: shape.contextSize,
  };
  const dataset = flags.corpus!.join(" ");
  const setting = { id: randomUUID(), time: new Date(), madeBy, dataset, contextsPerBatch: CONTEXTS_PER_BATCH };
  return { result: coreEvaluation(evaluated, setting) };
}

async function measureSparseProbing(one: BenchedSae): Promise<Measured> {
  const { flags, folder, sae, model, shape, signal } = one;
  const datasets = [];
  for (const path of flags.data!) {
    datasets.push({ name: basename(path).replace(/\.jsonl$/, ""), texts: await readLabelledTexts(path) });
  }
  const stages = new StagedProgress(`${visibleText(folder)}: `);
  const evaluated = await evaluateSparseProbing({
    sae,
    model,
    ...(flags.hook === undefined ? {} : { hook: flags.hook }),
    datasets,
    ks: flags.k ?? DEFAULT_KS,
    ...shape,
    seed: flags.seed,
    signal,
    onProgress: ({ dataset, done, of }) => stages.update(`sparse probing, ${visibleText(dataset)}`, done, of, "texts"),
  }).finally(() => stages.stop());
  return { result: saeBenchResult(sparseProbingResult(evaluated, settingOf(one)), subjectOf(one)) };
}

async function measureAbsorption(one: BenchedSae): Promise<Measured> {
  const { flags, folder, sae, model, shape, signal } = one;
  const stages = new StagedProgress(`${visibleText(folder)}: `);
  const { letters, ...task } = await evaluateAbsorption({
    sae,
    model,
    ...(flags.hook === undefined ? {} : { hook: flags.hook }),
    allowMismatch: flags.allowMismatch,
    ...shape,
    seed: flags.seed,
    signal,
    onProgress: ({ stage, done, of }) => stages.update(`absorption, ${stage}`, done, of, stage),
  }).finally(() => stages.stop());
  if (letters === undefined) {
    return { notEvaluated: absorptionRefusal(task), facts: absorptionFacts(task) };
  }
  const config = absorptionConfig(settingOf(one));
  return { result: saeBenchResult(absorptionResult(letters, { task, config }), subjectOf(one)) };
}

/** A latent that fires on no more tokens is left alone, as SAEBench does. */
const FEWEST_FIRINGS = 15;

async function measureAutoInterp(one: BenchedSae): Promise<Measured> {
  const { flags, folder, sae, model, shape, signal } = one;
  const client = new ChatClient({
    baseUrl: flags.server!,
    keyVariable: flags.keyVariable,
    cacheDirectory: flags.cache,
    maxTokens: flags.tokenCap,
  });
  const corpus = await Corpus.fromFiles(flags.corpus!);
  const stages = new StagedProgress(`${visibleText(folder)}: `);
  const chosen = {
    allowMismatch: flags.allowMismatch,
    ...(flags.hook === undefined ? {} : { hook: flags.hook }),
  };
  try {
    const { statistics } = await collectFeatures({
      sae,
      model,
      ...chosen,
      contexts: limitTokens(contexts(corpus, model.tokenizer, shape), flags.tokens),
      examplesPerLatent: 0,
      signal,
      onProgress: ({ tokens }) => stages.update("autointerp, firing", tokens, { atMost: flags.tokens }, "tokens"),
    });
    const alive = Array.from(statistics.firingCounts.keys()).filter(
      (latent) => statistics.firingCounts[latent]! > FEWEST_FIRINGS,
    );
    const latents = keyedShuffle(alive, flags.seed).slice(0, flags.latents);
    const examples = await gatherExamples({
      sae,
      model,
      ...chosen,
      corpus,
      latents,
      ...shape,
      windowTokens: Math.min(AUTO_INTERP.windowTokens, shape.contextSize - (shape.prependBos ? 1 : 0)),
      tokens: flags.tokens,
      seed: flags.seed,
      signal,
      onProgress: ({ tokens }) => stages.update("autointerp, examples", tokens, { atMost: flags.tokens }, "tokens"),
    });
    const evaluated = await evaluateAutoInterp({
      latents: examples,
      judge: client,
      judgeModel: flags.judge!,
      tokenText: (id) => model.tokenizer.tokenText(id),
      seed: flags.seed,
      signal,
      onProgress: (done) =>
        stages.update("autointerp, asking", done.latents, latents.length, "latents", activityText(client.activity)),
    });
    if (evaluated.leftOut.length > 0) {
      throw new MonosemError(
        "ERR_BUDGET",
        `the cap on tokens left no room for ${evaluated.leftOut.length} of ${latents.length} latents: ${evaluated.leftOutBecause}; with a higher --token-cap, what was paid for is not paid again`,
      );
    }
    const measurement = autoInterpResult(evaluated, {
      setting: settingOf(one),
      judge: flags.judge!,
      dataset: flags.corpus!.join(" "),
      tokens: statistics.tokens,
    });
    if (measurement !== undefined) return { result: saeBenchResult(measurement, subjectOf(one)) };
    const notEvaluated = `none of ${latents.length} latents has a score: ${evaluated.latents.length === 0 ? "none fires often enough" : "the corpus has too few examples of each, or the judge gives no explanations"}`;
    return { notEvaluated, facts: { latents: evaluated.latents } };
  } finally {
    stages.stop();
  }
}

function settingOf({ flags, model, shape }: BenchedSae): BenchSetting {
  return { modelName: model.config.name, contextSize: shape.contextSize, seed: flags.seed };
}

function subjectOf({ folder, sae, madeBy }: BenchedSae) {
  return {
    saeName: folder,
    cfg: saeLensCfg(sae.config, sae.metadata),
    id: randomUUID(),
    time: new Date(),
    madeBy,
  };
}
