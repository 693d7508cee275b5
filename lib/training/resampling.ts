/**
 * Resampling: dead latents get new weights, taken from inputs that the SAE reconstructs badly.
 *
 * For every dead latent a token t of the batch is drawn, without replacement, with probability proportional to |r_t|²,
 * r the reconstruction's error. Its latent becomes
 *
 *     decoder row = (target_t - b_dec) / |.| times the mean norm of the decoder rows of living latents (1 where rows are
 *                   kept at norm 1)
 *     encoder row = input_t / |.| times 0.2 times the mean norm of the encoder rows of living latents
 *
 * with everything else of it (biases, threshold) as at the start of the training, moments of the optimizer 0, and alive
 * until it has been silent for `deadAfterTokens` tokens once more. Small encoder rows, so that the latent fires a little
 * and what the others have learnt stays; where latents compete for few places (TopK, BatchTopK with a small k), rows so
 * small seldom win one, and AuxK does more.
 *
 * Bricken et al. 2023, "Towards Monosemanticity", appendix "Neuron Resampling"; they square the whole loss of a token,
 * the penalty included, over a sample of its own. dictionary_learning draws by |r| and, in its p-annealing and gated
 * trainers, assigns the new rows to a copy, so that nothing changes.
 */
import type { Moments } from "../engine/kernels.js";
import { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import type { ParameterSpecification, TrainingStep } from "../sae/architecture.js";
import { architectureNamed } from "../sae/architectures.js";
import type { SaeTrainingConfig } from "../sae/config.js";
import type { DeadLatents } from "./deadLatents.js";

/** Of the norm of living latents' encoder rows. */
const encoderNormFraction = 0.2;

export interface ResamplingOptions {
  readonly config: SaeTrainingConfig;
  readonly moments: ReadonlyMap<string, Moments>;
  readonly dead: DeadLatents;
  readonly seed: number;
}

/** Whether dead latents are resampled before a step (0-based): every `resampleEvery` steps, with a trained SAE. */
export function isResampled({ resampleEvery = 0 }: SaeTrainingConfig, step: number): boolean {
  return resampleEvery > 0 && step > 0 && step % resampleEvery === 0;
}

/**
 * Gives the latents that are dead before a step new weights from its batch; where the batch has fewer tokens that can be
 * drawn, the last ones stay dead. Waits for the device. What is drawn depends on seed and step alone.
 *
 * @param step the step's forward pass with the weights as they are
 * @throws MonosemError what work queued before failed with; nothing is changed then.
 */
export async function resampleDeadLatents(
  step: TrainingStep & { readonly residual: Tensor },
  { config, moments, dead, seed }: ResamplingOptions,
): Promise<void> {
  const { device, kernels, parameters: p, input, residual, keep } = step;
  const deadLatents = await dead.read();
  if (deadLatents.length === 0) return;

  const target = keep(kernels.addRow(step.target, p.decoderBias, { scale: -1 }));
  const [errors, inputNorms, targetNorms, encoderNorms, decoderNorms] = await Promise.all(
    [residual, input, target, p.encoder, p.decoder].map((rows) => keep(kernels.rowNorms(rows)).readFloat32()),
  );
  const weights = Array.from(errors!, (error, t) => (inputNorms![t]! > 0 && targetNorms![t]! > 0 ? error ** 2 : 0));
  const tokens = drawWithoutReplacement(weights, await uniformNumbers(step, seed), deadLatents.length);
  if (tokens.length === 0) return;
  const latents = deadLatents.subarray(0, tokens.length);
  await dead.revive(latents); // the last thing that can fail

  const from = keep(device.tensor(tokens, [tokens.length]));
  const to = keep(device.tensor(Int32Array.from(latents), [tokens.length]));
  const directions = (rows: Tensor, norm: number): Tensor => {
    const drawn = keep(kernels.gatherRows(rows, from));
    return kernels.normaliseRows(drawn, norm, { out: drawn });
  };
  const constant = (width: number, value: number): Tensor => {
    const rows = keep(device.empty([tokens.length, width]));
    kernels.fill(rows, value);
    return rows;
  };
  const replace = (parameter: Tensor, rows: (width: number) => Tensor): void => {
    const [dSae, width = 1] = parameter.shape as [number, number?];
    kernels.scatterRows(rows(width), to, keep(parameter.reshape([dSae, width])));
  };

  const encoderRows = directions(input, encoderNormFraction * meanOfLiving(encoderNorms!, deadLatents));
  const decoderNorm = config.decoderUnitNorm ? 1 : meanOfLiving(decoderNorms!, deadLatents);
  const own = ownParameters(config);
  replace(p.encoder, () => encoderRows);
  replace(p.decoder, () => directions(target, decoderNorm));
  for (const [name, initial] of own) {
    replace(p[name]!, (width) => (initial === "encoder" ? encoderRows : constant(width, initial)));
  }
  for (const name of ["encoder", "decoder", ...own.keys()]) {
    const { m, v } = moments.get(name)!;
    for (const moment of [m, v]) replace(moment, (width) => constant(width, 0));
  }
}

/** What the architecture's own parameters start as, by name; without those that it sets itself after every step. */
function ownParameters(config: SaeTrainingConfig): ReadonlyMap<string, number | "encoder"> {
  const specifications: Readonly<Record<string, ParameterSpecification<object>>> = architectureNamed(
    config.architecture,
  ).parameters;
  return new Map(
    Object.entries(specifications)
      .filter(([, { trained = true }]) => trained)
      .map(([name, { initial }]) => [name, typeof initial === "function" ? initial(config) : initial]),
  );
}

/** One number in [0, 1) per token of the batch. */
async function uniformNumbers({ device, tokens, step, keep }: TrainingStep, seed: number): Promise<Float32Array> {
  // far behind the draws of the initial weights, and further from step to step than a batch is long
  const generator = new RandomGenerator(seed, 2 ** 52 + step * 2 ** 21);
  const numbers = keep(device.empty([tokens]));
  generator.uniform(numbers, 0, 1);
  return numbers.readFloat32();
}

/**
 * Up to `count` places, each next one with probability proportional to its weight among those that are left: the largest
 * of log(u_i) / w_i (Efraimidis and Spirakis 2006). Places of weight 0 are never drawn.
 */
function drawWithoutReplacement(weights: readonly number[], uniform: Float32Array, count: number): Int32Array {
  const keys = Array.from(uniform, (number, i) => Math.log(number) / weights[i]!);
  const candidates = [...keys.keys()].filter((i) => weights[i]! > 0);
  return Int32Array.from(candidates.sort((a, b) => keys[b]! - keys[a]! || a - b).slice(0, count));
}

/** The mean over the latents that are not dead; over all where none lives. */
function meanOfLiving(norms: Float32Array, deadLatents: Uint32Array): number {
  const excluded = new Set(deadLatents.length < norms.length ? deadLatents : []);
  const living = norms.filter((_, latent) => !excluded.has(latent));
  return living.reduce((sum, norm) => sum + norm, 0) / living.length;
}
