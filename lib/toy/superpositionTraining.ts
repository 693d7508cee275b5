import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { Device } from "../engine/device.js";
import { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { expectedLosses } from "./superpositionLoss.js";
import type {
  SuperpositionModel,
  SuperpositionOutput,
  SuperpositionShape,
  SuperpositionTask,
} from "./superpositionModel.js";
import { type PackTask, SuperpositionPack } from "./superpositionPack.js";

export interface SuperpositionTrainingOptions {
  readonly device: Device;
  /** n */
  readonly features: number;
  /** m */
  readonly dimensions: number;
  /** Default: "relu". */
  readonly output?: SuperpositionOutput | undefined;
  /** One model is trained for each. */
  readonly tasks: readonly SuperpositionTask[];
  /** Models trained for each task, from different weights; the one with the lowest expected loss is kept. Default: 1. */
  readonly attempts?: number | undefined;
  /** Default: 10,000, as in the paper's notebook; so are the following. */
  readonly steps?: number | undefined;
  /** Inputs per step. Default: 1024. */
  readonly batchSize?: number | undefined;
  /** Of AdamW, constant. Default: 1e-3. */
  readonly learningRate?: number | undefined;
  /** Of AdamW. Default: 0.01. */
  readonly weightDecay?: number | undefined;
  /** Of weights and inputs. Default: 0. */
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SuperpositionProgress) => void) | undefined;
}

export interface SuperpositionProgress {
  /** Steps done by all models, of `steps`. */
  readonly step: number;
  readonly steps: number;
  /** Of the latest batch, the mean over all models. */
  readonly loss: number;
}

/** Packs are filled up to so many features: beyond it, the zeros between the models cost more than calls. */
const FEATURES_PER_PACK = 64;

/** Steps of packs that are queued between two looks at the signal: some ten milliseconds of work. */
const QUEUED_PACK_STEPS = 64;

const ADAM = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

const optionNames: OptionNames<SuperpositionTrainingOptions> = {
  device: true,
  features: true,
  dimensions: true,
  output: { relu: true, linear: true },
  tasks: true,
  attempts: true,
  steps: true,
  batchSize: true,
  learningRate: true,
  weightDecay: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Trains toy models of superposition, all at the same time, each on inputs drawn anew for every step. Features that are
 * active more rarely than one at a time are drawn more often than they occur, and the loss is weighted so that its
 * expectation stays the same. The same options give the same models, bit for bit, on the CPU. All models see the same inputs but for their sparsity; they start from
 * different weights, which depend on their place in `tasks`.
 *
 * @throws {MonosemError} (rejects) ERR_INVALID_ARGUMENT and ERR_SHAPE_MISMATCH for options that do not fit, ERR_ABORTED
 * when the signal fires, ERR_NON_FINITE when the training diverges.
 */
export async function trainSuperposition(
  options: SuperpositionTrainingOptions,
): Promise<readonly SuperpositionModel[]> {
  checkOptions("trainSuperposition", options, optionNames);
  const settings = requireSettings(options);
  const { device, shape, attempts, random, signal } = settings;
  const tasks = settings.tasks.flatMap((task) => Array.from({ length: attempts }, () => task));
  const modelsPerPack = Math.max(1, Math.floor(FEATURES_PER_PACK / shape.features));
  const packs: SuperpositionPack[] = [];
  try {
    for (let first = 0; first < tasks.length; first += modelsPerPack) {
      const own = tasks.slice(first, first + modelsPerPack);
      packs.push(new SuperpositionPack(device, shape, own.map(withDrawnSparsity), random));
    }
    await trainPacks(packs, settings);
    const losses = await expectedLosses(packs, { device, features: shape.features, tasks, random, signal });
    const parameters = (await Promise.all(packs.map((pack) => pack.read()))).flat();
    const models = tasks.map((task, index) => ({ ...shape, ...task, ...parameters[index]!, loss: losses[index]! }));
    return settings.tasks.map((_, task) => bestOf(models.slice(task * attempts, (task + 1) * attempts)));
  } finally {
    for (const pack of packs) pack.dispose();
  }
}

/**
 * Sparser features are drawn as often as if one were active on average, and the loss is weighted accordingly: at a
 * density of 0.01, two of three features are active together in 3 of 10,000 inputs, too few to learn from.
 */
function withDrawnSparsity(task: SuperpositionTask): PackTask {
  return { ...task, drawnSparsity: Math.min(task.sparsity, 1 - 1 / Math.max(2, task.importance.length)) };
}

interface Settings {
  readonly device: Device;
  readonly shape: SuperpositionShape;
  readonly tasks: readonly SuperpositionTask[];
  readonly attempts: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly random: RandomGenerator;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: SuperpositionProgress) => void) | undefined;
}

async function trainPacks(packs: readonly SuperpositionPack[], settings: Settings): Promise<void> {
  const { device, batchSize, steps, learningRate, weightDecay, signal, onProgress } = settings;
  const stepsPerReport = Math.max(1, Math.floor(QUEUED_PACK_STEPS / packs.length));
  const models = packs.reduce((sum, pack) => sum + pack.models, 0);
  using lossSum = device.zeros([1], "f64");
  for (let step = 1; step <= steps; step++) {
    const report = step % stepsPerReport === 0 || step === steps;
    using u = draw(packs, settings);
    for (const pack of packs) {
      using x = pack.inputs(u);
      using gradients = pack.gradients(x, report ? lossSum : undefined);
      pack.step(gradients, { ...ADAM, learningRate, step }, weightDecay);
    }
    if (!report) continue;
    const loss = (await lossSum.readScalar()) / batchSize / models;
    if (!Number.isFinite(loss)) {
      throw new MonosemError(
        "ERR_NON_FINITE",
        `the training of toy models diverged: the loss is ${loss} after ${step} steps; lower the learning rate (${learningRate})`,
      );
    }
    throwIfAborted(signal, "the training of toy models");
    onProgress?.({ step, steps, loss });
    lossSum.write(new Float64Array(1));
  }
}

/**
 * Numbers uniform in [0, 1) for the inputs of all packs, [batch, features of the widest]. They are the same for every
 * model, so that sparsities are compared, and the best of the attempts chosen, on the same inputs.
 */
function draw(packs: readonly SuperpositionPack[], { device, shape, batchSize, random }: Settings): Tensor {
  const models = Math.max(...packs.map((pack) => pack.models));
  using own = device.empty([batchSize, shape.features]);
  random.uniform(own, 0, 1);
  const all = device.empty([batchSize, models * shape.features]);
  for (let model = 0; model < models; model++) device.kernels.copyColumns(own, all, model * shape.features);
  return all;
}

function bestOf([first, ...others]: readonly SuperpositionModel[]): SuperpositionModel {
  return others.reduce((best, model) => (model.loss < best.loss ? model : best), first!);
}

function requireSettings(options: SuperpositionTrainingOptions): Settings {
  const { device, features, dimensions, output = "relu", tasks, signal, onProgress, seed = 0 } = options;
  const { attempts = 1, steps = 10_000, batchSize = 1024, learningRate = 1e-3, weightDecay = 0.01 } = options;
  for (const [name, value] of Object.entries({ features, dimensions, attempts, steps, batchSize })) {
    if (!Number.isSafeInteger(value) || value < 1) refuse(`${name} must be a positive integer, found ${value}`);
  }
  if (!(learningRate > 0 && Number.isFinite(learningRate)))
    refuse(`learningRate must be positive, found ${learningRate}`);
  if (!(weightDecay >= 0 && Number.isFinite(weightDecay))) refuse(`weightDecay must be >= 0, found ${weightDecay}`);
  if (tasks.length === 0) refuse("tasks is empty: there is no model to train");
  for (const [index, { sparsity, importance }] of tasks.entries()) {
    if (!(sparsity >= 0 && sparsity < 1)) refuse(`tasks[${index}].sparsity must be in [0, 1), found ${sparsity}`);
    if (importance.length !== features) {
      const message = `tasks[${index}].importance must have an entry for each of ${features} features, found ${importance.length}`;
      throw new MonosemError("ERR_SHAPE_MISMATCH", `trainSuperposition: ${message}`);
    }
    for (const value of importance) {
      if (!(value >= 0 && Number.isFinite(value))) refuse(`tasks[${index}].importance must be >= 0, found ${value}`);
    }
  }
  return {
    device,
    shape: { features, dimensions, output },
    tasks,
    attempts,
    steps,
    batchSize,
    learningRate,
    weightDecay,
    random: new RandomGenerator(seed),
    signal,
    onProgress,
  };
}

function refuse(message: string): never {
  throw new MonosemError("ERR_INVALID_ARGUMENT", `trainSuperposition: ${message}`);
}
