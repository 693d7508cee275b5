import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { type Evaluation, EvaluationAccumulator, refuseNonFinite } from "../sae/evaluation.js";
import type { Sae } from "../sae/sae.js";
import { type Contexts, contextBatches } from "./contextBatches.js";
import { type HookVariance, HookVarianceAccumulator } from "./hookVariance.js";
import { CountedBatch, ModelRuns, type RunLosses } from "./modelRuns.js";
import { checkContexts, type PairingOptions } from "./pairing.js";
import { type HookChoice, hooksForSae } from "./saeHook.js";

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
  /** Of a crosscoder. */
  readonly explainedVariancePerHook?: readonly HookVariance[];
}

export interface ModelEvaluationOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads, and replaces unless it is a transcoder. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
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
  /**
   * "means" is the first pass over the contexts, for the mean activations; "losses" the second. `tokens` are those whose
   * activations count, as in the reconstruction's metrics.
   */
  readonly onProgress?: (progress: {
    readonly stage: "means" | "losses";
    readonly contexts: number;
    readonly tokens: number;
  }) => void;
}

const sharedOptions: OptionNames<Omit<ModelEvaluationOptions, "sae">> = {
  model: true,
  hook: true,
  contexts: true,
  contextsPerBatch: true,
  keepSpecialTokens: "boolean",
  signal: "signal",
  onProgress: "function",
  allowMismatch: "boolean",
};

/**
 * Evaluates an SAE in its model, as SAELens does (`ce_loss_score`, `kl_div_score`), and with mean ablation besides. The
 * model runs over every context untouched, with the SAE spliced in at its hook point, with zeros there, and with the mean
 * activation there. Cross-entropies are over all positions but the last of each context, divergences over all.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, or if zeroing the hook point does not
 * change the loss (then nothing can be recovered); ERR_NON_FINITE; ERR_ABORTED.
 */
export async function evaluateInModel(options: ModelEvaluationOptions): Promise<ModelEvaluation> {
  checkOptions("evaluateInModel", options, { ...sharedOptions, sae: true });
  const { sae, ...shared } = options;
  const [evaluation] = await evaluateAllInModel({ ...shared, saes: [sae] });
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
  checkOptions("evaluateAllInModel", options, { ...sharedOptions, saes: true });
  const { saes, model, signal, onProgress } = options;
  if (!Array.isArray(saes)) refuseArgument("evaluateAllInModel: saes", "a list of SAEs", saes);
  if (saes.length === 0) return [];
  const hooks = saes.map((sae) => hooksForSae(model, sae, options.hook, options));
  const batches = await countedBatches(options);
  if (!options.allowMismatch) {
    for (const sae of saes) for (const { contexts } of batches) checkContexts(model, sae, contexts);
  }
  const counter = (stage: "means" | "losses"): ((batch: CountedBatch) => void) => {
    let [contexts, tokens] = [0, 0];
    return (batch) => {
      contexts += batch.contexts.length;
      tokens += batch.counted.length;
      onProgress?.({ stage, contexts, tokens });
    };
  };

  const read = [...new Set(hooks.flatMap(({ input, output }) => [...input, ...output]))];
  const means = await meanActivations(model, read, batches, signal, counter("means"));
  const zeros = new Map([...means].map(([hook, row]) => [hook, new Float32Array(row.length)]));
  const clean = new Losses();
  // SAEs that replace the same activations are compared with the same ablations.
  const ablations = new Map(
    hooks.map(({ output }) => [output.join(), { hooks: output, zeroed: new Losses(), averaged: new Losses() }]),
  );
  const spliced = saes.map((sae, index) => ({
    sae,
    hooks: hooks[index]!,
    losses: new Losses(),
    evaluation: new EvaluationAccumulator(sae.device, sae.config.dOut, sae.config.dSae),
    perHook: varianceOf(model, hooks[index]!.output),
  }));
  try {
    const evaluated = counter("losses");
    for (const batch of batches) {
      throwIfAborted(signal, "the evaluation");
      using runs = await ModelRuns.start({ model, batch, hooks: read, signal });
      clean.addCrossEntropy(await runs.cleanCrossEntropy(), batch);
      for (const { hooks: replaced, zeroed, averaged } of ablations.values()) {
        zeroed.add(await runs.ablated(replaced, zeros), batch);
        averaged.add(await runs.ablated(replaced, means), batch);
      }
      for (const { sae, hooks: at, losses, ...measures } of spliced) {
        losses.add(await runs.spliced(sae, at, measures), batch);
      }
      evaluated(batch);
    }
    const contexts = batches.reduce((sum, batch) => sum + batch.contexts.length, 0);
    const evaluations: ModelEvaluation[] = [];
    for (const { hooks: at, losses, evaluation, perHook } of spliced) {
      const compared = compare({ clean, spliced: losses, ...ablations.get(at.output.join())! });
      evaluations.push({
        ...compared,
        contexts,
        reconstruction: await evaluation.read(),
        ...(perHook === undefined ? {} : { explainedVariancePerHook: await perHook.read() }),
      });
    }
    return evaluations;
  } finally {
    for (const { evaluation, perHook } of spliced) {
      evaluation[Symbol.dispose]();
      perHook?.[Symbol.dispose]();
    }
  }
}

/** Of one hook alone the reconstruction's metrics tell it. */
function varianceOf(model: HookedTransformer, hooks: readonly string[]): HookVarianceAccumulator | undefined {
  if (hooks.length === 1) return undefined;
  return new HookVarianceAccumulator(
    model.device,
    hooks.map((name) => ({ name, width: model.hookWidth(name) })),
  );
}

/** @throws MonosemError ERR_CONFIG if there is nothing to predict. */
async function countedBatches({
  model,
  contexts,
  contextsPerBatch = 8,
  keepSpecialTokens = true,
  signal,
}: Omit<ModelEvaluationOptions, "sae">): Promise<CountedBatch[]> {
  const special = keepSpecialTokens ? model.tokenizer.specialTokenIds : new Set<number>();
  const batches: CountedBatch[] = [];
  for await (const batch of contextBatches(contexts, contextsPerBatch, signal)) {
    if (batch.positions < 2) {
      throw new MonosemError("ERR_CONFIG", "a context needs at least 2 tokens: the first predicts the second");
    }
    const counted = new CountedBatch(batch, special);
    if (counted.predictions > 0) batches.push(counted);
  }
  if (batches.length > 0) return batches;
  throw new MonosemError("ERR_CONFIG", "the contexts hold nothing but special tokens: there is no token to evaluate");
}

/** Of one way to run the model: sums over the counted positions of all batches. */
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

  add({ crossEntropy, divergence }: RunLosses, batch: CountedBatch): void {
    this.addCrossEntropy(crossEntropy, batch);
    for (const row of batch.counted) this.#divergence += divergence[row]!;
    this.#positions += batch.counted.length;
  }

  /** @param crossEntropy of every row of the batch */
  addCrossEntropy(crossEntropy: Float32Array, batch: CountedBatch): void {
    for (const row of batch.counted) if (batch.predicts(row)) this.#crossEntropy += crossEntropy[row]!;
    this.#predictions += batch.predictions;
  }
}

function compare({
  hooks,
  clean,
  spliced,
  zeroed,
  averaged,
}: Readonly<Record<"clean" | "spliced" | "zeroed" | "averaged", Losses>> & { readonly hooks: readonly string[] }): Omit<
  ModelEvaluation,
  "contexts" | "reconstruction" | "explainedVariancePerHook"
> {
  const ceClean = clean.meanCrossEntropy;
  const ceSae = spliced.meanCrossEntropy;
  const ceZero = zeroed.meanCrossEntropy;
  const ceMean = averaged.meanCrossEntropy;
  const klDivergence = spliced.meanDivergence;
  const klZero = zeroed.meanDivergence;
  const klMean = averaged.meanDivergence;
  if (ceZero === ceClean) {
    throw new MonosemError(
      "ERR_CONFIG",
      `zeroing hook point "${hooks.join('" and "')}" does not change the loss: nothing to recover`,
    );
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

/** The mean of the counted activations at each hook point, f32 [width]. */
async function meanActivations(
  model: HookedTransformer,
  hooks: readonly string[],
  batches: readonly CountedBatch[],
  signal: AbortSignal | undefined,
  counted: (batch: CountedBatch) => void,
): Promise<ReadonlyMap<string, Float32Array>> {
  const { device } = model;
  const widths = hooks.map((hook) => model.hookWidth(hook));
  using sums = device.zeros([widths.reduce((total, width) => total + width, 0)], "f64");
  for (const batch of batches) {
    throwIfAborted(signal, "the evaluation");
    using all = await model.activations(batch.contexts, hooks);
    using rows = device.tensor(batch.counted, [batch.counted.length]);
    using activations = device.kernels.gatherRows(all, rows);
    device.kernels.accumulateColumnSums(activations, sums);
    await device.synchronize(); // no more than one batch on the device
    counted(batch);
  }
  const rows = batches.reduce((sum, batch) => sum + batch.counted.length, 0);
  const means = Float32Array.from(await sums.read(), (sum) => sum / rows);
  const end = (index: number): number => widths.slice(0, index + 1).reduce((total, width) => total + width, 0);
  return new Map(hooks.map((hook, index) => [hook, means.slice(end(index) - widths[index]!, end(index))]));
}
