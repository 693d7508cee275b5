import type { Corpus } from "../activations/corpus.js";
import { checkContexts, type PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { type DocumentContext, documentContexts } from "./documentContexts.js";
import { ExampleCollector, type ExampleLimits } from "./exampleCollector.js";
import type { LatentExamples } from "./examples.js";

export interface GatherOptions extends ExampleLimits, PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
  /** Of several documents: each is either explained from or tested on. */
  readonly corpus: Corpus;
  /** The latents to gather examples of. */
  readonly latents: readonly number[];
  /** Tokens per context of the model, BOS included. */
  readonly contextSize: number;
  /** Whether each context begins with BOS. */
  readonly prependBos: boolean;
  /** Stop after so many tokens of the corpus. */
  readonly tokens: number;
  /** Tokens per example. Default 32. */
  readonly windowTokens?: number;
  /** Contexts that go through the model at once. Default 8. */
  readonly contextsPerBatch?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly tokens: number }) => void;
}

/** The last window of a context is left out if it has fewer tokens: too little to judge by. */
const SHORTEST_WINDOW = 8;

const optionNames: OptionNames<GatherOptions> = {
  sae: true,
  model: true,
  hook: true,
  corpus: true,
  latents: true,
  contextSize: true,
  prependBos: "boolean",
  tokens: true,
  windowTokens: true,
  contextsPerBatch: true,
  signal: "signal",
  onProgress: "function",
  strongest: true,
  active: true,
  pool: true,
  seed: true,
  allowMismatch: "boolean",
};

/**
 * One pass of a corpus through the model up to the hook and through the SAE that keeps examples of chosen latents, split
 * by document into those to explain from and those to test on. Special tokens do not count.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, or if the tokens lie in too few documents
 *   to have some on both sides; ERR_INVALID_ARGUMENT for a latent that the SAE does not have; ERR_NON_FINITE, ERR_ABORTED
 */
export async function gatherExamples(options: GatherOptions): Promise<LatentExamples[]> {
  checkOptions("gatherExamples", options, optionNames);
  const { sae, model, corpus, latents, contextSize, prependBos, signal } = options;
  const { windowTokens = 32, contextsPerBatch = 8 } = options;
  for (const [name, value] of Object.entries({ contextSize, windowTokens, contextsPerBatch, tokens: options.tokens })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be a positive integer, found ${value}`);
  }
  const bos = prependBos ? model.tokenizer.bosTokenId : undefined;
  if (prependBos && bos === undefined) {
    throw new MonosemError("ERR_CONFIG", "the tokenizer has no BOS token: set prependBos to false");
  }
  if (contextSize < windowTokens + (prependBos ? 1 : 0)) {
    throw new MonosemError(
      "ERR_CONFIG",
      `contexts of ${contextSize} tokens have no room for windows of ${windowTokens}${prependBos ? " and BOS" : ""}`,
    );
  }
  const unknown = latents.find((latent) => !Number.isInteger(latent) || latent < 0 || latent >= sae.config.dSae);
  if (unknown !== undefined) {
    const last = sae.config.dSae - 1;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no latent ${unknown}: they are numbered 0 to ${last}`);
  }

  const pass = new Pass(options, windowTokens);
  // Contexts of one length go through the model together; few lengths occur, as all are filled up to whole windows.
  const pending = new Map<number, DocumentContext[]>();
  let tokens = 0;
  const run = async (batch: readonly DocumentContext[]): Promise<void> => {
    throwIfAborted(signal, "gathering examples");
    await pass.run(batch);
    for (const context of batch) tokens += context.tokens.length;
    options.onProgress?.({ tokens });
  };
  for await (const context of documentContexts(corpus, model.tokenizer, { ...options, bos })) {
    const length = pass.filledLength(context);
    const same = [...(pending.get(length) ?? []), context];
    pending.set(length, same.length === contextsPerBatch ? [] : same);
    if (same.length === contextsPerBatch) await run(same);
  }
  for (const batch of pending.values()) if (batch.length > 0) await run(batch);

  const { collector } = pass;
  if (collector.windows("train") === 0 || collector.windows("test") === 0) {
    throw new MonosemError(
      "ERR_CONFIG",
      `${corpus.name}: explanations are tested on other documents than they are made from, but the ${tokens} tokens read lie in too few; give several files, .jsonl lines or more tokens`,
    );
  }
  return collector.examples();
}

class Pass {
  readonly collector: ExampleCollector;
  readonly #sae: Sae;
  readonly #model: HookedTransformer;
  readonly #hooks: readonly string[];
  readonly #windowTokens: number;
  readonly #checksContexts: boolean;
  /** Tokens in front of the document's. */
  readonly #offset: number;
  readonly #indexOf: ReadonlyMap<number, number>;

  constructor(options: GatherOptions, windowTokens: number) {
    this.collector = new ExampleCollector(options.latents, options);
    this.#sae = options.sae;
    this.#model = options.model;
    this.#hooks = hooksForSae(options.model, options.sae, options.hook, options).input;
    this.#windowTokens = windowTokens;
    this.#checksContexts = !options.allowMismatch;
    this.#offset = options.prependBos ? 1 : 0;
    this.#indexOf = new Map(options.latents.map((latent, index) => [latent, index]));
  }

  /** The length of a context when it is filled up to whole windows. */
  filledLength({ tokens }: DocumentContext): number {
    const content = tokens.length - this.#offset;
    return this.#offset + Math.ceil(content / this.#windowTokens) * this.#windowTokens;
  }

  /** Contexts of one filled length. What fills them stands behind the text, which the model has then read. */
  async run(contexts: readonly DocumentContext[]): Promise<void> {
    const { kernels } = this.#sae.device;
    if (this.#checksContexts) {
      checkContexts(
        this.#model,
        this.#sae,
        contexts.map(({ tokens }) => tokens),
      );
    }
    const most = this.#model.config.contextSize;
    const length = Math.min(most, this.filledLength(contexts[0]!));
    const special = this.#model.tokenizer.specialTokenIds;
    const rows: { readonly context: number; readonly position: number }[] = [];
    const filled = contexts.map(({ tokens }, context) => {
      for (const [position, token] of tokens.entries()) {
        if (position >= this.#offset && !special.has(token)) rows.push({ context, position });
      }
      const row = new Int32Array(length).fill(tokens[0]!);
      row.set(tokens);
      return row;
    });
    if (rows.length === 0) return;
    using all = await this.#model.activations(filled, this.#hooks);
    using places = this.#sae.device.tensor(
      Int32Array.from(rows, ({ context, position }) => context * length + position),
      [rows.length],
    );
    using x = kernels.gatherRows(all, places);
    using codes = this.#sae.encode(x);
    const { rowOffsets, features, values } = await codes.read();

    /** Of each context, of each chosen latent that fires in it, its activations on all tokens. */
    const activationsOf = contexts.map(() => new Map<number, Float32Array>());
    for (const [row, { context, position }] of rows.entries()) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        const index = this.#indexOf.get(features[entry]!);
        const value = values[entry]!;
        if (index === undefined || value === 0) continue; // selected, but not active
        if (!Number.isFinite(value)) {
          const where = `document ${contexts[context]!.document} at token ${contexts[context]!.start + position - this.#offset}`;
          throw new MonosemError("ERR_NON_FINITE", `latent ${features[entry]} has activation ${value} in ${where}`);
        }
        let activations = activationsOf[context]!.get(index);
        if (activations === undefined) {
          activations = new Float32Array(contexts[context]!.tokens.length);
          activationsOf[context]!.set(index, activations);
        }
        activations[position] = value;
      }
    }
    for (const [index, context] of contexts.entries()) this.#addWindows(context, activationsOf[index]!);
  }

  #addWindows({ document, start, tokens }: DocumentContext, activationsOf: ReadonlyMap<number, Float32Array>): void {
    for (let first = this.#offset; first < tokens.length; first += this.#windowTokens) {
      const end = Math.min(tokens.length, first + this.#windowTokens);
      if (end - first < Math.min(SHORTEST_WINDOW, this.#windowTokens)) return;
      const firing = new Map<number, Float32Array>();
      for (const [index, activations] of activationsOf) {
        const inWindow = activations.slice(first, end);
        if (inWindow.some((value) => value !== 0)) firing.set(index, inWindow);
      }
      this.collector.add({ document, start: start + first - this.#offset, tokens: tokens.slice(first, end) }, firing);
    }
  }
}
