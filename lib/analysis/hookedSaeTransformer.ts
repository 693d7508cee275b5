/**
 * A model with SAEs in it: each takes the place of the activations at its hook point, and what happens in it can be read
 * and replaced at hook points of its own, as in SAELens' HookedSAETransformer. For an SAE at `H` these are, in order:
 *
 *   H.hook_sae_input      [batch, pos, dIn]   what it encodes
 *   H.hook_sae_acts_pre   [batch, pos, dSae]  pre-activations of all latents (of a gated SAE those of its gate); read only
 *   H.hook_sae_acts_post  [batch, pos, dSae]  latents; what replaces them is decoded
 *   H.hook_sae_recons     [batch, pos, dOut]  reconstruction
 *   H.hook_sae_error      [batch, pos, dOut]  with `errorTerm`: the activations less the reconstruction by untouched latents
 *   H.hook_sae_output     [batch, pos, dOut]  reconstruction plus error: what the model goes on with
 *
 * A transcoder reads at its first hook point, after which these are named, and replaces what stands at its second one.
 * Matrices [.., dSae] are made only where a hook asks for them.
 */

import type { Codes } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type CachedNames, type CachedRun, runKeeping } from "../models/activationCache.js";
import { closestNames } from "../models/closestNames.js";
import type {
  ForwardOptions,
  GenerationOptions,
  GenerationStep,
  HookedTransformer,
  NamedHook,
  Prompt,
  PromptOptions,
  Tokens,
} from "../models/hookedTransformer.js";
import { answer } from "../models/hooks.js";
import { checkTokens } from "../models/tokens.js";
import type { Sae } from "../sae/sae.js";
import type { PairingOptions } from "./pairing.js";
import { hooksForSae } from "./saeHook.js";

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

const ownHooks = ["input", "acts_pre", "acts_post", "recons", "error", "output"] as const;
type OwnHook = (typeof ownHooks)[number];

interface Attached {
  readonly sae: Sae;
  readonly input: string;
  readonly output: string;
  readonly errorTerm: boolean;
  readonly cleanTokens: ReadonlySet<number>;
}

/**
 * A model with an SAE in it; {@link HookedSaeTransformer.withSae} adds further ones. Neither is changed, and both stay
 * the caller's.
 *
 * @throws MonosemError as `hooksForSae`; ERR_UNSUPPORTED for a crosscoder over several hook points; ERR_INVALID_ARGUMENT
 *   for a second SAE that writes at the same hook point
 */
export function withSae(model: HookedTransformer, sae: Sae, options: AttachOptions = {}): HookedSaeTransformer {
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
    this.hookNames = model.hookNames.flatMap((name) => [
      name,
      ...attached.filter(({ output }) => output === name).flatMap((one) => hooksOf(one).map((own) => nameOf(one, own))),
    ]);
  }

  /** This model with a further SAE, at another hook point. See {@link withSae}. */
  withSae(
    sae: Sae,
    { hook, errorTerm = false, cleanTokens = [], allowMismatch }: AttachOptions = {},
  ): HookedSaeTransformer {
    const hooks = hooksForSae(this.model, sae, hook, { allowMismatch });
    const [input, output] = [hooks.input[0]!, hooks.output[0]!];
    if (hooks.input.length > 1) {
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        "a crosscoder over several hook points cannot stand in a model: its reconstruction at the first one needs the activations at the last",
      );
    }
    if (this.model.hookNames.indexOf(input) > this.model.hookNames.indexOf(output)) {
      throw new MonosemError("ERR_UNSUPPORTED", `the transcoder writes at ${output}, before it has read at ${input}`);
    }
    if (this.#attached.some((other) => other.output === output || other.input === input)) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `there is an SAE at hook point ${input} already`);
    }
    const attached = { sae, input, output, errorTerm, cleanTokens: new Set(cleanTokens) };
    return new HookedSaeTransformer(this.model, [...this.#attached, attached]);
  }

  /**
   * `HookedTransformer.forward` with the SAEs; hooks may name their hook points too. Hooks at a hook point where an SAE
   * stands run before it.
   *
   * @throws MonosemError as `HookedTransformer.forward`; ERR_UNSUPPORTED for a hook that replaces pre-activations
   */
  async forward(tokens: Tokens, options: ForwardOptions = {}): Promise<Tensor> {
    const { ids } = await checkTokens(tokens, this.model.config);
    return await this.model.forward(tokens, { ...options, hooks: this.#hooks(options, ids) });
  }

  /** `HookedTransformer.runWithHooks` with the SAEs. */
  runWithHooks(
    tokens: Tokens,
    hooks: readonly NamedHook[],
    options: Omit<ForwardOptions, "hooks"> = {},
  ): Promise<Tensor> {
    return this.forward(tokens, { ...options, hooks });
  }

  /**
   * `HookedTransformer.runWithCache` with the SAEs. Without `names` it keeps everything: of each SAE two matrices
   * [batch, pos, dSae] as well.
   */
  async runWithCache(
    tokens: Tokens,
    options: Omit<ForwardOptions, "hooks"> & { readonly names?: CachedNames } = {},
  ): Promise<CachedRun> {
    const { names = () => true, ...rest } = options;
    return await runKeeping(names, this.#reached(rest.stopAtLayer), (hooks) =>
      this.forward(tokens, { ...rest, hooks }),
    );
  }

  /** `HookedTransformer.loss` with the SAEs. */
  async loss(tokens: Tokens, options: Omit<ForwardOptions, "stopAtLayer"> = {}): Promise<Tensor> {
    const { ids } = await checkTokens(tokens, this.model.config);
    return await this.model.loss(tokens, { ...options, hooks: this.#hooks(options, ids) });
  }

  /** `HookedTransformer.generate` with the SAEs. */
  generate(prompt: Prompt, options: PromptOptions & GenerationOptions): Promise<number[][]> {
    return this.model.generate(prompt, { ...options, hooks: this.#hooks(options, this.#promptIds(prompt, options)) });
  }

  /** `HookedTransformer.stream` with the SAEs. */
  stream(prompt: Prompt, options: PromptOptions & GenerationOptions): AsyncGenerator<GenerationStep, void> {
    return this.model.stream(prompt, { ...options, hooks: this.#hooks(options, this.#promptIds(prompt, options)) });
  }

  /** What the first pass of a generation reads, padded on the left by -1. */
  #promptIds(prompt: Prompt, options: PromptOptions): Int32Array {
    const prompts = this.model.promptTokens(prompt, options);
    const positions = Math.max(0, ...prompts.map(({ length }) => length));
    return Int32Array.from(prompts.flatMap((ids) => [...new Array<number>(positions - ids.length).fill(-1), ...ids]));
  }

  /** The hooks by which the model runs the SAEs, and the user's own. `ids`: the tokens of the first pass. */
  #hooks({ hooks = [], stopAtLayer }: ForwardOptions, ids: Int32Array): readonly NamedHook[] {
    for (const { name } of hooks) this.#checkOwnHook(name, stopAtLayer);
    return [
      ...hooks.filter(({ name }) => !isOwnHook(name)),
      ...this.#attached
        .filter(({ output }) => isReached(output, stopAtLayer))
        .flatMap((attached) => new SaeInPass(attached, hooks, ids).hooks()),
    ];
  }

  /** The model checks its own. */
  #checkOwnHook(name: string, stopAtLayer: number | undefined): void {
    if (!isOwnHook(name)) return;
    const owner = this.#attached.find((attached) => hooksOf(attached).some((own) => nameOf(attached, own) === name));
    if (owner === undefined) {
      const near = closestNames(name, this.hookNames.filter(isOwnHook)).join(", ");
      throw new MonosemError("ERR_NOT_FOUND", `no SAE in the model has hook point "${name}"; did you mean ${near}?`);
    }
    if (!isReached(owner.output, stopAtLayer)) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `hook point ${name} lies behind stopAtLayer ${stopAtLayer}: the run does not reach it`,
      );
    }
  }

  /** The hook points that a run comes by, in order. */
  #reached(stopAtLayer: number | undefined): readonly string[] {
    const behind = new Set(
      this.#attached
        .filter(({ output }) => !isReached(output, stopAtLayer))
        .flatMap((attached) => hooksOf(attached).map((own) => nameOf(attached, own))),
    );
    return this.hookNames.filter((name) => !behind.has(name) && isReached(name, stopAtLayer));
  }
}

/** An SAE in the passes of one call. */
class SaeInPass {
  readonly #attached: Attached;
  readonly #userHooks: readonly NamedHook[];
  readonly #ids: Int32Array;
  #passes = 0;
  #transcoderInput: Tensor | undefined;

  constructor(attached: Attached, userHooks: readonly NamedHook[], ids: Int32Array) {
    this.#attached = attached;
    this.#userHooks = userHooks;
    this.#ids = ids;
  }

  hooks(): NamedHook[] {
    const { input, output } = this.#attached;
    if (input === output) return [{ name: output, hook: (activation) => this.#replacement(activation, activation) }];
    return [
      {
        name: input,
        hook: (activation) => {
          this.#transcoderInput?.dispose();
          this.#transcoderInput = activation.reshape(activation.shape);
        },
      },
      {
        name: output,
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
    const { sae, errorTerm } = this.#attached;
    const { kernels } = sae.device;
    const [batch, positions] = [activation.shape[0]!, activation.shape[1]!];
    const rows = batch * positions;
    const shaped = (tensor: Tensor): number[] => [batch, positions, tensor.size / rows];

    using given = x.reshape([rows, sae.config.dIn]);
    using input = (await this.#seen("input", given, shaped(given))) ?? given.reshape(given.shape);
    if (this.#wants("acts_pre")) {
      using pre = sae.preActivations(input);
      using replaced = await this.#seen("acts_pre", pre, shaped(pre));
      if (replaced !== undefined) {
        throw new MonosemError(
          "ERR_UNSUPPORTED",
          `a hook replaced ${nameOf(this.#attached, "acts_pre")}, which can only be read: replace hook_sae_acts_post`,
        );
      }
    }
    using codes = sae.encode(input);
    using clean = sae.decode(codes, input);
    using intervened = await this.#intervened(codes, input, shaped);
    const reconstructed = intervened ?? clean;
    using reconstruction =
      (await this.#seen("recons", reconstructed, shaped(clean))) ?? reconstructed.reshape(reconstructed.shape);
    using target = activation.reshape([rows, sae.config.dOut]);
    using sum = errorTerm ? await this.#withError(reconstruction, clean, target, shaped(clean)) : undefined;
    const before = sum ?? reconstruction;
    using output = (await this.#seen("output", before, shaped(clean))) ?? before.reshape(before.shape);
    using result = this.#cleanRowsKept(output, target);
    if (result !== undefined) kernels.add(target, result, { out: result });
    return (result ?? output).reshape(activation.shape);
  }

  /** The reconstruction by latents that a hook has replaced. */
  async #intervened(codes: Codes, input: Tensor, shaped: (tensor: Tensor) => number[]): Promise<Tensor | undefined> {
    if (!this.#wants("acts_post")) return undefined;
    const { sae } = this.#attached;
    using latents = sae.device.kernels.densify(codes);
    using replaced = await this.#seen("acts_post", latents, shaped(latents));
    return replaced === undefined ? undefined : sae.decodeDense(replaced, input);
  }

  async #withError(reconstruction: Tensor, clean: Tensor, target: Tensor, shape: number[]): Promise<Tensor> {
    const { kernels } = this.#attached.sae.device;
    using difference = kernels.add(target, clean, { scale: -1 });
    using error = (await this.#seen("error", difference, shape)) ?? difference.reshape(difference.shape);
    return kernels.add(reconstruction, error);
  }

  /** output - target, 0 in the rows of clean tokens; undefined where there are none. */
  #cleanRowsKept(output: Tensor, target: Tensor): Tensor | undefined {
    const { sae, cleanTokens } = this.#attached;
    // Only the first pass of a generation reads the prompt.
    if (this.#passes++ > 0 || !this.#ids.some((id) => cleanTokens.has(id))) return undefined;
    const { kernels } = sae.device;
    const difference = kernels.add(output, target, { scale: -1 });
    using replaced = sae.device.tensor(
      Float32Array.from(this.#ids, (id) => (cleanTokens.has(id) ? 0 : 1)),
      [this.#ids.length],
    );
    return kernels.scaleRows(difference, replaced, { out: difference });
  }

  #wants(own: OwnHook): boolean {
    const wanted = nameOf(this.#attached, own);
    return this.#userHooks.some(({ name }) => name === wanted);
  }

  /** What hooks make of `rows`, as rows; undefined where none replaces them. */
  async #seen(own: OwnHook, rows: Tensor, shape: number[]): Promise<Tensor | undefined> {
    const name = nameOf(this.#attached, own);
    using activation = rows.reshape(shape);
    using replacement = await answer({ name, activation }, this.#userHooks);
    return replacement?.reshape(rows.shape);
  }
}

function hooksOf({ errorTerm }: Attached): readonly OwnHook[] {
  return ownHooks.filter((own) => own !== "error" || errorTerm);
}

function nameOf({ input }: Attached, own: OwnHook): string {
  return `${input}.hook_sae_${own}`;
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
