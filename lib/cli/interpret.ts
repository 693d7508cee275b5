import { type Command, InvalidArgumentError, Option } from "commander";
import { Corpus } from "../activations/corpus.js";
import { rankLatents } from "../analysis/featureRanking.js";
import { collectFeatures } from "../analysis/features.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { architectureText } from "../analysis/trainedArchitecture.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { ChatClient } from "../interpretation/chatClient.js";
import { gatherExamples } from "../interpretation/gatherExamples.js";
import { interpretLatents, SCORERS, type Scorer } from "../interpretation/interpret.js";
import { interpretationHtml } from "../interpretation/interpretationPage.js";
import {
  activityText,
  type InterpretationReport,
  interpretationJson,
  nothingExplained,
} from "../interpretation/interpretationReport.js";
import { interpretationText } from "../interpretation/interpretationText.js";
import { addCorpusOptions, type CorpusFlags, contextShapeForSae, contextsForSae } from "./corpusOptions.js";
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
import { printedColumns, printsColour } from "./terminal.js";

interface InterpretFlags extends DeviceFlags, TokenizerFlags, CorpusFlags {
  readonly sae: string;
  readonly model: string;
  readonly corpus: readonly string[];
  readonly hook?: readonly string[];
  readonly server: string;
  readonly judge: string;
  readonly keyVariable: string;
  readonly latents?: readonly number[];
  readonly top: number;
  readonly scorers?: readonly Scorer[];
  readonly tested: number;
  readonly cache: string;
  readonly tokenCap?: number;
  readonly costCap?: number;
  readonly inputPrice?: number;
  readonly outputPrice?: number;
  readonly concurrency: number;
  readonly answerTokens: number;
  readonly timeout: number;
  readonly seed: number;
  readonly json?: boolean;
  readonly html?: string;
}

/** Tokens per example, where the context has room for them. */
const WINDOW_TOKENS = 32;
const EXAMPLES_PRINTED = 3;

export function registerInterpret(program: Command): void {
  const command = program
    .command("interpret")
    .summary("let a language model explain latents, and test the explanations")
    .description(
      "Shows a judge, a language model behind an OpenAI-compatible server (llama.cpp, vLLM, Ollama, or a paid one), what latents fire on, asks it for an explanation of each, and scores the explanations on other documents than those they were made from. Replies are kept in a folder, so that a run that was stopped, or is repeated, pays for nothing twice. The server's key is read from an environment variable; where that is not set none is sent.",
    )
    .requiredOption("--sae <dir>", "folder of the SAE")
    .requiredOption("--model <dir>", "folder of the model that the SAE was trained on")
    .addOption(tokenizerOption())
    .requiredOption(
      "--corpus <glob...>",
      "text files (.txt, each a document; .jsonl, .parquet, a document a row), several documents",
    )
    .requiredOption("--server <url>", "address below which chat/completions lies, such as http://127.0.0.1:8080/v1")
    .requiredOption("--judge <name>", "the judge's name at the server")
    .option("--key-variable <name>", "environment variable that holds the server's key", "MONOSEM_API_KEY")
    .option("--hook <name...>", "hook point, of a crosscoder all of them (default: the SAE's)")
    .option("--latents <n...>", "interpret these latents", (text: string, earlier: readonly number[] = []) => [
      ...earlier,
      naturalNumber(text),
    ])
    .option("--top <n>", "without --latents: this many, as `features` chooses them", positiveInteger, 10)
    .addOption(
      new Option("--scorers <name...>", `how to test: ${SCORERS.join(", ")} (default: detection, fuzzing)`).argParser(
        addScorer,
      ),
    )
    .option("--tested <n>", "examples of each answer that a scorer uses", positiveInteger, 20)
    .option("--cache <dir>", "folder of the judge's replies", "monosem-replies")
    .option("--token-cap <n>", "pay for at most this many tokens", positiveInteger)
    .option("--cost-cap <amount>", "pay at most this much; needs both prices", nonNegativeNumber)
    .option("--input-price <amount>", "of a million tokens of requests", nonNegativeNumber)
    .option("--output-price <amount>", "of a million tokens of answers", nonNegativeNumber)
    .option("--concurrency <n>", "requests under way at a time", positiveInteger, 4)
    .option(
      "--answer-tokens <n>",
      "most tokens of an answer, with what the judge thinks before it",
      positiveInteger,
      2048,
    )
    .option("--timeout <seconds>", "how long to wait for an answer, at most 300", positiveInteger, 120)
    .option("--seed <n>", "of random choices", naturalNumber, 0)
    .option("--json", "print the result as one line of JSON")
    .option("--html <file>", "also write a self-contained HTML page");
  addCorpusOptions(command, 500_000)
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem interpret --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --server http://127.0.0.1:8080/v1 --judge local
  monosem interpret --sae runs/first/sae --model models/gpt2 --corpus 'texts/*.txt' --latents 17 512 --scorers detection simulation surprisal --server http://127.0.0.1:8080/v1 --judge local --html words.html
  monosem interpret --sae runs/first/sae --model models/gpt2 --corpus texts/*.jsonl --server https://api.example.org/v1 --judge some-model --cost-cap 2 --input-price 0.15 --output-price 0.6`,
    )
    .action((flags: InterpretFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => interpret(flags, device, signal))),
    );
}

function addScorer(name: string, earlier: readonly Scorer[] = []): readonly Scorer[] {
  const scorer = SCORERS.find((known) => known === name);
  if (scorer === undefined) throw new InvalidArgumentError(`expected ${SCORERS.join(", ")}.`);
  return [...new Set([...earlier, scorer])];
}

async function interpret(flags: InterpretFlags, device: Device, signal: AbortSignal): Promise<void> {
  await checkOutputFiles(flags.html);
  const { scorers = ["detection", "fuzzing"], seed } = flags;
  const client = new ChatClient({
    baseUrl: flags.server,
    keyVariable: flags.keyVariable,
    cacheDirectory: flags.cache,
    concurrency: flags.concurrency,
    timeout: 1000 * flags.timeout,
    maxTokens: flags.tokenCap,
    maxCost: flags.costCap,
    prices: pricesOf(flags),
  });
  using sae = await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes: [sae] });
  const { allowMismatch } = flags;
  const chosen = { allowMismatch, ...(flags.hook === undefined ? {} : { hook: flags.hook }) };
  const { input } = hooksForSae(model, sae, flags.hook, { allowMismatch });
  const corpus = await Corpus.fromFiles(flags.corpus);
  const tokenText = (id: number): string => model.tokenizer.tokenText(id);

  let latents = flags.latents;
  if (latents === undefined) {
    const progress = startProgress("choosing latents", { atMost: flags.tokens }, "tokens");
    const { statistics } = await collectFeatures({
      sae,
      model,
      ...chosen,
      contexts: contextsForSae(corpus, model, sae, flags),
      signal,
      onProgress: ({ tokens }) => progress.update(tokens),
    }).finally(() => progress.stop());
    latents = rankLatents(statistics, tokenText, flags.top);
    if (latents.length === 0) {
      const message = "no latent fires often enough in the corpus: give more text, or name latents with --latents";
      throw new MonosemError("ERR_CONFIG", message);
    }
  }
  const shape = contextShapeForSae(model, sae, flags);
  const gathering = startProgress("gathering examples", { atMost: flags.tokens }, "tokens");
  const examples = await gatherExamples({
    sae,
    model,
    ...chosen,
    corpus,
    latents: [...new Set(latents)],
    ...shape,
    windowTokens: Math.max(1, Math.min(WINDOW_TOKENS, shape.contextSize - (shape.prependBos ? 1 : 0))),
    tokens: flags.tokens,
    seed,
    signal,
    onProgress: ({ tokens }) => gathering.update(tokens),
  }).finally(() => gathering.stop());

  const asking = startProgress("interpreting", examples.length, "latents");
  const interpreted = await interpretLatents({
    judge: client,
    judgeModel: flags.judge,
    latents: examples,
    tokenText,
    scorers,
    surprisalModel: model,
    tested: flags.tested,
    answerTokens: flags.answerTokens,
    concurrency: flags.concurrency,
    seed,
    signal,
    onProgress: ({ latents }) => asking.update(latents, activityText(client.activity)),
  }).finally(() => asking.stop());
  const report: InterpretationReport = {
    title: `Latents of ${flags.sae}, in words`,
    facts: [
      ["model", model.config.name],
      ["hook point", input.join(", ")],
      ["architecture", architectureText(sae)],
      ["judge", flags.judge],
      ["seed", String(seed)],
    ],
    ...interpreted,
    scorers,
    activity: client.activity,
    tokenText,
  };
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) await writeFileAtomically(flags.html, interpretationHtml(report));
  if (flags.json) {
    process.stdout.write(`${interpretationJson(report)}\n`);
  } else {
    process.stdout.write(
      interpretationText(report, { colour: printsColour(), width: printedColumns(), examples: EXAMPLES_PRINTED }),
    );
    if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
  }
  const nothing = nothingExplained(report);
  if (nothing !== undefined) throw new MonosemError(report.leftOut.length > 0 ? "ERR_BUDGET" : "ERR_CONFIG", nothing);
}

function pricesOf({ inputPrice, outputPrice }: InterpretFlags): { input: number; output: number } | undefined {
  if (inputPrice === undefined && outputPrice === undefined) return undefined;
  if (inputPrice === undefined || outputPrice === undefined) {
    throw new MonosemError("ERR_CONFIG", "--input-price and --output-price belong together");
  }
  return { input: inputPrice, output: outputPrice };
}
