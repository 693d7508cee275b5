#!/usr/bin/env node
// @ts-check
/**
 * From a clone to readable features, with nothing downloaded:
 *
 *   1. a small GPT-2 (assets/tiny-gpt2) writes text, sampled at temperature 0.8,
 *   2. the activations of its third layer on that text train a TopK sparse autoencoder,
 *   3. the features that come out are measured and shown, here and as an HTML page.
 *
 *   npm run demo
 *   npm run demo -- --corpus 'books/*.txt' --output demo-output --seed 1
 *
 * --tokens (how much the model writes) and --steps (of training) make it shorter or longer.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  ActivationBuffer,
  Corpus,
  collectFeatures,
  contexts,
  Device,
  evaluateInModel,
  featureReportText,
  featureSummary,
  HookedTransformer,
  latentsInModel,
  limitTokens,
  parseConfig,
  rankLatents,
  recordPrompt,
  Trainer,
  writeReportPage,
} from "monosem";
import { describeFailure } from "../dist/cli/failure.js";
import { withInterruption } from "../dist/cli/interruption.js";
import { startProgress } from "../dist/cli/progress.js";
import { printedColumns, printsColour } from "../dist/cli/terminal.js";

const MODEL = fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url));
const HOOK = "blocks.2.hook_resid_post";
const CONTEXT_SIZE = 128;
const HELD_OUT_TOKENS = 20_000;
const FEATURE_TOKENS = 200_000;
const LATENTS = 1_536;
const K = 16;
const BATCH_SIZE = 2_048;
const LATENTS_PRINTED = 12;
const PAGE = "features.html";
const LATENTS_IN_PAGE = 60;
const PROMPTS = [
  "The king said that he would go home.",
  "She was very happy, because her mother gave her a big red ball.",
];

/**
 * Documents that the model makes up: it begins at BOS and writes on, many at a time; where it ends a document itself,
 * the text is cut.
 *
 * @param {HookedTransformer} model
 * @param {{ tokens: number, seed: number, signal: AbortSignal }} options
 */
async function writeDocuments(model, { tokens, seed, signal }) {
  const progress = startProgress("the model writes text", tokens, "tokens");
  const { contextSize, bosTokenId, eosTokenId } = model.config;
  const batch = Math.min(128, Math.ceil(tokens / contextSize));
  /** @type {string[]} */
  const documents = [];
  try {
    for (let written = 0, round = 0; written < tokens; round++) {
      const sequences = await model.generate(
        Array.from({ length: batch }, () => [/** @type {number} */ (bosTokenId)]),
        {
          maxNewTokens: contextSize - 1,
          temperature: 0.8,
          seed: seed * 1_000 + round,
          prependBos: false,
          stopAtEos: false,
          signal,
        },
      );
      for (const sequence of sequences) {
        written += sequence.length;
        for (const document of splitAt(sequence, eosTokenId)) documents.push(model.tokenizer.decode(document));
      }
      progress.update(Math.min(written, tokens));
    }
  } finally {
    progress.stop();
  }
  return documents;
}

/**
 * @param {readonly number[]} sequence
 * @param {number | undefined} separator
 */
function splitAt(sequence, separator) {
  /** @type {number[][]} */
  const parts = [[]];
  for (const token of sequence) {
    if (token === separator) parts.push([]);
    else parts[parts.length - 1]?.push(token);
  }
  return parts.filter((part) => part.length > 0);
}

/**
 * @param {HookedTransformer} model
 * @param {Corpus} corpus
 * @param {{ output: string, steps: number, bufferTokens: number, seed: number, device: Device, signal: AbortSignal }} options
 */
async function trainSae(model, corpus, { output, steps, bufferTokens, seed, device, signal }) {
  const cut = { contextSize: CONTEXT_SIZE, prependBos: true };
  const source = await ActivationBuffer.create({
    model,
    hook: HOOK,
    corpus,
    ...cut,
    excludeSpecialTokens: true,
    bufferTokens,
    seed,
  });
  const config = parseConfig({
    sae: {
      architecture: "topk",
      dIn: source.dIn,
      dSae: LATENTS,
      k: K,
      auxK: 32,
      deadAfterTokens: 500_000,
      bDecInit: "geometric-median",
      decoderUnitNorm: true,
      normalizeActivations: "expected-average-only-in",
    },
    data: { model: MODEL, hook: HOOK, corpus: ["generated"], ...cut },
    training: {
      batchSize: BATCH_SIZE,
      steps,
      lr: 8e-4,
      lrWarmupSteps: Math.min(100, steps),
      lrDecaySteps: Math.round(0.3 * steps),
      seed,
      logEvery: 25,
      checkpointEvery: steps,
    },
    output,
  });
  const trainer = await Trainer.create({ ...config, source, device, signal });
  const progress = startProgress("training", steps, "steps");
  try {
    for await (const { step, explainedVariance } of trainer.run({ signal })) {
      progress.update(step, `explained variance ${(100 * explainedVariance).toFixed(1)}%`);
    }
  } finally {
    progress.stop();
    trainer.dispose();
    source.dispose();
  }
  return trainer.sae;
}

/**
 * Runs the documents through model and SAE once more: how much of the model survives the SAE, and what its latents do.
 *
 * @param {HookedTransformer} model
 * @param {Awaited<ReturnType<typeof trainSae>>} sae
 * @param {{ heldOut: Corpus, corpus: Corpus, signal: AbortSignal }} options
 */
async function describeSae(model, sae, { heldOut, corpus, signal }) {
  const cut = { contextSize: CONTEXT_SIZE, prependBos: true };
  const evaluating = startProgress("measuring on held-out text", undefined, "tokens");
  const evaluation = await evaluateInModel({
    sae,
    model,
    contexts: limitTokens(contexts(heldOut, model.tokenizer, cut), HELD_OUT_TOKENS),
    signal,
    onProgress: ({ tokens }) => evaluating.update(tokens),
  }).finally(() => evaluating.stop());

  const collecting = startProgress("collecting features", undefined, "tokens");
  const { statistics, metrics } = await collectFeatures({
    sae,
    model,
    contexts: limitTokens(contexts(corpus, model.tokenizer, cut), FEATURE_TOKENS),
    signal,
    onProgress: ({ tokens }) => collecting.update(tokens),
  }).finally(() => collecting.stop());

  /** @param {number} id */
  const tokenText = (id) => model.tokenizer.tokenText(id);
  const latents = rankLatents(statistics, tokenText, LATENTS_IN_PAGE);
  return {
    title: "What a small language model has learned",
    facts: /** @type {const} */ ([
      ["model", model.config.name],
      ["hook point", HOOK],
      ["SAE", `TopK, k = ${K}, ${sae.config.dSae} latents`],
      ["text", `${statistics.tokens} tokens, most of them written by the model itself`],
    ]),
    summary: featureSummary({ statistics, metrics, evaluation }),
    densities: statistics,
    latents,
    latent: latentsInModel({ statistics, sae, model }),
    prompts: await Promise.all(PROMPTS.map((prompt) => recordPrompt({ sae, model, prompt }))),
    tokenText,
  };
}

/** @param {AbortSignal} signal */
async function demo(signal) {
  const { values } = parseArgs({
    options: {
      corpus: { type: "string", multiple: true, default: [] },
      output: { type: "string", default: "demo-output" },
      seed: { type: "string", default: "0" },
      tokens: { type: "string", default: "400000" },
      steps: { type: "string", default: "1500" },
    },
  });
  const { output } = values;
  const [seed, tokens, steps] = [Number(values.seed), Number(values.tokens), Number(values.steps)];
  const device = await Device.open("auto");
  const model = await HookedTransformer.load(MODEL, device);
  process.stderr.write(`${model.config.name} on ${device.name} (${device.description})\n`);

  const documents = await writeDocuments(model, { tokens, seed, signal });
  if (values.corpus.length > 0) {
    const given = await Corpus.fromFiles(values.corpus);
    for await (const document of given.documents(signal)) documents.push(document);
  }
  const heldOut = Corpus.fromDocuments(documents.filter((_, index) => index % 20 === 0));
  const corpus = Corpus.fromDocuments(documents.filter((_, index) => index % 20 !== 0));

  // What an earlier run of the demo left; anything else in the folder makes the trainer refuse it.
  for (const entry of ["sae", "checkpoints", "metrics.jsonl", "config.json", PAGE]) {
    await rm(join(output, entry), { recursive: true, force: true });
  }
  const bufferTokens = Math.min(65_536, tokens);
  const sae = await trainSae(model, corpus, { output, steps, bufferTokens, seed, device, signal });
  const report = await describeSae(model, sae, { heldOut, corpus, signal });
  const page = join(output, PAGE);
  await writeReportPage(page, report);

  const printed = { ...report, latents: report.latents.slice(0, LATENTS_PRINTED) };
  const style = { colour: printsColour(), width: printedColumns(), examples: 4 };
  process.stdout.write(await featureReportText(printed, style));
  process.stdout.write(`
${report.latents.length} features with more examples: ${page}
the SAE, readable by SAELens: ${join(output, "sae")}
losses and metrics by step: ${join(output, "metrics.jsonl")}
`);
}

await withInterruption(demo).catch((error) => {
  const { text, exitCode } = describeFailure(error, false);
  process.stderr.write(text);
  process.exitCode = exitCode;
});
