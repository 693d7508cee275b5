/**
 * A model with SAEs in it: each takes the place of the activations at its hook point, and what happens in it can be read
 * and replaced at hook points of its own, as in SAELens' HookedSAETransformer. For an SAE at `H` these are, in order:
 *
 *   H.hook_sae_input      [batch, pos, dIn]   what it encodes
 *   H.hook_sae_acts_pre   [batch, pos, dSae]  pre-activations of all latents (of a gated SAE those of its magnitudes)
 *   H.hook_sae_acts_post  [batch, pos, dSae]  latents; what replaces them is decoded
 *   H.hook_sae_recons     [batch, pos, dOut]  reconstruction
 *   H.hook_sae_error      as at the hook      with `errorTerm`: the activations less the reconstruction that nobody changed
 *   H.hook_sae_output     as at the hook      reconstruction plus error: what the model goes on with
 *
 * A transcoder reads at one hook point and replaces what stands at another, after which these are named.
 * Matrices [.., dSae] are made only where a hook asks for them. SAELens shows the reconstruction of an SAE with layer norm
 * before it is brought back to the scale of the activations; here, as everywhere, it is in that scale.
 *
 * A crosscoder would have to write at its first hook point what depends on the activations at its last one. So the model runs
 * twice: untouched as far as the last hook point, which gives its input, then with its reconstruction at each. Input and
 * latents have their hook points after its first one, reconstruction, error and output after each. Errors are those of the
 * untouched run, so that a changed latent moves every hook point by its own decoder row, and by nothing else.
 */

import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import type { Codes } from "../engine/codes.js";
import { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type CachedRun, runKeeping } from "../models/activationCache.js";
import { closestNames } from "../models/closestNames.js";
import {
  type CacheOptions,
  cacheOptions,
  type ForwardOptions,
  type GenerationOptions,
  type GenerationStep,
  HookedTransformer,
  type LossOptions,
  type ModelInput,
  type NamedHook,
  type Prompt,
  type PromptOptions,
  type Tokens,
} from "../models/hookedTransformer.js";
import { answer, checkHooks } from "../models/hooks.js";
import { checkTokens, promptsOf } from "../models/tokens.js";
import { Sae } from "../sae/sae.js";
import { checkContexts, type PairingOptions } from "./pairing.js";
import { hooksForSae } from "./saeHook.js";
import { replacedWhere } from "./spliceHook.js";

/** How an SAE stands in a model. */
export interface AttachOptions extends PairingOptions {
  /** Where; by default the hook point that it was trained on. */
  readonly hook?: string | undefined;
  /**
   * Add what the SAE does not reconstruct, so that the model behaves as without it, and only changes of latents have an
   * effect. Default false.
   */
  readonly errorTerm?: boolean | undefined;
  /**
   * Ids of tokens at whose positions the activations stay as they are, such as BOS, on which many SAEs were not trained.
   * While generating this holds for the prompt.
   */
  readonly cleanTokens?: Iterable<number> | undefined;
}

const attachOptions: OptionNames<AttachOptions> = {
  hook: true,
  errorTerm: "boolean",
  cleanTokens: true,
  allowMismatch: "boolean",
};

const encodingHooks = ["input", "acts_pre", "acts_post"] as const;
const decodingHooks = ["recons", "error", "output"] as const;
type OwnHook = (typeof encodingHooks)[number] | (typeof decodingHooks)[number];

interface Attached {
  readonly sae: Sae;
  /** One hook point, or of a crosscoder several. */
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly errorTerm: boolean;
  readonly cleanTokens: ReadonlySet<number>;
  readonly allowMismatch: boolean;
}

/**
 * A model with an SAE in it, or with several of the same options; {@link HookedSaeTransformer.withSae} adds further ones.
 * Neither is changed, and all stay the caller's.
 *
 * Sequences that go through it are compared with the SAE's training: whether they begin with BOS, and how long they are
 * (while generating: the prompt). Texts begin with BOS unless the SAE was trained without.
 *
 * @throws MonosemError as `hooksForSae`; ERR_UNSUPPORTED for a transcoder that would write before it has read, and for a
 *   crosscoder together with an SAE before its last hook point; ERR_INVALID_ARGUMENT for a second SAE at a hook point
 */
export function withSae(
  model: HookedTransformer,
  sae: Sae | readonly Sae[],
  options: AttachOptions = {},
): HookedSaeTransformer {
  if (!(model instanceof HookedTransformer)) {
    refuseArgument("withSae: the model", "a HookedTransformer (a model with SAEs has a method withSae)", model);
  }
  return new HookedSaeTransformer(model).withSae(sae, options);
}

export class HookedSaeTransformer {
  readonly model: HookedTransformer;
  /** Every hook point, the SAEs' among them, in order of execution. */
  readonly hookNames: readonly string[];
  readonly #attached: readonly Attached[];

  /** @internal See {@link withSae}. */
  constructor(model: HookedTransformer, attached: readonly Attached[] = []) {
    this.model = model;
    this.#attached = attached;
    this.hookNames = model.hookNames.flatMap((name) => [name, ...attached.flatMap((one) => namesAt(one, name))]);
  }

  /** This model with a further SAE or several, at other hook points. See {@link withSae}. */
  withSae(sae: Sae | readonly Sae[], options: AttachOptions = {}): HookedSaeTransformer {
    checkOptions("withSae", options, attachOptions);
    return [sae].flat().reduce<HookedSaeTransformer>((model, one) => model.#with(one, options), this);
  }

  #with(
    sae: Sae,
    { hook, errorTerm = false, cleanTokens = [], allowMismatch = false }: AttachOptions,
  ): HookedSaeTransformer {
    if (!(sae instanceof Sae)) refuseArgument("withSae: the SAE", "an Sae or a list of them", sae);
    if (typeof (cleanTokens as Partial<Iterable<number>> | null)?.[Symbol.iterator] !== "function") {
      refuseArgument("withSae: cleanTokens", "a list or set of token ids", cleanTokens);
    }
    const { input, output } = hooksForSae(this.model, sae, hook, { allowMismatch });
    const [place, writes] = [this.#placeOf(input), this.#placeOf(output)];
    if (input.length === 1 && place > writes) {
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        `the transcoder writes at ${output[0]}, before it has read at ${input[0]}`,
      );
    }
    for (const other of this.#attached) {
      const shared = [
        input.find((name) => other.input.includes(name)),
        output.find((name) => other.output.includes(name)),
      ];
      if (shared.some((name) => name !== undefined)) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `there is an SAE at hook point ${shared[0] ?? shared[1]} already`,
        );
      }
      const crosscoder = [{ input, output }, other].find((one) => one.input.length > 1);
      const [first] = (crosscoder === other ? output : other.output) as [string];
      if (crosscoder !== undefined && this.#placeOf([first]) < this.#placeOf(crosscoder.output)) {
        throw new MonosemError(
          "ERR_UNSUPPORTED",
          `a crosscoder's latents are those of the untouched model, which an SAE at ${first}, before its last hook point ${crosscoder.output.at(-1)}, would change`,
        );
      }
    }
    const attached = { sae, input, output, errorTerm, cleanTokens: new Set(cleanTokens), allowMismatch };
    return new HookedSaeTransformer(this.model, [...this.#attached, attached]);
  }

  /** Of the last of them, in order of execution. */
  #placeOf(hooks: readonly string[]): number {
    return Math.max(...hooks.map((name) => this.model.hookNames.indexOf(name)));
  }

  /**
   * `HookedTransformer.forward` with the SAEs; hooks may name their hook points too. Hooks at a hook point where an SAE
   * stands run before it. They change nothing of what a crosscoder encodes, which is of a run without them.
   *
   * @throws MonosemError as `HookedTransformer.forward`; ERR_CONFIG for sequences that are not as in the SAEs' training
   */
  async forward(input: ModelInput, options: ForwardOptions = {}): Promise<Tensor> {
    return await this.#run(input, options, (tokens, rest) => this.model.forward(tokens, rest));
  }

  /** `HookedTransformer.runWithHooks` with the SAEs. */
  runWithHooks(
    input: ModelInput,
    hooks: readonly NamedHook[],
    options: Omit<ForwardOptions, "hooks"> = {},
  ): Promise<Tensor> {
    return this.forward(input, { ...options, hooks });
  }

  /**
   * `HookedTransformer.runWithCache` with the SAEs. Without `names` it keeps everything: of each SAE two matrices
   * [batch, pos, dSae] as well.
   */
  async runWithCache(input: ModelInput, options: CacheOptions = {}): Promise<CachedRun> {
    checkOptions("runWithCache", options, cacheOptions);
    const { names = () => true, ...rest } = options;
    return await runKeeping(names, this.#reached(rest.stopAtLayer), (hooks) => this.forward(input, { ...rest, hooks }));
  }

  /** `HookedTransformer.loss` with the SAEs. */
  async loss(input: ModelInput, options: LossOptions = {}): Promise<Tensor> {
    return await this.#run(input, options, (tokens, rest) => this.model.loss(tokens, rest));
  }

  async #run(
    input: ModelInput,
    options: ForwardOptions,
    run: (tokens: Tokens, options: ForwardOptions) => Promise<Tensor>,
  ): Promise<Tensor> {
    const { prependBos, ...rest } = options;
    const { hooks = [], stopAtLayer, signal } = rest;
    checkHooks(hooks);
    const tokens = this.model.modelTokens(input, this.#asTrained(input, { prependBos }));
    const { ids, positions } = await checkTokens(tokens, this.model.config);
    const rows = Array.from({ length: ids.length / positions }, (_, i) =>
      ids.subarray(i * positions, (i + 1) * positions),
    );
    this.#checkSequences(rows);
    const passes = this.#attached
      .filter(({ output }) => isReached(output[0]!, stopAtLayer))
      .map((attached) => new SaeInPass(attached, hooks, ids, signal));
    try {
      for (const pass of passes) await pass.readAhead(this.model, tokens);
      return await run(tokens, { ...rest, hooks: this.#hooks(options, passes) });
    } finally {
      for (const pass of passes) pass.dispose();
    }
  }

  /** Texts get no BOS where an SAE was trained without, unless options say otherwise. */
  #asTrained(input: ModelInput, { prependBos }: PromptOptions): PromptOptions {
    if (prependBos !== undefined || input instanceof Tensor || typeof promptsOf(input)[0] !== "string") {
      return { prependBos };
    }
    return this.#attached.some(({ sae }) => sae.metadata.prependBos === false) ? { prependBos: false } : {};
  }

  #checkSequences(sequences: readonly Int32Array[]): void {
    for (const { sae, allowMismatch } of this.#attached) {
      if (!allowMismatch) checkContexts(this.model, sae, sequences);
    }
  }

  /**
   * `HookedTransformer.generate` with the SAEs.
   *
   * @throws MonosemError as `HookedTransformer.generate`; ERR_CONFIG for prompts that are not as in the SAEs' training;
   *   ERR_UNSUPPORTED with a crosscoder, which would need two runs for every token
   */
  async generate(prompt: Prompt, options: PromptOptions & GenerationOptions = {}): Promise<number[][]> {
    const { prompts, rest } = this.#generation(prompt, options);
    return await this.model.generate(prompts, rest);
  }

  /** `HookedTransformer.stream` with the SAEs; throws as `generate`. */
  stream(prompt: Prompt, options: PromptOptions & GenerationOptions = {}): AsyncGenerator<GenerationStep, void> {
    const { prompts, rest } = this.#generation(prompt, options);
    return this.model.stream(prompts, rest);
  }

  /** What the model generates from, and its options, with the hooks that run the SAEs. */
  #generation(
    prompt: Prompt,
    { prependBos, ...options }: PromptOptions & GenerationOptions,
  ): { readonly prompts: readonly (readonly number[])[]; readonly rest: GenerationOptions } {
    checkHooks(options.hooks ?? []);
    const crosscoder = this.#attached.find(({ input }) => input.length > 1);
    if (crosscoder !== undefined) {
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        `the crosscoder at ${crosscoder.input.join(", ")} needs two runs for every token: a model with it does not generate`,
      );
    }
    const prompts = this.model.promptTokens(prompt, this.#asTrained(prompt, { prependBos }));
    this.#checkSequences(prompts.map((ids) => Int32Array.from(ids)));
    const ids = leftPadded(prompts);
    const passes = this.#attached.map((attached) => new SaeInPass(attached, options.hooks ?? [], ids, options.signal));
    return { prompts, rest: { ...options, hooks: this.#hooks(options, passes) } };
  }

  /** The hooks by which the model runs the SAEs, and the user's own. */
  #hooks({ hooks = [], stopAtLayer }: ForwardOptions, passes: readonly SaeInPass[]): readonly NamedHook[] {
    for (const { name } of hooks) this.#checkOwnHook(name, stopAtLayer);
    return [
      ...hooks.filter(({ name }) => !isOwnHook(name)),
      ...passes.flatMap((pass) => pass.hooks()).filter(({ name }) => isReached(name, stopAtLayer)),
    ];
  }

  /** The model checks its own. */
  #checkOwnHook(name: string, stopAtLayer: number | undefined): void {
    if (!isOwnHook(name)) return;
    const place = this.model.hookNames.find((at) => this.#attached.some((one) => namesAt(one, at).includes(name)));
    if (place === undefined) {
      const near = closestNames(name, this.hookNames.filter(isOwnHook)).join(", ");
      throw new MonosemError("ERR_NOT_FOUND", `no SAE in the model has hook point "${name}"; did you mean ${near}?`);
    }
    if (!isReached(place, stopAtLayer)) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `hook point ${name} lies behind stopAtLayer ${stopAtLayer}: the run does not reach it`,
      );
    }
  }

  /** The hook points that a run comes by, in order. */
  #reached(stopAtLayer: number | undefined): readonly string[] {
    return this.model.hookNames
      .filter((name) => isReached(name, stopAtLayer))
      .flatMap((name) => [name, ...this.#attached.flatMap((one) => namesAt(one, name))]);
  }
}

/** What the first pass of a generation reads, padded on the left by -1. */
function leftPadded(prompts: readonly (readonly number[])[]): Int32Array {
  const positions = Math.max(0, ...prompts.map(({ length }) => length));
  return Int32Array.from(prompts.flatMap((ids) => [...new Array<number>(positions - ids.length).fill(-1), ...ids]));
}

/** x̂, [rows, dOut], by latents that hooks may have changed and by those that are the input's own. */
interface Reconstructions {
  readonly changed: Tensor;
  readonly own: Tensor;
}

/** An SAE in the passes of one call. */
class SaeInPass {
  readonly #attached: Attached;
  readonly #userHooks: readonly NamedHook[];
  readonly #signal: AbortSignal | undefined;
  readonly #ids: Int32Array;
  #passes = 0;
  /** Of a transcoder, from one of its hook points to the other. */
  #transcoderInput: Tensor | undefined;
  /** Of a crosscoder, [batch * pos, dIn]. */
  #crosscoderInput: Tensor | undefined;
  /** Of a crosscoder, from its first hook point on. */
  #reconstructions: Reconstructions | undefined;

  constructor(attached: Attached, userHooks: readonly NamedHook[], ids: Int32Array, signal: AbortSignal | undefined) {
    this.#attached = attached;
    this.#userHooks = userHooks;
    this.#signal = signal;
    this.#ids = ids;
  }

  /** What a crosscoder encodes. */
  async readAhead(model: HookedTransformer, tokens: Tokens): Promise<void> {
    const { input } = this.#attached;
    if (input.length > 1) this.#crosscoderInput = await model.activations(tokens, input);
  }

  dispose(): void {
    for (const tensor of [this.#transcoderInput, this.#crosscoderInput]) tensor?.dispose();
    for (const tensor of Object.values(this.#reconstructions ?? {})) tensor.dispose();
  }

  hooks(): NamedHook[] {
    const { input, output } = this.#attached;
    if (input.length > 1) {
      return output.map((name, index) => ({ name, hook: (activation) => this.#crosscoded(activation, index) }));
    }
    if (input[0] === output[0]) {
      return [{ name: output[0]!, hook: (activation) => this.#replacement(activation, activation) }];
    }
    return [
      {
        name: input[0]!,
        hook: (activation) => {
          this.#transcoderInput?.dispose();
          this.#transcoderInput = activation.reshape(activation.shape);
        },
      },
      {
        name: output[0]!,
        hook: async (activation) => {
          using x = this.#transcoderInput!;
          this.#transcoderInput = undefined;
          return await this.#replacement(activation, x);
        },
      },
    ];
  }

  /** What stands in place of `activation` [batch, pos, ...], from the SAE's input x. */
  async #replacement(activation: Tensor, x: Tensor): Promise<Tensor> {
    const { changed, own } = await this.#reconstruct(x, activation.shape);
    using _changed = changed;
    using _own = own;
    return await this.#placed(this.#attached.output[0]!, activation, activation, { changed, own });
  }

  /** What stands in place of the activation at a crosscoder's hook point. */
  async #crosscoded(activation: Tensor, index: number): Promise<Tensor> {
    const { sae, output } = this.#attached;
    const x = this.#crosscoderInput!;
    this.#reconstructions ??= await this.#reconstruct(x, activation.shape);
    const { changed, own } = this.#reconstructions;
    const width = activation.size / x.shape[0]!;
    const widths = sae.config.hookWidths ?? output.map(() => width);
    const from = widths.slice(0, index).reduce((sum, one) => sum + one, 0);
    const { kernels } = sae.device;
    using untouched = kernels.sliceColumns(x, from, width);
    using changedHere = kernels.sliceColumns(changed, from, width);
    using ownHere = kernels.sliceColumns(own, from, width);
    return await this.#placed(output[index]!, activation, untouched, { changed: changedHere, own: ownHere });
  }

  /** From the SAE's input x. `shape` is that of activations in this pass. */
  async #reconstruct(x: Tensor, [batch, positions]: readonly number[]): Promise<Reconstructions> {
    const { sae, output } = this.#attached;
    const [first] = output as [string];
    this.#passes++;
    const shaped = (tensor: Tensor): number[] => [batch!, positions!, tensor.size / (batch! * positions!)];

    using given = x.reshape([x.size / sae.config.dIn, sae.config.dIn]);
    using replacedInput = await this.#seen(first, "input", given, shaped(given));
    const input = replacedInput ?? given;
    using replacedPre = await this.#changedPreActivations(first, input, shaped);
    using codes = replacedPre === undefined ? sae.encode(input) : sae.encodePreActivations(replacedPre, input);
    using latents = await this.#changedLatents(first, codes, shaped);
    const isChanged = replacedInput !== undefined || replacedPre !== undefined;
    const own = isChanged ? sae.reconstruct(given) : sae.decode(codes, given);
    if (latents !== undefined) return { own, changed: sae.decodeDense(latents, input) };
    return { own, changed: isChanged ? sae.decode(codes, input) : own.reshape(own.shape) };
  }

  /** The pre-activations that a hook has put in the place of the input's; undefined where none has. */
  async #changedPreActivations(
    place: string,
    input: Tensor,
    shaped: (tensor: Tensor) => number[],
  ): Promise<Tensor | undefined> {
    if (!this.#wants(place, "acts_pre")) return undefined;
    using preActivations = this.#attached.sae.preActivations(input);
    return await this.#seen(place, "acts_pre", preActivations, shaped(preActivations));
  }

  /** The latents that a hook has put in the place of the codes; undefined where none has. */
  async #changedLatents(
    place: string,
    codes: Codes,
    shaped: (tensor: Tensor) => number[],
  ): Promise<Tensor | undefined> {
    if (!this.#wants(place, "acts_post")) return undefined;
    using latents = this.#attached.sae.device.kernels.densify(codes);
    return await this.#seen(place, "acts_post", latents, shaped(latents));
  }

  /**
   * What stands in place of `activation` [batch, pos, ...]; clean tokens keep it.
   *
   * @param place - the hook point after which hook points of the SAE are named
   * @param explained - what is reconstructed, of which the error is what is left
   */
  async #placed(
    place: string,
    activation: Tensor,
    explained: Tensor,
    { changed, own }: Reconstructions,
  ): Promise<Tensor> {
    const { sae, errorTerm } = this.#attached;
    const { kernels } = sae.device;
    const { shape } = activation;
    const rows = own.shape[0]!;
    const flat = [rows, activation.size / rows];
    using reconstruction =
      (await this.#seen(place, "recons", changed, [shape[0]!, shape[1]!, flat[1]!])) ?? changed.reshape(flat);
    using replaced = this.#replacedRows();
    using target = explained.reshape(flat);
    using error = errorTerm ? await this.#error(place, target, own, replaced, shape) : undefined;
    using sum = error && kernels.add(reconstruction, error);
    using here = activation.reshape(flat);
    using mixed = replaced && replacedWhere(replaced, here, sum ?? reconstruction);
    const output = mixed ?? sum ?? reconstruction;
    using seen = await this.#seen(place, "output", output, shape);
    return (seen ?? output).reshape(shape);
  }

  /** target - own, [rows, width]; 0 in the rows of clean tokens, which do not pass through the SAE. */
  async #error(
    place: string,
    target: Tensor,
    own: Tensor,
    replaced: Tensor | undefined,
    shape: readonly number[],
  ): Promise<Tensor> {
    const { kernels } = this.#attached.sae.device;
    using difference = kernels.add(target, own, { scale: -1 });
    if (replaced !== undefined) kernels.scaleRows(difference, replaced, { out: difference });
    return (await this.#seen(place, "error", difference, shape)) ?? difference.reshape(difference.shape);
  }

  /** 0 for clean tokens, 1 for the others, [rows]; undefined where there are none. */
  #replacedRows(): Tensor | undefined {
    const { sae, cleanTokens } = this.#attached;
    // Only the first pass of a generation reads the prompt.
    if (this.#passes > 1 || !this.#ids.some((id) => cleanTokens.has(id))) return undefined;
    return sae.device.tensor(
      Float32Array.from(this.#ids, (id) => (cleanTokens.has(id) ? 0 : 1)),
      [this.#ids.length],
    );
  }

  #wants(place: string, own: OwnHook): boolean {
    const wanted = `${place}.hook_sae_${own}`;
    return this.#userHooks.some(({ name }) => name === wanted);
  }

  /** What hooks make of `rows`, as rows; undefined where none replaces them. */
  async #seen(place: string, own: OwnHook, rows: Tensor, shape: readonly number[]): Promise<Tensor | undefined> {
    using activation = rows.reshape(shape);
    using replacement = await answer({ name: `${place}.hook_sae_${own}`, activation }, this.#userHooks, this.#signal);
    return replacement?.reshape(rows.shape);
  }
}

/** The hook points of an SAE that come after the model's hook point `name`. */
function namesAt({ output, errorTerm }: Attached, name: string): readonly string[] {
  const index = output.indexOf(name);
  if (index < 0) return [];
  return [...(index === 0 ? encodingHooks : []), ...decodingHooks]
    .filter((own) => own !== "error" || errorTerm)
    .map((own) => `${name}.hook_sae_${own}`);
}

function isOwnHook(name: string): boolean {
  return name.includes(".hook_sae_");
}

/** Whether a run that stops before a layer comes by a hook point. */
function isReached(name: string, stopAtLayer: number | undefined): boolean {
  if (stopAtLayer === undefined) return true;
  const layer = /^blocks\.(\d+)\./.exec(name)?.[1];
  return layer === undefined ? /^(hook_)?(pos_)?embed/.test(name) : Number(layer) < stopAtLayer;
}
