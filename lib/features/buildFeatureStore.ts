import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type ContextPosition, Contexts } from "../activations/contexts.js";
import { Corpus } from "../activations/corpus.js";
import { tokenizerFingerprint } from "../activations/storeActivations.js";
import { requirePair } from "../analysis/checkPair.js";
import { rankLatents } from "../analysis/featureRanking.js";
import { hasLogitEffects } from "../analysis/logitEffects.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { architectureText } from "../analysis/trainedArchitecture.js";
import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { isAborted, MonosemError, throwIfAborted } from "../errors.js";
import { removeTemporaries } from "../formats/atomicFile.js";
import { FolderLock, folderLockFile } from "../formats/folderLock.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { NearestRows } from "../sae/nearestRows.js";
import { FeaturePass, type FeaturePassOptions, featurePassOptionNames, type PassContext } from "./featurePass.js";
import { FeatureStore } from "./featureStore.js";
import { LOGIT_BINS, LOGITS_TOLD, latentLogits } from "./latentLogits.js";
import type { LatentRecord } from "./latentRecord.js";
import { type PassState, requireSameIdentity, restorePass, savePass } from "./passState.js";
import { type PassIdentity, stateFile, storeFile } from "./storeHeader.js";
import { saeFingerprint } from "./storeSae.js";
import { writeFeatureStore } from "./writeFeatureStore.js";

export interface FeatureStoreOptions extends FeaturePassOptions {
  readonly corpus: Corpus;
  /** Tokens per context, BOS included. */
  readonly contextSize: number;
  readonly prependBos: boolean;
  /** Stop after so many tokens of the corpus, rounded up to whole contexts. */
  readonly tokens: number;
  /** Contexts that go through the model at once. Default 8. */
  readonly contextsPerBatch?: number;
  /**
   * Seconds between two savings of what there is so far, from which a pass goes on that was killed; 0: after each batch.
   * Default 300.
   */
  readonly saveEverySeconds?: number;
  /** Go on where an interrupted or killed pass with the same options was. Default false. */
  readonly resume?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: FeatureStoreProgress) => void;
}

export interface FeatureStoreProgress {
  /** Reading text, or writing what was found. */
  readonly stage: "reading" | "writing";
  /** Tokens of the corpus read so far, or latents written. */
  readonly done: number;
  readonly of: number;
}

/** Most similar latents told per latent. */
const NEIGHBOURS = 10;

const optionNames: OptionNames<FeatureStoreOptions> = {
  ...featurePassOptionNames,
  corpus: true,
  contextSize: true,
  prependBos: "boolean",
  tokens: true,
  contextsPerBatch: true,
  saveEverySeconds: true,
  resume: "boolean",
  signal: "signal",
  onProgress: "function",
};

/**
 * Runs a corpus through the model and the SAE once, gathers what there is to know of all latents at once, and writes it
 * into `folder`. Every few minutes, and interrupted by the signal, it saves what it has so far; with `resume` it goes on from there,
 * and the store is the same, byte for byte, as if nothing had happened. Memory: `FeatureCollector.maximumBytes`.
 *
 * @returns the store, open
 * @throws MonosemError ERR_ABORTED, with the state kept; ERR_CONFIG for a folder that holds other files, an unfinished pass
 *   and no `resume`, or a pass with other options, or in which another process works, and if model, hook and SAE do not belong
 *   together; ERR_NON_FINITE; ERR_IO
 */
export async function buildFeatureStore(folder: string, options: FeatureStoreOptions): Promise<FeatureStore> {
  checkOptions("buildFeatureStore", options, optionNames);
  const { signal, resume = false, saveEverySeconds = 300 } = options;
  if (typeof folder !== "string") refuseArgument("buildFeatureStore: folder", "the path of a folder", folder);
  requirePair(options.model, options.sae);
  if (!(options.corpus instanceof Corpus)) {
    refuseArgument("buildFeatureStore: corpus", "a Corpus (such as await Corpus.fromFiles([...]))", options.corpus);
  }
  if (!(saveEverySeconds >= 0)) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `saveEverySeconds must be 0 or positive, found ${saveEverySeconds}`);
  }
  const identity = await identityOf(options);
  await makeDirectory(folder);
  using _lock = await FolderLock.acquire(folder, { what: "the folder of the feature store", signal });
  await prepareFolder(folder, resume);
  const [statePath, storePath] = [join(folder, stateFile), join(folder, storeFile)];
  const names = await readdir(folder);
  if (names.includes(storeFile)) {
    const store = await FeatureStore.open(folder);
    try {
      requireSameIdentity(storePath, store.summary.identity, identity);
    } catch (error) {
      await store.close();
      throw error;
    }
    await rm(statePath, { force: true }); // left where the process ended right after the store was written
    return store;
  }
  using pass = new FeaturePass(options);
  const contexts = new Contexts(options.corpus, options.model.tokenizer, options);
  let state: PassState = { identity, position: contexts.position, tokensRead: 0 };
  if (names.includes(stateFile)) {
    state = await restorePass(statePath, pass, identity);
    contexts.seek(state.position);
  }
  const millisecondsBetween = 1000 * saveEverySeconds;
  let saved = performance.now();
  try {
    for await (const batch of batches(contexts, state.tokensRead, options)) {
      throwIfAborted(signal, "gathering features");
      await pass.add(batch.contexts);
      state = { identity, position: batch.position, tokensRead: batch.tokensRead };
      if (performance.now() - saved >= millisecondsBetween) {
        await savePass(statePath, pass, state);
        saved = performance.now();
      }
      options.onProgress?.({ stage: "reading", done: batch.tokensRead, of: options.tokens });
    }
    throwIfAborted(signal, "gathering features");
    await writePass(storePath, pass, identity, options);
  } catch (error) {
    // An abort is between two batches, or while the store is written; of anything else a part may have been counted.
    if (isAborted(error)) await savePass(statePath, pass, state);
    throw error;
  }
  await rm(statePath, { force: true });
  return await FeatureStore.open(folder);
}

async function prepareFolder(folder: string, resume: boolean): Promise<void> {
  await removeTemporaries(folder);
  for (const name of await readdir(folder)) {
    if (name === folderLockFile) continue;
    if (name !== storeFile && name !== stateFile) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${folder} holds ${JSON.stringify(name)}, which is no part of a feature store: choose an empty folder`,
      );
    }
    if (!resume) {
      const what = name === storeFile ? "features" : "unfinished features";
      throw new MonosemError(
        "ERR_CONFIG",
        `${folder} holds ${what} already: resume them (on the command line with --resume) or choose another folder`,
      );
    }
  }
}

async function identityOf(options: FeatureStoreOptions): Promise<PassIdentity> {
  const { sae, model, corpus, contextSize, prependBos, tokens } = options;
  const { contextsPerBatch = 8, excludeSpecialTokens = true } = options;
  for (const [name, value] of Object.entries({ tokens, contextsPerBatch })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be a positive integer, found ${value}`);
  }
  return {
    model: model.config.name,
    tokenizer: tokenizerFingerprint(model.tokenizer),
    hooks: [...hooksForSae(model, sae, options.hook, options).input],
    sae: await saeFingerprint(sae),
    architecture: architectureText(sae),
    dSae: sae.config.dSae,
    corpus: corpus.fingerprint,
    contextSize,
    prependBos,
    tokensAsked: tokens,
    excludeSpecialTokens,
    contextsPerBatch,
    examplesPerLatent: options.examplesPerLatent ?? 12,
    tokensBefore: options.tokensBefore ?? 16,
    tokensAfter: options.tokensAfter ?? 8,
    seed: options.seed ?? 0,
  };
}

interface Batch {
  readonly contexts: readonly PassContext[];
  /** Where the next batch begins. */
  readonly position: ContextPosition;
  readonly tokensRead: number;
}

async function* batches(
  contexts: Contexts,
  alreadyRead: number,
  { tokens, contextSize, contextsPerBatch = 8, signal }: FeatureStoreOptions,
): AsyncGenerator<Batch, void, undefined> {
  for (let tokensRead = alreadyRead; tokensRead < tokens; ) {
    const batch: PassContext[] = [];
    while (batch.length < contextsPerBatch && tokensRead < tokens) {
      const next = await contexts.next(signal);
      if (next === undefined) break;
      batch.push({ tokens: next, documents: contexts.documents });
      tokensRead += contextSize;
    }
    if (batch.length === 0) return;
    yield { contexts: batch, position: contexts.position, tokensRead };
  }
}

async function writePass(
  path: string,
  pass: FeaturePass,
  identity: PassIdentity,
  options: FeatureStoreOptions,
): Promise<void> {
  const { sae, model, signal } = options;
  const { collector } = pass;
  if (collector.tokens === 0) {
    throw new MonosemError("ERR_CONFIG", "no token of the corpus counts: all are special tokens");
  }
  collector.end();
  const statistics = collector.statistics();
  const coActive = collector.coActive();
  // A model may have more logits than the tokenizer has tokens.
  const vocabularySize = Math.max(model.tokenizer.vocabularySize, model.config.vocabularySize);
  const vocabulary = model.tokenizer.tokenTexts(Array.from({ length: vocabularySize }, (_, id) => id));
  const hasLogits = hasLogitEffects(model, sae, options.hook, options);
  const { explainedVariance } = await pass.metrics();
  using nearest = new NearestRows(sae.parameters.decoder);
  await writeFeatureStore(path, {
    header: {
      formatVersion: 1,
      identity,
      contexts: statistics.contexts,
      tokens: statistics.tokens,
      l0: statistics.l0,
      vocabularySize,
      specialTokens: [...model.tokenizer.specialTokenIds].sort((a, b) => a - b),
      hasLogits,
      explainedVariance: Number.isNaN(explainedVariance) ? null : explainedVariance,
    },
    vocabulary,
    ranking: rankLatents(statistics, (token) => vocabulary[token]!, identity.dSae),
    signal,
    onProgress: (latents) => options.onProgress?.({ stage: "writing", done: latents, of: identity.dSae }),
    rowCounts(latent) {
      const text = collector.latent(latent);
      const told = hasLogits ? Math.min(LOGITS_TOLD, vocabularySize) : 0;
      return {
        histogram: text.histogram.counts.length,
        examples: text.examples.length,
        negativeExamples: text.negativeExamples.length,
        quantiles: text.quantiles.length,
        samples: text.quantiles.reduce((sum, { examples }) => sum + examples.length, 0),
        tokens: text.tokens.length,
        documents: text.documents.length,
        coActive: coActive(latent).length,
        neighbours: Math.min(NEIGHBOURS, identity.dSae - 1),
        raised: told,
        lowered: told,
        logitHistogram: hasLogits ? LOGIT_BINS : 0,
      };
    },
    async records(first, latents): Promise<LatentRecord[]> {
      const numbers = Array.from({ length: latents }, (_, index) => first + index);
      const near = await nearest.of(first, latents, NEIGHBOURS);
      const logits = hasLogits ? await latentLogits({ ...options, latents: numbers }) : [];
      return numbers.map((latent, index) => ({
        ...collector.latent(latent),
        coActive: coActive(latent),
        neighbours: near[index]!.map(({ row, cosine }) => ({ latent: row, cosine })),
        logits: logits[index],
      }));
    },
  });
}
