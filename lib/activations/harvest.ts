/** Activations of a language model on a corpus, in the order of the text. */
import {
  checkBoolean,
  checkNames,
  checkOptions,
  checkSignal,
  type OptionNames,
  refuseArgument,
} from "../checkArguments.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { ModelConfig } from "../models/modelConfig.js";
import { type ContextPosition, Contexts, type TextTokenizer } from "./contexts.js";
import { Corpus } from "./corpus.js";
import { originMetadata } from "./origin.js";
import type { ActivationHook, Json } from "./source.js";

/** What is needed of a model; HookedTransformer is one. */
export interface ActivationModel {
  readonly device: Device;
  readonly config: {
    readonly name: string;
    readonly contextSize: number;
    readonly processing?: ModelConfig["processing"] | undefined;
  };
  readonly tokenizer: TextTokenizer & {
    readonly specialTokenIds: ReadonlySet<number>;
    readonly vocabularySize: number;
    tokenTexts(ids: Iterable<number>): string[];
  };
  /** Those that its weights were read from, where they are of files. */
  readonly files?: readonly string[];
  /** Width of a hook point per token: the product of its dimensions after [batch, pos]. */
  hookWidth(hook: string): number;
  /** f32 [batch * positions, hookWidth], sequence after sequence; of several hook points side by side. */
  activations(tokens: readonly (readonly number[])[], hook: string | readonly string[]): Promise<Tensor>;
}

/** Which activations of which model on which text. */
export interface HarvestOptions {
  readonly model: ActivationModel;
  /**
   * TransformerLens name of the hook point, or several whose activations are to lie side by side. Dimensions after
   * [batch, pos] are flattened, heads first.
   */
  readonly hook: string | readonly string[];
  readonly corpus: Corpus;
  /** Tokens per context, BOS included. */
  readonly contextSize: number;
  /** See ContextOptions. */
  readonly prependBos: boolean;
  /** Leave out the activations of BOS, EOS and the tokenizer's other special tokens, wherever they stand. */
  readonly excludeSpecialTokens: boolean;
  /** Contexts that go through the model together. Default: some 2048 tokens' worth. */
  readonly batchPrompts?: number | undefined;
}

export const harvestOptionNames: OptionNames<HarvestOptions> = {
  model: true,
  hook: true,
  corpus: true,
  contextSize: true,
  prependBos: true,
  excludeSpecialTokens: true,
  batchPrompts: true,
};

/**
 * The sizes aside, which depend on one another.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function checkHarvest(what: string, options: HarvestOptions): void {
  const { model, hook, corpus, prependBos, excludeSpecialTokens } = options;
  if (typeof model?.activations !== "function" || typeof model.hookWidth !== "function") {
    refuseArgument(`${what}: model`, "a HookedTransformer (await HookedTransformer.load(...))", model);
  }
  checkNames(`${what}: hook`, "the name of a hook point, or a list of names", hook);
  if (!(corpus instanceof Corpus)) refuseArgument(`${what}: corpus`, "a Corpus (await Corpus.fromFiles(...))", corpus);
  checkBoolean(`${what}: prependBos`, prependBos);
  checkBoolean(`${what}: excludeSpecialTokens`, excludeSpecialTokens);
}

/** The activations of one forward pass. */
export interface HarvestedRows {
  /** f32 [rows, dIn], the caller's to dispose. */
  readonly activations: Tensor;
  readonly rows: number;
  /** Where the contexts of this pass begin, and where those of the next one do. */
  readonly start: ContextPosition;
  readonly end: ContextPosition;
}

const tokensPerPass = 2048;

/** Runs a model over a corpus, a few contexts at a time. */
export class Harvest {
  readonly dIn: number;
  /** The hook points and their widths. */
  readonly hooks: readonly ActivationHook[];
  /** Contexts per pass. */
  readonly batchPrompts: number;
  readonly #options: HarvestOptions;
  readonly #contexts: Contexts;
  #lastEpochWithRows = 0;

  /**
   * @throws MonosemError ERR_NOT_FOUND for an unknown hook point, ERR_CONFIG for a context size that is impossible or
   *   beyond the model's, or `prependBos` without BOS, ERR_INVALID_ARGUMENT for another option that is not what it must be
   *   or that does not exist
   */
  constructor(options: HarvestOptions & { readonly repeat: boolean }) {
    checkOptions("Harvest", options, { ...harvestOptionNames, repeat: true });
    checkHarvest("Harvest", options);
    const { model, hook, corpus, contextSize, prependBos, repeat } = options;
    checkBoolean("Harvest: repeat", repeat);
    this.#contexts = new Contexts(corpus, model.tokenizer, { contextSize, prependBos, repeat });
    const { batchPrompts = Math.max(1, Math.floor(tokensPerPass / contextSize)) } = options;
    if (!Number.isSafeInteger(batchPrompts) || batchPrompts < 1) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `batchPrompts must be a positive integer, not ${batchPrompts}`);
    }
    if (contextSize > model.config.contextSize) {
      throw new MonosemError(
        "ERR_CONFIG",
        `contextSize is ${contextSize}, but the model ${model.config.name} reads at most ${model.config.contextSize} tokens`,
      );
    }
    this.#options = options;
    this.batchPrompts = batchPrompts;
    this.hooks = [hook].flat().map((name) => ({ name, width: model.hookWidth(name) }));
    this.dIn = this.hooks.reduce((sum, { width }) => sum + width, 0);
  }

  get metadata(): Readonly<Record<string, Json>> {
    const { model, contextSize, prependBos, excludeSpecialTokens } = this.#options;
    const { name, processing } = model.config;
    const hooks = this.hooks.map((hook) => hook.name);
    return originMetadata({ model: name, hooks, contextSize, prependBos, excludeSpecialTokens, processing });
  }

  /** Where the next pass begins. */
  get position(): ContextPosition {
    return this.#contexts.position;
  }

  /** Continues at a position where a pass over the same corpus with the same options began. */
  seek(position: ContextPosition): void {
    this.#contexts.seek(position);
    this.#lastEpochWithRows = position.epoch;
  }

  /**
   * The activations of the next contexts: queued on the device, not waited for. Undefined after the last context (never,
   * when repeating).
   *
   * @throws MonosemError ERR_CONFIG when the corpus is shorter than one context or has none but special tokens;
   *   ERR_SHAPE_MISMATCH for a model whose activations are not as wide as it says; ERR_INVALID_ARGUMENT for a signal that is
   *   none; ERR_ABORTED; errors of the corpus
   */
  async next(signal?: AbortSignal): Promise<HarvestedRows | undefined> {
    checkSignal("Harvest.next", signal);
    for (;;) {
      const start = this.position;
      const batch = await this.#nextContexts(signal);
      if (batch.length === 0) return undefined;
      const kept = this.#keptRows(batch);
      if (kept.length > 0) {
        this.#lastEpochWithRows = this.position.epoch;
        return { activations: await this.#run(batch, kept), rows: kept.length, start, end: this.position };
      }
      if (this.position.epoch > this.#lastEpochWithRows + 1) {
        throw new MonosemError("ERR_CONFIG", "the corpus holds special tokens only, and excludeSpecialTokens is set");
      }
    }
  }

  async #nextContexts(signal: AbortSignal | undefined): Promise<Int32Array[]> {
    const start = this.position;
    const batch: Int32Array[] = [];
    try {
      while (batch.length < this.batchPrompts) {
        const context = await this.#contexts.next(signal);
        if (context === undefined) break;
        batch.push(context);
      }
    } catch (error) {
      this.#contexts.seek(start); // none of this pass is lost
      throw error;
    }
    return batch;
  }

  #keptRows(batch: readonly Int32Array[]): Int32Array {
    const { excludeSpecialTokens, contextSize, model } = this.#options;
    const special = model.tokenizer.specialTokenIds;
    const kept: number[] = [];
    for (const [sequence, context] of batch.entries()) {
      for (const [position, id] of context.entries()) {
        if (!(excludeSpecialTokens && special.has(id))) kept.push(sequence * contextSize + position);
      }
    }
    return Int32Array.from(kept);
  }

  async #run(batch: readonly Int32Array[], kept: Int32Array): Promise<Tensor> {
    const { model, hook, contextSize } = this.#options;
    const tokens = batch.map((context) => Array.from(context));
    const activations = await model.activations(tokens, hook);
    const rows = batch.length * contextSize;
    if (activations.shape.length !== 2 || activations.shape[0] !== rows || activations.shape[1] !== this.dIn) {
      activations.dispose();
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `hook point ${[hook].flat().join(", ")} gave activations of shape [${activations.shape.join(", ")}], expected [${rows}, ${this.dIn}]`,
      );
    }
    if (kept.length === rows) return activations;
    using all = activations;
    using indices = model.device.tensor(kept, [kept.length]);
    return model.device.kernels.gatherRows(all, indices);
  }
}
