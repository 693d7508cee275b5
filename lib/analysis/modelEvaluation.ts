import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Hook, HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { type ContextBatch, type Contexts, contextBatches } from "./contextBatches.js";
import { hookForSae } from "./saeHook.js";

/** How well the model still predicts text when the SAE's reconstruction takes the place of the activation. */
export interface ModelEvaluation {
  /** Mean cross-entropy of the untouched model, in nats per token. */
  readonly ceClean: number;
  /** The same with the SAE's reconstruction at the hook point. */
  readonly ceSae: number;
  /** The same with zeros at the hook point. */
  readonly ceZero: number;
  /** (ceZero - ceSae) / (ceZero - ceClean): 1 if the reconstruction costs nothing, 0 if it is no better than zeros. */
  readonly lossRecovered: number;
  /** Mean KL(clean || with SAE) of the next-token distributions, in nats. */
  readonly klDivergence: number;
  /** Predicted tokens that the means are over. */
  readonly tokens: number;
}

export interface ModelEvaluationOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE replaces. Default: the one in the SAE's metadata. */
  readonly hook?: string;
  readonly contexts: Contexts;
  /** Contexts that go through the model at once. Default 8; three [tokens, vocabulary] logits are held at a time. */
  readonly contextsPerBatch?: number;
  /**
   * Leave the activations of special tokens (BOS and the like) as they are, in the SAE run and in the zero run alike.
   * An SAE that was trained without them cannot reconstruct them. Default true.
   */
  readonly keepSpecialTokens?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly contexts: number; readonly tokens: number }) => void;
}

/**
 * Loss recovered, as in SAELens (`ce_loss_score`): the model runs three times over every context, untouched, with the
 * SAE spliced in at its hook point, and with zeros there. Means are over all positions but the last of each context.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, or if zeroing the hook point does not
 * change the loss (then nothing can be recovered); ERR_NON_FINITE; ERR_ABORTED.
 */
export async function evaluateInModel(options: ModelEvaluationOptions): Promise<ModelEvaluation> {
  const { sae, model, contextsPerBatch = 8, keepSpecialTokens = true, signal } = options;
  const hook = hookForSae(model, sae, options.hook);
  const special = keepSpecialTokens ? model.tokenizer.specialTokenIds : new Set<number>();
  const sums = { clean: 0, sae: 0, zero: 0, kl: 0 };
  let tokens = 0;
  let contexts = 0;
  for await (const batch of contextBatches(options.contexts, contextsPerBatch, signal)) {
    if (batch.positions < 2) {
      throw new MonosemError("ERR_CONFIG", "a context needs at least 2 tokens: the first predicts the second");
    }
    const losses = await lossesOfBatch(model, sae, hook, batch, special);
    for (const [name, values] of Object.entries(losses) as [keyof typeof sums, Float32Array][]) {
      sums[name] += sumOfPredictions(values, batch.positions);
    }
    tokens += batch.contexts.length * (batch.positions - 1);
    contexts += batch.contexts.length;
    options.onProgress?.({ contexts, tokens });
  }
  const [ceClean, ceSae, ceZero] = [sums.clean / tokens, sums.sae / tokens, sums.zero / tokens];
  const klDivergence = sums.kl / tokens;
  for (const [name, value] of Object.entries({ ceClean, ceSae, ceZero, klDivergence })) {
    if (!Number.isFinite(value))
      throw new MonosemError("ERR_NON_FINITE", `${name} at hook point "${hook}" is ${value}`);
  }
  if (ceZero === ceClean) {
    throw new MonosemError("ERR_CONFIG", `zeroing hook point "${hook}" does not change the loss: nothing to recover`);
  }
  return { ceClean, ceSae, ceZero, lossRecovered: (ceZero - ceSae) / (ceZero - ceClean), klDivergence, tokens };
}

/** The hook that puts the SAE's reconstruction in the activation's place, except in rows where `replaced` is 0. */
export function spliceHook(sae: Sae, replaced?: Tensor): Hook {
  return (activation) => {
    const { kernels } = sae.device;
    using rows = activation.reshape([activation.size / sae.config.dIn, sae.config.dIn]);
    using reconstruction = sae.reconstruct(rows);
    if (replaced === undefined) return reconstruction.reshape(activation.shape);
    // x + replaced * (reconstruction - x): with `replaced` 0 exactly x.
    using difference = kernels.add(reconstruction, rows, { scale: -1 });
    kernels.scaleRows(difference, replaced, { out: difference });
    kernels.add(rows, difference, { out: difference });
    return difference.reshape(activation.shape);
  };
}

/** The hook that zeroes the activation, except in rows where `replaced` is 0. */
function zeroHook(width: number, replaced: Tensor): Hook {
  return (activation) => {
    const { kernels } = replaced.device;
    using rows = activation.reshape([activation.size / width, width]);
    using removed = kernels.scaleRows(rows, replaced);
    using rest = kernels.add(rows, removed, { scale: -1 });
    return rest.reshape(activation.shape);
  };
}

interface BatchLosses {
  readonly clean: Float32Array;
  readonly sae: Float32Array;
  readonly zero: Float32Array;
  readonly kl: Float32Array;
}

async function lossesOfBatch(
  model: HookedTransformer,
  sae: Sae,
  hook: string,
  batch: ContextBatch,
  special: ReadonlySet<number>,
): Promise<BatchLosses> {
  const { device } = model;
  const { kernels } = device;
  const rows = batch.contexts.length * batch.positions;
  const logitsOf = async (hooks: readonly { name: string; hook: Hook }[]): Promise<Tensor> => {
    using logits = await model.forward(batch.contexts, { hooks });
    return logits.reshape([rows, model.config.vocabularySize]);
  };
  using targets = device.tensor(nextTokens(batch), [rows]);
  using replaced = device.tensor(
    Float32Array.from(
      batch.contexts.flatMap((tokens) => Array.from(tokens)),
      (token) => (special.has(token) ? 0 : 1),
    ),
    [rows],
  );
  using clean = await logitsOf([]);
  using withSae = await logitsOf([{ name: hook, hook: spliceHook(sae, replaced) }]);
  using withZeros = await logitsOf([{ name: hook, hook: zeroHook(sae.config.dIn, replaced) }]);
  using ceClean = kernels.crossEntropy(clean, targets);
  using ceSae = kernels.crossEntropy(withSae, targets);
  using ceZero = kernels.crossEntropy(withZeros, targets);
  using kl = kernels.klDivergence(clean, withSae);
  const [cleanLoss, saeLoss, zeroLoss, divergence] = await Promise.all([
    ceClean.readFloat32(),
    ceSae.readFloat32(),
    ceZero.readFloat32(),
    kl.readFloat32(),
  ]);
  return { clean: cleanLoss, sae: saeLoss, zero: zeroLoss, kl: divergence };
}

/** What each position should predict; -1, which counts as no loss, at the last. */
function nextTokens(batch: ContextBatch): Int32Array {
  const targets = new Int32Array(batch.contexts.length * batch.positions).fill(-1);
  batch.contexts.forEach((context, index) => {
    targets.set(context.subarray(1), index * batch.positions);
  });
  return targets;
}

function sumOfPredictions(values: Float32Array, positions: number): number {
  let sum = 0;
  values.forEach((value, row) => {
    if (row % positions !== positions - 1) sum += value;
  });
  return sum;
}
