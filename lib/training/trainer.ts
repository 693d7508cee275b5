/**
 * The training loop. A step: encode, count firing, gradients, global norm, clipped Adam on rows. It only enqueues work on
 * the device; numbers are read back when they are logged, and at most two steps are queued ahead of the device.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { ActivationSource, Json } from "../activations/source.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import {
  type ConfiguredTraining,
  type Gradients,
  type Loss,
  parameterNames,
  type SaeParameters,
} from "../sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig, trainingOf } from "../sae/config.js";
import { parameterGradients } from "../sae/gradients.js";
import { type Metrics, MetricsAccumulator } from "../sae/metrics.js";
import { Sae, type SaeMetadata } from "../sae/sae.js";
import { type Checkpoint, type CheckpointArray, readLatestCheckpoint, writeCheckpoint } from "./checkpoint.js";
import type { TrainingConfig } from "./config.js";
import { DeadLatents } from "./deadLatents.js";
import { measureInputs } from "./inputStatistics.js";
import { isLogged, MetricsLog } from "./metricsLog.js";
import { Optimizer } from "./optimizer.js";
import { learningRate, warmup } from "./schedules.js";

export interface TrainerOptions {
  readonly sae: SaeTrainingConfig;
  readonly training: TrainingConfig;
  /** Remains the caller's to dispose. */
  readonly source: ActivationSource;
  readonly device: Device;
  /** Folder for `sae/`, `metrics.jsonl`, `config.json` and `checkpoints/`; without it nothing is written. */
  readonly output?: string | undefined;
  /** Continue the run in `output` from its newest checkpoint, or start it when there is none yet. */
  readonly resume?: boolean | undefined;
  /** Saved with the SAE. */
  readonly metadata?: SaeMetadata | undefined;
  /** What `output/config.json` records; by default `sae` and `training`. */
  readonly runConfig?: object | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is logged of one step, and written as a line of metrics.jsonl. All of it is about that step's batch. */
export interface TrainingProgress {
  /** Steps finished. */
  readonly step: number;
  /** Tokens trained on. */
  readonly tokens: number;
  /** The sum of `losses`. They are summed over dIn and averaged over tokens, in the scale that the SAE is trained in. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  readonly l0: number;
  /** In the scale of the activations themselves, as `evaluate` gives it. */
  readonly mse: number;
  readonly fvu: number;
  readonly explainedVariance: number;
  readonly cosine: number;
  /** Fraction of the latents that have not fired for `deadAfterTokens` tokens. */
  readonly deadFraction: number;
  readonly densityHistogram: Metrics["densityHistogram"];
  readonly learningRate: number;
  /** Global L2 norm of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** The device works on one step while the next waits; more would only delay an abort and take memory. */
const stepsAhead = 2;

export class Trainer {
  /** The SAE; in the scale of the activations once `run` has ended, in the scaled one (if any) until then. */
  readonly sae: Sae;
  readonly #options: TrainerOptions;
  readonly #architecture: ConfiguredTraining;
  readonly #optimizer: Optimizer;
  readonly #dead: DeadLatents;
  readonly #inputScale: number;
  #step: number;
  #tokens: number;
  #savedStep: number | undefined;
  #state: "ready" | "running" | "ended" = "ready";

  private constructor(
    options: TrainerOptions,
    start: { sae: Sae; inputScale: number; checkpoint?: Checkpoint | undefined },
  ) {
    const { sae, inputScale, checkpoint } = start;
    const { device } = options;
    this.#options = options;
    this.sae = sae;
    this.#inputScale = inputScale;
    this.#architecture = trainingOf(options.sae);
    this.#optimizer = new Optimizer(sae.parameters, device, {
      ...options.training,
      decoderUnitNorm: options.sae.decoderUnitNorm,
    });
    this.#step = checkpoint?.step ?? 0;
    this.#tokens = checkpoint?.tokens ?? 0;
    this.#savedStep = checkpoint?.step;
    const counters = checkpoint && {
      data: arrayOf(checkpoint, "tokensSinceFired") as Float64Array,
      tokensSeen: this.#tokens,
    };
    this.#dead = new DeadLatents(device, options.sae.dSae, options.sae.deadAfterTokens, counters);
    if (checkpoint) {
      for (const name of parameterNames) {
        const { m, v } = this.#optimizer.moments[name];
        m.write(arrayOf(checkpoint, `${name}.m`));
        v.write(arrayOf(checkpoint, `${name}.v`));
      }
    }
  }

  /**
   * Prepares a run: a new SAE (or `sae.init`), with the input scale and the geometric median measured on the source's
   * first activations where the configuration asks for them; or the state of the newest checkpoint, with `resume`.
   *
   * @throws MonosemError ERR_CONFIG when source, `init` or checkpoint do not fit the configuration, or when `output`
   *   holds something already and `resume` is not set; ERR_FORMAT when every checkpoint is damaged; those of
   *   `Sae.load` for `init`; ERR_IO.
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { sae: config, source, output, resume = false } = options;
    if (source.dIn !== config.dIn) {
      throw new MonosemError("ERR_CONFIG", `sae.dIn is ${config.dIn}, but the activations are ${source.dIn} wide`);
    }
    if (output !== undefined) await prepareOutput(output, resume);
    const checkpoint = output !== undefined && resume ? await readLatestCheckpoint(checkpointsIn(output)) : undefined;
    const start = checkpoint ? await resumed(options, checkpoint) : await begun(options);
    if (output !== undefined) {
      const { sae, training } = options;
      const record = options.runConfig ?? { sae, training };
      await writeFileAtomically(join(output, "config.json"), `${JSON.stringify(record, null, 2)}\n`);
    }
    return new Trainer(options, { ...start, checkpoint });
  }

  /** Steps finished so far. */
  get step(): number {
    return this.#step;
  }

  /**
   * Trains, yielding what is logged every `logEvery` steps and at the last one. Ends with a checkpoint and the SAE in
   * `output/sae`. Can be called once.
   *
   * A step is never interrupted: the signal is looked at between steps, a checkpoint is written, then ERR_ABORTED is
   * thrown. A consumer that leaves the loop early leaves the run as it is at its last checkpoint.
   *
   * @throws MonosemError ERR_ABORTED; ERR_NON_FINITE naming the step in which the loss or a weight stopped being a
   *   number; ERR_CONFIG when the activations end before the last step; ERR_IO when the file system refuses.
   */
  async *run({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<TrainingProgress, void, undefined> {
    if (this.#state !== "ready") throw new MonosemError("ERR_INVALID_ARGUMENT", "a trainer runs once; create another");
    this.#state = "running";
    const { training, output } = this.#options;
    const { steps, logEvery, checkpointEvery } = training;
    const log =
      output === undefined
        ? undefined
        : await MetricsLog.open(join(output, "metrics.jsonl"), { step: this.#step, steps, logEvery });
    const queued: Promise<void>[] = [];
    try {
      while (this.#step < steps) {
        if (signal?.aborted) {
          await this.#checkpoint(log);
          const where = output === undefined ? "" : `; continue with resume from ${output}`;
          throw new MonosemError("ERR_ABORTED", `training was aborted after step ${this.#step}${where}`, {
            cause: signal.reason,
          });
        }
        const logged = await this.#trainStep(isLogged(this.#step + 1, training));
        if (logged !== undefined) {
          await log?.append(logged);
          yield logged;
        }
        queued.push(this.#queuedWork());
        if (queued.length >= stepsAhead) await queued.shift();
        if (this.#step % checkpointEvery === 0) await this.#checkpoint(log);
      }
      await this.#checkpoint(log);
      this.sae.foldInputScale(this.#inputScale);
      if (output !== undefined) await this.sae.save(join(output, "sae"));
      this.#state = "ended";
    } finally {
      await log?.close();
    }
  }

  /** Frees the optimizer's state. The SAE remains, for its user to dispose. */
  dispose(): void {
    this.#optimizer.dispose();
    this.#dead.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** One step, enqueued; what is logged of it, when it is. */
  async #trainStep(logged: boolean): Promise<TrainingProgress | undefined> {
    const { source, sae: config, training, device } = this.#options;
    const { kernels } = device;
    const { parameters } = this.sae;
    const step = this.#step;
    using scope = new Scope();
    const keep = scope.keep.bind(scope);

    const x = keep(await this.#nextBatch(source, training.batchSize));
    if (this.#inputScale !== 1) kernels.scale(x, this.#inputScale, { out: x });
    const input = config.applyBDecToInput ? keep(kernels.addRow(x, parameters.decoderBias, { scale: -1 })) : x;
    const codes = keep(this.#architecture.encode({ kernels, parameters }, input));
    this.#dead.record(codes);
    const deadLatents = this.#dead.current();
    if (deadLatents) keep(deadLatents);

    const gradientStep = {
      device,
      kernels,
      parameters,
      x,
      input,
      tokens: codes.rows,
      codes,
      deadLatents,
      decoderUnitNorm: config.decoderUnitNorm,
      sparsityScale: warmup(step, training.l1WarmupSteps),
      keep,
    };
    const gradients = this.#architecture.gradients(gradientStep);
    const rows = parameterGradients(gradientStep, gradients, config.applyBDecToInput);
    const norm = training.clipGradNorm !== null || logged ? keep(this.#optimizer.norm(rows)) : undefined;
    const rate = learningRate(training, step, training.steps);
    this.#optimizer.step(rows, norm, step, rate);
    this.#step = step + 1;
    this.#tokens += codes.rows;
    if (!logged || norm === undefined) return undefined;

    using metrics = new MetricsAccumulator(device, config.dIn, config.dSae);
    metrics.add(x, gradients.residual, codes);
    return await this.#namingStep(async () => {
      const losses = await readLosses(gradients);
      const loss = Object.values(losses).reduce((sum, value) => sum + value, 0);
      if (!Number.isFinite(loss)) throw new MonosemError("ERR_NON_FINITE", `the loss is ${JSON.stringify(losses)}`);
      const { tokens: _, mse, deadFraction: __, ...rest } = await metrics.read();
      const dead = deadLatents === undefined ? 0 : (await deadLatents.read()).length;
      return {
        step: this.#step,
        tokens: this.#tokens,
        loss,
        losses,
        mse: mse / this.#inputScale ** 2,
        ...rest,
        deadFraction: dead / config.dSae,
        learningRate: rate,
        gradientNorm: Math.sqrt(await norm.squared.readScalar()),
      };
    });
  }

  async #nextBatch(source: ActivationSource, batchSize: number): Promise<Tensor> {
    const batch = await source.next(batchSize);
    if (batch === undefined) {
      throw new MonosemError(
        "ERR_CONFIG",
        `the activations ended after ${this.#tokens} tokens, step ${this.#step} of ${this.#options.training.steps}: ` +
          "ask for fewer steps, or give more activations",
      );
    }
    return batch;
  }

  /** Settles when the device has done what is queued so far. */
  #queuedWork(): Promise<void> {
    const done = this.#namingStep(() => this.#options.device.synchronize());
    done.catch(() => undefined); // it is awaited steps later; until then its failure is not unhandled
    return done;
  }

  async #namingStep<T>(work: () => Promise<T>): Promise<T> {
    const step = this.#step;
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof MonosemError && error.code === "ERR_NON_FINITE")) throw error;
      throw new MonosemError(
        "ERR_NON_FINITE",
        `training stopped being finite at step ${step}: ${error.message.replace(/\.$/, "")}. If the activations are finite, lower the ` +
          "learning rate or clip the gradient",
        { cause: error },
      );
    }
  }

  async #checkpoint(log: MetricsLog | undefined): Promise<void> {
    const { output, source, device } = this.#options;
    if (output === undefined || this.#savedStep === this.#step) return;
    await this.#namingStep(() => device.synchronize());
    const arrays: Record<string, CheckpointArray> = {};
    for (const name of parameterNames) {
      const { m, v } = this.#optimizer.moments[name];
      for (const [key, tensor] of Object.entries({
        [name]: this.sae.parameters[name],
        [`${name}.m`]: m,
        [`${name}.v`]: v,
      })) {
        const data = await tensor.readFloat32();
        await this.#namingStep(async () => refuseNonFinite(data, key));
        arrays[key] = { shape: tensor.shape, data };
      }
    }
    const { tokensSinceFired } = this.#dead;
    arrays.tokensSinceFired = {
      shape: tokensSinceFired.shape,
      data: (await tokensSinceFired.read()) as Float64Array,
    };
    await log?.flush(); // lines up to a checkpoint must survive whatever the checkpoint survives
    await writeCheckpoint(checkpointsIn(output), {
      step: this.#step,
      tokens: this.#tokens,
      inputScale: this.#inputScale,
      configuration: sharedConfiguration(this.#options),
      arrays,
      source: await source.saveState(),
    });
    this.#savedStep = this.#step;
  }
}

/** Handles that live for one step. Disposing them while their work is queued is fine: the queue holds the memory. */
class Scope {
  readonly #handles: Disposable[] = [];

  keep<T extends Disposable>(handle: T): T {
    this.#handles.push(handle);
    return handle;
  }

  [Symbol.dispose](): void {
    for (const handle of this.#handles) handle[Symbol.dispose]();
  }
}

async function readLosses({ losses }: Gradients): Promise<Record<string, number>> {
  const values = await Promise.all(Object.values(losses).map(readLoss));
  return Object.fromEntries(Object.keys(losses).map((name, i) => [name, values[i]!]));
}

async function readLoss({ sum, scale, latents }: Loss): Promise<number> {
  if (latents !== undefined && (await latents.read()).length === 0) return 0;
  return scale * (await sum.readScalar());
}

function checkpointsIn(output: string): string {
  return join(output, "checkpoints");
}

async function prepareOutput(output: string, resume: boolean): Promise<void> {
  try {
    await makeDirectory(output);
    if (!resume && (await readdir(output)).length > 0) {
      throw new MonosemError(
        "ERR_CONFIG",
        `the output folder ${output} is not empty: resume the run in it, remove it, or choose another`,
      );
    }
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    throw new MonosemError("ERR_IO", `cannot use the output folder ${output}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The start of a new run. */
async function begun(options: TrainerOptions): Promise<{ sae: Sae; inputScale: number }> {
  const { sae: config, source, training, device, metadata, signal } = options;
  const scaled = config.normalizeActivations === "expected-average-only-in";
  const wantsMedian = config.bDecInit === "geometric-median" && config.init === undefined;
  const measured =
    scaled || wantsMedian
      ? await measureInputs(source, device, {
          batchSize: training.batchSize,
          median: wantsMedian,
          ...(signal === undefined ? {} : { signal }),
        })
      : undefined;
  const inputScale = scaled ? Math.sqrt(config.dIn) / measured!.meanNorm : 1;

  const sae =
    config.init === undefined
      ? Sae.create(parseSaeConfig(config), device, training.seed, {
          ...(config.decoderUnitNorm ? { decoderNorm: 1 } : {}),
          ...(metadata === undefined ? {} : { metadata }),
        })
      : await initialSae(config.init, options);
  if (config.init !== undefined) {
    sae.foldInputScale(1 / inputScale); // a saved SAE is in the scale of the activations
  } else if (measured?.median) {
    using median = measured.median;
    device.kernels.scale(median, inputScale, { out: sae.parameters.decoderBias });
  }
  return { sae, inputScale };
}

async function initialSae(directory: string, { sae: config, device, metadata }: TrainerOptions): Promise<Sae> {
  const loaded = await Sae.load(directory, device);
  for (const key of ["architecture", "dIn", "dSae", "applyBDecToInput"] as const) {
    if (loaded.config[key] !== config[key]) {
      loaded.dispose();
      throw new MonosemError(
        "ERR_CONFIG",
        `sae.init: the SAE in ${directory} has ${key} ${loaded.config[key]}, but sae.${key} is ${config[key]}`,
      );
    }
  }
  return new Sae(parseSaeConfig(config), loaded.parameters, device, metadata ?? loaded.metadata);
}

/** The start of a run that continues from a checkpoint. */
async function resumed(options: TrainerOptions, checkpoint: Checkpoint): Promise<{ sae: Sae; inputScale: number }> {
  const { sae: config, source, device, metadata, output } = options;
  const difference = firstDifference(checkpoint.configuration, sharedConfiguration(options), "");
  if (difference !== undefined) {
    throw new MonosemError("ERR_CONFIG", `cannot resume ${output}: its run was started with another ${difference}`);
  }
  if (checkpoint.step > options.training.steps) {
    throw new MonosemError(
      "ERR_CONFIG",
      `cannot resume ${output}: it is at step ${checkpoint.step} already, past the ${options.training.steps} asked for`,
    );
  }
  const tensor = (name: string, shape: readonly number[]): Tensor => device.tensor(arrayOf(checkpoint, name), shape);
  const { dIn, dSae } = config;
  const parameters: SaeParameters = {
    encoder: tensor("encoder", [dSae, dIn]),
    encoderBias: tensor("encoderBias", [dSae]),
    decoder: tensor("decoder", [dSae, dIn]),
    decoderBias: tensor("decoderBias", [dIn]),
  };
  await source.restoreState(checkpoint.source);
  return { sae: new Sae(parseSaeConfig(config), parameters, device, metadata), inputScale: checkpoint.inputScale };
}

/**
 * What must be the same for a resumed run to continue bit for bit. The number of steps may grow, unless the learning
 * rate depends on it; logging and checkpointing are free.
 */
function sharedConfiguration({ sae, training }: TrainerOptions): Json {
  const { steps, logEvery: _, checkpointEvery: __, ...shared } = training;
  const dependsOnSteps = training.lrSchedule !== "constant" || training.lrDecaySteps > 0;
  const { init: ___, ...saeShared } = sae;
  return { sae: saeShared, training: dependsOnSteps ? { ...shared, steps } : shared } as unknown as Json;
}

/** "sae.k (32, now 16)", or undefined when the two are equal. */
function firstDifference(saved: unknown, now: unknown, path: string): string | undefined {
  if (typeof saved !== "object" || typeof now !== "object" || saved === null || now === null) {
    return saved === now ? undefined : `${path} (${JSON.stringify(saved)}, now ${JSON.stringify(now)})`;
  }
  const before = saved as Record<string, unknown>;
  const after = now as Record<string, unknown>;
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const difference = firstDifference(before[key], after[key], path === "" ? key : `${path}.${key}`);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

function arrayOf(checkpoint: Checkpoint, name: string): CheckpointArray["data"] {
  const array = checkpoint.arrays[name];
  if (array === undefined)
    throw new MonosemError("ERR_FORMAT", `the checkpoint of step ${checkpoint.step} lacks ${name}`);
  return array.data;
}

function refuseNonFinite(values: Float32Array, name: string): void {
  if (!values.every(Number.isFinite)) throw new MonosemError("ERR_NON_FINITE", `${name} holds NaN or infinity`);
}
