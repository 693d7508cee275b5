import { requirePair } from "../analysis/checkPair.js";
import { checkContexts, type PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae, type SaeHooks } from "../analysis/saeHook.js";
import type { OptionNames } from "../checkArguments.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { type Metrics, MetricsAccumulator } from "../sae/metrics.js";
import type { Sae } from "../sae/sae.js";
import { type CollectorOptions, FeatureCollector } from "./featureCollector.js";

export interface FeaturePassOptions extends CollectorOptions, PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
  /** Leave special tokens (BOS and the like) out of counts and examples. Default true. */
  readonly excludeSpecialTokens?: boolean;
}

export const featurePassOptionNames: OptionNames<FeaturePassOptions> = {
  sae: true,
  model: true,
  hook: true,
  excludeSpecialTokens: "boolean",
  seed: true,
  examplesPerLatent: true,
  tokensBefore: true,
  tokensAfter: true,
  allowMismatch: "boolean",
};

/** Text for a model, and if it is known which document each token is of. */
export interface PassContext {
  readonly tokens: Int32Array;
  readonly documents?: Uint32Array;
}

/** The way of text through a model up to a hook, through an SAE and into a collector, batch by batch. */
export class FeaturePass {
  readonly collector: FeatureCollector;
  readonly #options: FeaturePassOptions;
  readonly #hooks: SaeHooks;
  readonly #special: ReadonlySet<number>;
  readonly #metrics: MetricsAccumulator;

  /** @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together */
  constructor(options: FeaturePassOptions) {
    const { sae, model, excludeSpecialTokens = true } = options;
    requirePair(model, sae);
    const { dOut, dSae } = sae.config;
    this.#options = options;
    this.#hooks = hooksForSae(model, sae, options.hook, options);
    this.#special = excludeSpecialTokens ? model.tokenizer.specialTokenIds : new Set<number>();
    this.collector = new FeatureCollector(dSae, options);
    this.#metrics = new MetricsAccumulator(sae.device, dOut, dSae);
  }

  /**
   * @param contexts - of one length
   * @throws MonosemError ERR_CONFIG for contexts that do not fit the SAE's training, ERR_NON_FINITE
   */
  async add(contexts: readonly PassContext[]): Promise<void> {
    const { sae, model } = this.#options;
    const { kernels } = sae.device;
    const { dIn, dOut, transcoder } = sae.config;
    const texts = contexts.map(({ tokens }) => tokens);
    if (!this.#options.allowMismatch) checkContexts(model, sae, texts);
    const length = texts[0]!.length;
    const counted = contexts.map(({ tokens }) =>
      Int32Array.from(tokens.keys()).filter((position) => !this.#special.has(tokens[position]!)),
    );
    const places = counted.flatMap((positions, index) =>
      Array.from(positions, (position) => index * length + position),
    );
    if (places.length === 0) return;
    const { input, output } = this.#hooks;
    using all = await model.activations(texts, transcoder ? [...input, ...output] : input);
    using rows = sae.device.tensor(Int32Array.from(places), [places.length]);
    using activations = kernels.gatherRows(all, rows);
    using x = transcoder ? kernels.sliceColumns(activations, 0, dIn) : activations;
    using target = transcoder ? kernels.sliceColumns(activations, dIn, dOut) : activations;
    using codes = sae.encode(x);
    using reconstruction = sae.decode(codes, x);
    using residual = kernels.add(reconstruction, target, { scale: -1 });
    this.#metrics.add(target, residual, codes);
    const entries = await codes.read();
    let firstRow = 0;
    for (const [index, context] of contexts.entries()) {
      const positions = counted[index]!;
      this.collector.addContext({ ...context, positions }, entries, firstRow);
      firstRow += positions.length;
    }
  }

  async metrics(): Promise<Metrics> {
    return await this.#metrics.read();
  }

  async saveMetrics(): Promise<Float64Array> {
    return await this.#metrics.saveState();
  }

  restoreMetrics(saved: Float64Array): void {
    this.#metrics.restoreState(saved);
  }

  [Symbol.dispose](): void {
    this.#metrics[Symbol.dispose]();
  }
}
