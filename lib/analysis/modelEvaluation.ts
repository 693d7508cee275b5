import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { Hook, HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import { type Evaluation, EvaluationAccumulator, refuseNonFinite } from "../sae/evaluation.js";
import type { Sae } from "../sae/sae.js";
import { type ContextBatch, type Contexts, contextBatches } from "./contextBatches.js";
import { hooksForSae, type SaeHooks } from "./saeHook.js";

/**
 * How well the model still predicts text when the SAE's reconstruction takes the place of the activation. "Zeros" and
 * "means" are the model with zeros, and with the mean activation of the same tokens, in that place.
 */
export interface ModelEvaluation {
  /** Mean cross-entropy of the untouched model, in nats per token. */
  readonly ceClean: number;
  readonly ceSae: number;
  readonly ceZero: number;
  readonly ceMean: number;
  /** (ceZero - ceSae) / (ceZero - ceClean): 1 if the reconstruction costs nothing, 0 if it is no better than zeros. */
  readonly lossRecovered: number;
  /** (ceMean - ceSae) / (ceMean - ceClean): stricter, because a constant costs less than zeros. */
  readonly lossRecoveredFromMean: number;
  /** Mean KL(clean || with SAE) of the next-token distributions, in nats. */
  readonly klDivergence: number;
  readonly klZero: number;
  readonly klMean: number;
  /** (klZero - klDivergence) / klZero */
  readonly klScore: number;
  /** (klMean - klDivergence) / klMean */
  readonly klScoreFromMean: number;
  /** Predicted tokens that the mean cross-entropies are over. */
  readonly tokens: number;
  readonly contexts: number;
  /** How well the SAE reconstructs the activations at its hook point; its prompts are the contexts. */
  readonly reconstruction: Evaluation;
}

export interface ModelEvaluationOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads, and replaces unless it is a transcoder. Default: the one in the SAE's metadata. */
  readonly hook?: string;
  /** All of them are kept in memory, 4 bytes a token: they go through the model more than once. */
  readonly contexts: Contexts;
  /** Contexts that go through the model at once. Default 8; two [tokens, vocabulary] logits are held at a time. */
  readonly contextsPerBatch?: number;
  /**
   * Leave the activations of special tokens (BOS and the like) as they are in every run, and count neither their
   * activations nor what is predicted from them. An SAE that was trained without them cannot reconstruct them. Default true.
   */
  readonly keepSpecialTokens?: boolean;
  readonly signal?: AbortSignal;
  /** "means" is the first pass over the contexts, for the mean activations; "losses" the second. */
  readonly onProgress?: (progress: {
    readonly stage: "means" | "losses";
    readonly contexts: number;
    readonly tokens: number;
  }) => void;
}

/**
 * Evaluates an SAE in its model, as SAELens does (`ce_loss_score`, `kl_div_score`), and with mean ablation besides. The
 * model runs over every context untouched, with the SAE spliced in at its hook point, with zeros there, and with the mean
 * activation there. Cross-entropies are over all positions but the last of each context, divergences over all.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, or if zeroing the hook point does not
 * change the loss (then nothing can be recovered); ERR_NON_FINITE; ERR_ABORTED.
 */
export async function evaluateInModel({ sae, ...options }: ModelEvaluationOptions): Promise<ModelEvaluation> {
  const [evaluation] = await evaluateAllInModel({ ...options, saes: [sae] });
  return evaluation!;
}

/**
 * `evaluateInModel` for several SAEs over the same contexts. The runs without an SAE are shared: each further SAE costs
 * one run of the model instead of four.
 *
 * @returns the evaluations in the order of `saes`
 * @throws MonosemError as `evaluateInModel`
 */
export async function evaluateAllInModel(
  options: Omit<ModelEvaluationOptions, "sae"> & { readonly saes: readonly Sae[] },
): Promise<ModelEvaluation[]> {
  const { saes, model, contextsPerBatch = 8, keepSpecialTokens = true, signal, onProgress } = options;
  const special = keepSpecialTokens ? model.tokenizer.specialTokenIds : new Set<number>();
  const batches: CountedBatch[] = [];
  for await (const contexts of contextBatches(options.contexts, contextsPerBatch, signal)) {
    if (contexts.positions < 2) {
      throw new MonosemError("ERR_CONFIG", "a context needs at least 2 tokens: the first predicts the second");
    }
    const batch = new CountedBatch(contexts, special);
    if (batch.predictions > 0) batches.push(batch);
  }
  if (batches.length === 0) {
    throw new MonosemError("ERR_CONFIG", "the contexts hold nothing but special tokens: there is no token to evaluate");
  }
  const counter = (stage: "means" | "losses"): ((batch: CountedBatch) => void) => {
    let [contexts, tokens] = [0, 0];
    return (batch) => {
      contexts += batch.contexts.length;
      tokens += batch.predictions;
      onProgress?.({ stage, contexts, tokens });
    };
  };

  const spliced = saes.map((sae) => ({
    sae,
    hooks: hooksForSae(model, sae, options.hook),
    losses: new Losses(),
    evaluation: new EvaluationAccumulator(sae.device, sae.config.dOut, sae.config.dSae),
  }));
  try {
    const replacedHooks = [...new Set(spliced.map(({ hooks }) => hooks.output))];
    const means = await meanActivations(model, replacedHooks, batches, signal, counter("means"));
    const ablations = new Map(
      means.map(({ hook, mean }) => [hook, { mean, zeroed: new Losses(), averaged: new Losses() }]),
    );
    const clean = new Losses();
    const evaluated = counter("losses");
    for (const batch of batches) {
      throwIfAborted(signal, "the evaluation");
      using runs = await BatchRuns.start(model, batch, signal);
      await runs.addClean(clean);
      for (const [hook, { mean, zeroed, averaged }] of ablations) {
        await runs.addAblated(hook, new Float32Array(mean.length), zeroed);
        await runs.addAblated(hook, mean, averaged);
      }
      for (const { sae, hooks, losses, evaluation } of spliced) await runs.addSpliced(sae, hooks, losses, evaluation);
      evaluated(batch);
    }
    const contexts = batches.reduce((sum, batch) => sum + batch.contexts.length, 0);
    const evaluations: ModelEvaluation[] = [];
    for (const { hooks, losses, evaluation } of spliced) {
      const compared = compare(hooks.output, { clean, spliced: losses, ...ablations.get(hooks.output)! });
      evaluations.push({ ...compared, contexts, reconstruction: await evaluation.read() });
    }
    return evaluations;
  } finally {
    for (const { evaluation } of spliced) evaluation[Symbol.dispose]();
  }
}

/** Sums over the counted positions of all batches. */
class Losses {
  #crossEntropy = 0;
  #predictions = 0;
  #divergence = 0;
  #positions = 0;

  get predictions(): number {
    return this.#predictions;
  }

  get meanCrossEntropy(): number {
    return this.#crossEntropy / this.#predictions;
  }

  get meanDivergence(): number {
    return this.#divergence / this.#positions;
  }

  /** @param crossEntropy of every row of the batch */
  addCrossEntropy(crossEntropy: Float32Array, batch: CountedBatch): void {
    for (const row of batch.counted) if (batch.predicts(row)) this.#crossEntropy += crossEntropy[row]!;
    this.#predictions += batch.predictions;
  }

  /** @param divergence of every row of the batch */
  addDivergence(divergence: Float32Array, batch: CountedBatch): void {
    for (const row of batch.counted) this.#divergence += divergence[row]!;
    this.#positions += batch.counted.length;
  }
}

function compare(
  hook: string,
  losses: Readonly<Record<"clean" | "spliced" | "zeroed" | "averaged", Losses>>,
): Omit<ModelEvaluation, "contexts" | "reconstruction"> {
  const { clean, spliced, zeroed, averaged } = losses;
  const ceClean = clean.meanCrossEntropy;
  const ceSae = spliced.meanCrossEntropy;
  const ceZero = zeroed.meanCrossEntropy;
  const ceMean = averaged.meanCrossEntropy;
  const klDivergence = spliced.meanDivergence;
  const klZero = zeroed.meanDivergence;
  const klMean = averaged.meanDivergence;
  if (ceZero === ceClean) {
    throw new MonosemError("ERR_CONFIG", `zeroing hook point "${hook}" does not change the loss: nothing to recover`);
  }
  const compared = {
    ceClean,
    ceSae,
    ceZero,
    ceMean,
    lossRecovered: (ceZero - ceSae) / (ceZero - ceClean),
    lossRecoveredFromMean: (ceMean - ceSae) / (ceMean - ceClean),
    klDivergence,
    klZero,
    klMean,
    klScore: (klZero - klDivergence) / klZero,
    klScoreFromMean: (klMean - klDivergence) / klMean,
    tokens: clean.predictions,
  };
  refuseNonFinite(compared);
  return compared;
}

/** Contexts of one length, and which of their tokens count. */
class CountedBatch {
  readonly contexts: readonly Int32Array[];
  readonly positions: number;
  /** Rows of the activations, context after context, of the tokens that are not special. */
  readonly counted: Int32Array;
  /** Counted rows of each context. */
  readonly countedPerContext: readonly number[];
  /** Counted rows from which a token is predicted: all but those at the last position. */
  readonly predictions: number;

  constructor({ contexts, positions }: ContextBatch, special: ReadonlySet<number>) {
    this.contexts = contexts;
    this.positions = positions;
    const rows = contexts.map((tokens, context) =>
      Array.from(tokens.keys())
        .filter((position) => !special.has(tokens[position]!))
        .map((position) => context * positions + position),
    );
    this.counted = Int32Array.from(rows.flat());
    this.countedPerContext = rows.map(({ length }) => length);
    this.predictions = this.counted.filter((row) => this.predicts(row)).length;
  }

  get rows(): number {
    return this.contexts.length * this.positions;
  }

  predicts(row: number): boolean {
    return row % this.positions !== this.positions - 1;
  }

  /** What each position should predict; -1, which counts as no loss, at the last. */
  nextTokens(): Int32Array {
    const targets = new Int32Array(this.rows).fill(-1);
    this.contexts.forEach((context, index) => {
      targets.set(context.subarray(1), index * this.positions);
    });
    return targets;
  }
}

/** The mean of the counted activations at each hook point, f32 [width]. */
async function meanActivations(
  model: HookedTransformer,
  hooks: readonly string[],
  batches: readonly CountedBatch[],
  signal: AbortSignal | undefined,
  counted: (batch: CountedBatch) => void,
): Promise<{ readonly hook: string; readonly mean: Float32Array }[]> {
  const { device } = model;
  const rows = batches.reduce((sum, batch) => sum + batch.counted.length, 0);
  const sums = hooks.map((hook) => ({ hook, sum: device.zeros([model.hookWidth(hook)], "f64") }));
  try {
    for (const batch of batches) {
      throwIfAborted(signal, "the evaluation");
      using places = device.tensor(batch.counted, [batch.counted.length]);
      for (const { hook, sum } of sums) {
        using all = await model.activations(batch.contexts, hook);
        using activations = device.kernels.gatherRows(all, places);
        device.kernels.accumulateColumnSums(activations, sum);
      }
      await device.synchronize(); // no more than one batch on the device
      counted(batch);
    }
    return await Promise.all(
      sums.map(async ({ hook, sum }) => ({ hook, mean: Float32Array.from(await sum.read(), (value) => value / rows) })),
    );
  } finally {
    for (const { sum } of sums) sum.dispose();
  }
}

/** The runs of a model over one batch, all compared with the untouched one. */
class BatchRuns {
  readonly #model: HookedTransformer;
  readonly #device: Device;
  readonly #batch: CountedBatch;
  readonly #signal: AbortSignal | undefined;
  /** [rows, vocabulary] */
  readonly #clean: Tensor;
  /** i32 [rows] */
  readonly #targets: Tensor;
  /** The counted rows, i32 [counted]. */
  readonly #counted: Tensor;

  private constructor(model: HookedTransformer, batch: CountedBatch, signal: AbortSignal | undefined, clean: Tensor) {
    this.#model = model;
    this.#device = model.device;
    this.#batch = batch;
    this.#signal = signal;
    this.#clean = clean;
    this.#targets = model.device.tensor(batch.nextTokens(), [batch.rows]);
    this.#counted = model.device.tensor(batch.counted, [batch.counted.length]);
  }

  static async start(
    model: HookedTransformer,
    batch: CountedBatch,
    signal: AbortSignal | undefined,
  ): Promise<BatchRuns> {
    return new BatchRuns(model, batch, signal, await logitsOf(model, batch, [], signal));
  }

  async addClean(losses: Losses): Promise<void> {
    using crossEntropy = this.#device.kernels.crossEntropy(this.#clean, this.#targets);
    losses.addCrossEntropy(await crossEntropy.readFloat32(), this.#batch);
  }

  /** With `constant` [width] in place of every counted activation at `hook`. */
  async addAblated(hook: string, constant: Float32Array, losses: Losses): Promise<void> {
    using row = this.#device.tensor(constant, [1, constant.length]);
    const replace: Hook = (activation) => this.#replaced(activation, row, () => 0);
    await this.#addRun([{ name: hook, hook: replace }], losses);
  }

  /** With the SAE's reconstructions in place of the counted activations, which are evaluated as well. */
  async addSpliced(
    sae: Sae,
    { input, output }: SaeHooks,
    losses: Losses,
    evaluation: EvaluationAccumulator,
  ): Promise<void> {
    let encoded: { readonly codes: Codes; readonly reconstruction: Tensor } | undefined;
    let target: Tensor | undefined;
    const encode = (activation: Tensor): void => {
      using x = this.#countedRows(activation);
      const codes = sae.encode(x);
      encoded = { codes, reconstruction: sae.decode(codes, x) };
    };
    const replace = (activation: Tensor): Tensor => {
      if (input === output) encode(activation);
      if (encoded === undefined) {
        throw new MonosemError("ERR_CONFIG", `the transcoder reads "${input}", which comes after "${output}"`);
      }
      target = this.#countedRows(activation);
      return this.#replaced(activation, encoded.reconstruction, (index) => index);
    };
    const hooks = [{ name: output, hook: replace }];
    try {
      await this.#addRun(input === output ? hooks : [{ name: input, hook: encode }, ...hooks], losses);
      const promptRows = this.#batch.countedPerContext;
      await evaluation.add({ target: target!, ...encoded!, promptRows });
    } finally {
      for (const handle of [target, encoded?.codes, encoded?.reconstruction]) handle?.dispose();
    }
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#clean, this.#targets, this.#counted]) tensor.dispose();
  }

  async #addRun(hooks: readonly NamedHook[], losses: Losses): Promise<void> {
    const { kernels } = this.#device;
    using logits = await logitsOf(this.#model, this.#batch, hooks, this.#signal);
    using crossEntropy = kernels.crossEntropy(logits, this.#targets);
    using divergence = kernels.klDivergence(this.#clean, logits);
    const [crossEntropies, divergences] = await Promise.all([crossEntropy.readFloat32(), divergence.readFloat32()]);
    losses.addCrossEntropy(crossEntropies, this.#batch);
    losses.addDivergence(divergences, this.#batch);
  }

  /** [counted, width] of an activation [batch, positions, ...]. */
  #countedRows(activation: Tensor): Tensor {
    using rows = this.#rowsOf(activation);
    return this.#device.kernels.gatherRows(rows, this.#counted);
  }

  /** The activation with row `place(i)` of `replacement` in place of the i-th counted row, and the others as they are. */
  #replaced(activation: Tensor, replacement: Tensor, place: (index: number) => number): Tensor {
    const { kernels } = this.#device;
    using rows = this.#rowsOf(activation);
    const count = replacement.shape[0]!;
    using table = this.#device.empty([count + this.#batch.rows, rows.shape[1]!]);
    kernels.copyRows(replacement, table, 0);
    kernels.copyRows(rows, table, count);
    const source = Int32Array.from({ length: this.#batch.rows }, (_, row) => count + row);
    this.#batch.counted.forEach((row, index) => {
      source[row] = place(index);
    });
    using sources = this.#device.tensor(source, [source.length]);
    using result = kernels.gatherRows(table, sources);
    return result.reshape(activation.shape);
  }

  #rowsOf(activation: Tensor): Tensor {
    return activation.reshape([this.#batch.rows, activation.size / this.#batch.rows]);
  }
}

/** [rows, vocabulary] */
async function logitsOf(
  model: HookedTransformer,
  batch: CountedBatch,
  hooks: readonly NamedHook[],
  signal: AbortSignal | undefined,
): Promise<Tensor> {
  using logits = await model.forward(batch.contexts, { hooks, ...(signal === undefined ? {} : { signal }) });
  return logits.reshape([batch.rows, model.config.vocabularySize]);
}
