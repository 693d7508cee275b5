import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { Device } from "../engine/device.js";
import { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { DownloadOptions } from "../hub/download.js";
import { type CachedNames, type CachedRun, runKeeping } from "./activationCache.js";
import { type GenerationOptions, type GenerationStep, generate } from "./generation.js";
import { findHookPoint, type HookPoint, hookPointsOf, widthPerToken } from "./hookPoints.js";
import { checkHooks, type NamedHook, runPass } from "./hooks.js";
import { loadModel, type ModelLoadOptions } from "./loadModel.js";
import { locateModel, type ModelSource } from "./locateModel.js";
import type { ModelConfig } from "./modelConfig.js";
import type { Tokenizer } from "./tokenizer.js";
import { checkTokens, type ModelInput, type Prompt, promptsOf, type TokenBatch, type Tokens } from "./tokens.js";
import type { ForwardPasses, Transformer } from "./transformer.js";

export type { GenerationOptions, GenerationStep } from "./generation.js";
export { getActName } from "./hookPoints.js";
export type { Hook, NamedHook } from "./hooks.js";
export type { ModelLoadOptions } from "./loadModel.js";
export type { ModelSource } from "./locateModel.js";
export type { ModelConfig } from "./modelConfig.js";
export type { ModelInput, Prompt, Tokens } from "./tokens.js";
export type { ForwardPasses } from "./transformer.js";

export interface PromptOptions {
  /** Begin each sequence with BOS. By default done for texts where the model has a BOS, and not for token ids. */
  readonly prependBos?: boolean | undefined;
}

/** How to run a model. */
export interface ForwardOptions extends PromptOptions {
  /** What to read or replace on the way. */
  readonly hooks?: readonly NamedHook[];
  /** Run only the blocks before this one: 0 ... nLayers. */
  readonly stopAtLayer?: number;
  /**
   * Logits of each sequence's last position only, [batch, 1, vocabularySize]: where only the next token matters, as much
   * work less as the vocabulary is large beside the model. Hooks see all positions.
   */
  readonly lastPositionOnly?: boolean;
  readonly signal?: AbortSignal;
}

/** How to run a model for its loss. */
export type LossOptions = Omit<ForwardOptions, "stopAtLayer" | "lastPositionOnly">;

/** What to run a model with, keeping activations. */
export interface CacheOptions extends Omit<ForwardOptions, "hooks"> {
  /** By default every hook point that the run reaches. */
  readonly names?: CachedNames;
}

const loadOptions: OptionNames<ModelLoadOptions & DownloadOptions> = {
  foldLn: "boolean",
  centerWritingWeights: "boolean",
  centerUnembed: "boolean",
  foldValueBiases: "boolean",
  processingFor: "function",
  tokenizer: true,
  revision: true,
  signal: "signal",
  onProgress: "function",
  onWithoutHub: "function",
  onWaiting: "function",
};
const lossOptions: OptionNames<LossOptions> = { hooks: true, prependBos: "boolean", signal: "signal" };
const forwardOptions: OptionNames<ForwardOptions> = { ...lossOptions, stopAtLayer: true, lastPositionOnly: "boolean" };
/** @internal */
export const cacheOptions: OptionNames<CacheOptions> = {
  names: true,
  prependBos: "boolean",
  signal: "signal",
  stopAtLayer: true,
  lastPositionOnly: "boolean",
};
const generationOptions: OptionNames<PromptOptions & GenerationOptions> = {
  maxNewTokens: true,
  temperature: true,
  topK: true,
  topP: true,
  seed: true,
  stopAtEos: "boolean",
  stopStrings: true,
  prependBos: "boolean",
  hooks: true,
  signal: "signal",
};

/** What a run of checked tokens is to do. */
interface RunOptions {
  readonly hooks: readonly NamedHook[];
  readonly stopAtLayer?: number | undefined;
  readonly lastPositionOnly?: boolean;
  readonly signal: AbortSignal | undefined;
}

const promptOptions: OptionNames<PromptOptions> = {
  prependBos: "boolean",
};

/** A language model whose activations can be read and replaced at every hook point, under TransformerLens' names. */
export class HookedTransformer {
  readonly config: ModelConfig;
  readonly device: Device;
  /** Where it was loaded from. */
  readonly source: ModelSource;
  /** Those that its weights were read from. */
  readonly files: readonly string[];
  /** Every hook point, in order of execution. */
  readonly hookNames: readonly string[];
  readonly #hookPoints: readonly HookPoint[];
  readonly #model: Transformer;
  readonly #tokenizer: Tokenizer | undefined;

  private constructor({ model, tokenizer, files }: Awaited<ReturnType<typeof loadModel>>, source: ModelSource) {
    this.source = source;
    this.files = files;
    this.config = model.config;
    this.device = model.device;
    this.#tokenizer = tokenizer;
    this.#model = model;
    this.#hookPoints = hookPointsOf(model.config);
    this.hookNames = this.#hookPoints.map(({ name }) => name);
  }

  /**
   * Loads a model from a folder in the Hugging Face layout (config.json; model.safetensors, or several files and their
   * model.safetensors.index.json; tokenizer.json and, where there is one, tokenizer_config.json), or from a file `.bin` of
   * llama2.c. Where there is neither, the name is that of a model on the hub ("openai-community/gpt2", or "gpt2" for
   * short), which is downloaded into the cache unless it is there. Unless options say otherwise, weights are used as they
   * are: nothing is folded or centred, as with TransformerLens' `from_pretrained_no_processing`. Matrices in bf16 then stay
   * so in memory; the arithmetic is f32. Where there is no tokenizer, the model takes token ids only.
   *
   * @throws MonosemError ERR_UNSUPPORTED for an architecture or option that is not implemented, ERR_OUT_OF_MEMORY where
   *   the weights would not fit, and what `locateModel`, `Family.parseConfig`, `Family.loadWeights`, `loadLlama2c`,
   *   `Checkpoint.open`, `checkProcessing` and `Tokenizer.load` throw
   */
  static async load(
    name: string,
    device: Device,
    options: ModelLoadOptions & DownloadOptions = {},
  ): Promise<HookedTransformer> {
    if (typeof name !== "string") refuseArgument("HookedTransformer.load: the model", "a name or a folder", name);
    if (!(device instanceof Device))
      refuseArgument("HookedTransformer.load: device", "a Device (await Device.open())", device);
    checkOptions("HookedTransformer.load", options, loadOptions);
    const { tokenizer: path } = options;
    if (path !== undefined && typeof path !== "string") {
      refuseArgument("HookedTransformer.load: tokenizer", "a folder or a file", path);
    }
    const source = await locateModel(name, options);
    return new HookedTransformer(await loadModel(source, device, options), source);
  }

  /** @throws MonosemError ERR_NOT_FOUND where the model was loaded without one */
  get tokenizer(): Tokenizer {
    if (this.#tokenizer !== undefined) return this.#tokenizer;
    throw new MonosemError(
      "ERR_NOT_FOUND",
      `there was no tokenizer with the model ${this.source.directory}, so that it takes token ids only: load it with the ` +
        "option `tokenizer` (on the command line --tokenizer), a folder with tokenizer.json or a tokenizer.bin of llama2.c",
    );
  }

  /** What this model has been asked to compute since it was loaded; differences tell what something costs. */
  get forwardPasses(): ForwardPasses {
    return this.#model.passes;
  }

  /**
   * The dimensions of a hook point, by name, such as `["batch", "pos", "dModel"]`.
   *
   * @throws MonosemError ERR_NOT_FOUND, with the names that come nearest
   */
  hookShape(name: string): readonly string[] {
    return findHookPoint(this.#hookPoints, name).shape;
  }

  /**
   * The numbers that a hook point holds for each token: the product of its dimensions after [batch, pos].
   *
   * @throws MonosemError ERR_NOT_FOUND, with the names that come nearest; ERR_INVALID_ARGUMENT for attention scores and
   *   patterns, which belong to pairs of positions
   */
  hookWidth(name: string): number {
    const point = findHookPoint(this.#hookPoints, name);
    const width = widthPerToken(point, this.config);
    if (width === undefined) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `hook point ${name} has shape [${point.shape.join(", ")}]: it has no vector per token`,
      );
    }
    return width;
  }

  /**
   * Runs the model, on a text or several of one length in tokens, or on token ids.
   *
   * @returns logits [batch, positions, vocabularySize], with `lastPositionOnly` [batch, 1, vocabularySize]; with
   *   `stopAtLayer` the residual stream that enters that layer, [batch, positions, dModel]
   * @throws MonosemError ERR_NOT_FOUND for an unknown hook point; ERR_INVALID_ARGUMENT for a hook point that the run
   *   does not reach, for an impossible `stopAtLayer`, and for one together with `lastPositionOnly`; what `checkTokens` throws; ERR_SHAPE_MISMATCH,
   *   ERR_DTYPE_MISMATCH, ERR_DEVICE_MISMATCH for a replacement that does not fit; ERR_ABORTED
   */
  async forward(input: ModelInput, options: ForwardOptions = {}): Promise<Tensor> {
    checkOptions("forward", options, forwardOptions);
    const { hooks = [], stopAtLayer, lastPositionOnly = false, signal } = options;
    throwIfAborted(signal, "the run of the model");
    this.#checkHooks(hooks, stopAtLayer);
    if (lastPositionOnly && stopAtLayer !== undefined) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        "lastPositionOnly is for logits, and a run with stopAtLayer does not come to them: leave one of the two out",
      );
    }
    const checked = await checkTokens(this.modelTokens(input, options), this.config);
    return await this.#run(checked, { hooks, stopAtLayer, lastPositionOnly, signal });
  }

  /** `forward`, by TransformerLens' name for it: runs the model with hooks that read or replace activations. */
  runWithHooks(
    input: ModelInput,
    hooks: readonly NamedHook[],
    options: Omit<ForwardOptions, "hooks"> = {},
  ): Promise<Tensor> {
    return this.forward(input, { ...options, hooks });
  }

  /**
   * Runs the model and keeps activations, in TransformerLens' shapes.
   *
   * @returns `output`: what `forward` returns, and `cache`: the activations by name, in order of execution; all are the caller's to dispose
   * @throws MonosemError as `forward`
   */
  async runWithCache(input: ModelInput, options: CacheOptions = {}): Promise<CachedRun> {
    checkOptions("runWithCache", options, cacheOptions);
    const { names = () => true, ...rest } = options;
    return await runKeeping(names, this.#reached(rest.stopAtLayer), (hooks) => this.forward(input, { ...rest, hooks }));
  }

  /**
   * The activations at a hook point, f32 [batch * positions, hookWidth], sequence after sequence; of several hook points
   * side by side, in the order of `hook`. The model runs no further than the last of them.
   *
   * @throws MonosemError as `forward` and `hookWidth`
   */
  async activations(input: ModelInput, hook: string | readonly string[]): Promise<Tensor> {
    const names = [hook].flat();
    const widths = names.map((name) => this.hookWidth(name));
    const { ids, batch, positions } = await checkTokens(this.modelTokens(input), this.config);
    const rows = batch * positions;
    using idsOnDevice = this.device.tensor(ids, [rows]);
    const pass = this.#model.forward({ ids: idsOnDevice, batch, positions, hookNames: new Set(names) });
    const found = new Map<string, Tensor>();
    try {
      for (const call of pass) {
        if (!("activation" in call)) continue;
        found.set(call.name, call.activation.reshape([rows, this.hookWidth(call.name)]));
        if (found.size === new Set(names).size) break;
      }
      const missing = names.find((name) => !found.has(name));
      if (missing !== undefined) {
        throw new MonosemError("ERR_INTERNAL", `the forward pass did not come by hook point ${missing}`);
      }
      const [first] = names;
      if (names.length === 1) return found.get(first!)!.reshape([rows, widths[0]!]);
      return this.device.kernels.concatenateColumns(names.map((name) => found.get(name)!));
    } finally {
      for (const activation of found.values()) activation.dispose();
    }
  }

  /**
   * Cross-entropy of every token's prediction of the next one, in nats.
   *
   * @returns f32 [batch * positions]; 0 at the last position of each sequence, which has no next token
   * @throws MonosemError as `forward`
   */
  async loss(input: ModelInput, options: LossOptions = {}): Promise<Tensor> {
    checkOptions("loss", options, lossOptions);
    const { hooks = [], signal } = options;
    this.#checkHooks(hooks);
    const checked = await checkTokens(this.modelTokens(input, options), this.config);
    const { ids, batch, positions } = checked;
    using logits = await this.#run(checked, { hooks, signal });
    using rows = logits.reshape([batch * positions, this.config.vocabularySize]);
    // The kernel gives 0 for a negative target.
    const next = Int32Array.from(ids, (_, i) => (i % positions === positions - 1 ? -1 : ids[i + 1]!));
    using targets = this.device.tensor(next, [batch * positions]);
    return this.device.kernels.crossEntropy(rows, targets);
  }

  /**
   * Continues texts or token ids: one prompt, or a batch, whose prompts may have different lengths.
   *
   * @returns for each prompt all its token ids: BOS if prepended, the prompt, the new tokens (EOS, and those of a stop
   *   string, included)
   * @throws MonosemError ERR_INVALID_ARGUMENT for an empty prompt, impossible options or `prependBos` without a BOS;
   *   ERR_NOT_FOUND for an unknown hook point; what `checkTokens` throws; ERR_ABORTED
   */
  async generate(prompt: Prompt, options: PromptOptions & GenerationOptions = {}): Promise<number[][]> {
    checkOptions("generate", options, generationOptions);
    const sequences = this.promptTokens(prompt, { prependBos: options.prependBos }).map((ids) => [...ids]);
    for await (const { tokens } of this.stream(sequences, { ...options, prependBos: false })) {
      for (const [i, token] of tokens.entries()) if (token !== undefined) sequences[i]!.push(token);
    }
    return sequences;
  }

  /**
   * `generate`, step by step: what each step adds to every sequence, as tokens and as text; the text leaves stop strings
   * and special tokens out. Leaving the loop ends the
   * generation. Steps are computed some ahead of those that have been taken.
   *
   * @throws MonosemError as `generate`
   */
  stream(prompt: Prompt, options: PromptOptions & GenerationOptions = {}): AsyncGenerator<GenerationStep, void> {
    checkOptions("generate", options, generationOptions);
    this.#checkHooks(options.hooks ?? []);
    return generate(
      this.#model,
      this.#tokenizer,
      this.promptTokens(prompt, { prependBos: options.prependBos }),
      options,
    );
  }

  /**
   * What directions in the residual stream, f32 [rows, dModel], add to the logits: centred and weighted as by the final
   * LayerNorm, but not divided by its standard deviation (which depends on the rest of the stream), times W_U.
   *
   * @returns f32 [rows, vocabularySize]
   * @throws MonosemError ERR_SHAPE_MISMATCH for directions of another width
   */
  directionLogits(directions: Tensor): Tensor {
    return this.#model.directionLogits(directions);
  }

  dispose(): void {
    this.#model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #run(
    { ids, batch, positions }: TokenBatch,
    { hooks, stopAtLayer, lastPositionOnly = false, signal }: RunOptions,
  ): Promise<Tensor> {
    using idsOnDevice = this.device.tensor(ids, [batch * positions]);
    const pass = this.#model.forward({
      ids: idsOnDevice,
      batch,
      positions,
      hookNames: new Set(hooks.map(({ name }) => name)),
      ...(stopAtLayer === undefined ? {} : { stopAtLayer }),
      lastPositionOnly,
    });
    using rows = await runPass(pass, hooks, signal);
    return rows.reshape([batch, lastPositionOnly ? 1 : positions, rows.shape[1]!]);
  }

  /**
   * The token ids that `generate` begins with, prompt by prompt.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for what is no prompt, and for `prependBos` without a BOS
   */
  promptTokens(prompt: Prompt, options: PromptOptions = {}): readonly (readonly number[])[] {
    checkOptions("promptTokens", options, promptOptions);
    const { bosTokenId } = this.config;
    const prompts = promptsOf(prompt);
    const texts = typeof prompts[0] === "string";
    const { prependBos = texts && bosTokenId !== undefined } = options;
    if (prependBos && bosTokenId === undefined) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `prependBos: the model ${this.config.name} has no BOS token`);
    }
    return prompts.map((one) => {
      const ids = typeof one === "string" ? this.tokenizer.encode(one) : one;
      if (prependBos) return [bosTokenId!, ...ids];
      return ids instanceof Int32Array ? Array.from(ids) : ids;
    });
  }

  /**
   * The token ids that `forward` runs on.
   *
   * @throws MonosemError as `promptTokens`; ERR_INVALID_ARGUMENT for `prependBos` with a tensor
   */
  modelTokens(input: ModelInput, { prependBos }: PromptOptions = {}): Tokens {
    if (!(input instanceof Tensor)) return this.promptTokens(input, { prependBos });
    if (prependBos) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", "prependBos: token ids in a tensor are taken as they are");
    }
    return input;
  }

  /** The hook points of a run, in order. */
  #reached(stopAtLayer?: number): readonly string[] {
    if (stopAtLayer === undefined) return this.hookNames;
    if (!Number.isInteger(stopAtLayer) || stopAtLayer < 0 || stopAtLayer > this.config.nLayers) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `stopAtLayer must be an integer from 0 to ${this.config.nLayers}, found ${stopAtLayer}`,
      );
    }
    return this.#hookPoints.filter(({ layer }) => layer < stopAtLayer).map(({ name }) => name);
  }

  /** A hook that would never run is a mistake. */
  #checkHooks(hooks: readonly NamedHook[], stopAtLayer?: number): void {
    checkHooks(hooks);
    const reached = new Set(this.#reached(stopAtLayer));
    for (const { name } of hooks) {
      findHookPoint(this.#hookPoints, name);
      if (!reached.has(name)) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `hook point ${name} lies behind stopAtLayer ${stopAtLayer}: the run does not reach it`,
        );
      }
    }
  }
}
