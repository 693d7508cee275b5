/**
 * The training loop. It only enqueues work on the device; numbers are read back when they are logged, and at most two
 * steps are queued ahead of the device. Several SAEs can share one stream of activations.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { checkSource, nextBatch } from "../activations/nextBatch.js";
import type { ActivationSource, Json } from "../activations/source.js";
import {
  checkBoolean,
  checkOptions,
  checkSignal,
  checkText,
  type OptionNames,
  refuseArgument,
} from "../checkArguments.js";
import { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { isAborted, MonosemError } from "../errors.js";
import { removeTemporaries, writeFileAtomically } from "../formats/atomicFile.js";
import { FolderLock, folderLockFile } from "../formats/folderLock.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import type { SaeTrainingConfig } from "../sae/config.js";
import type { Sae, SaeMetadata } from "../sae/sae.js";
import { type Checkpoint, type CheckpointArray, readLatestCheckpoint, writeCheckpoint } from "./checkpoint.js";
import { badStepsInARow, checkedSections, type RunConfig, type TrainingConfig } from "./config.js";
import { columnsOf, type SaeColumns } from "./hookColumns.js";
import { measureInputs } from "./inputStatistics.js";
import { isLogged, MetricsLog } from "./metricsLog.js";
import { nameProblem, saePath } from "./saeNames.js";
import { SaeTraining, type SaeTrainingOptions, type SaeTrainingState, type StepMeasures } from "./saeTraining.js";
import { learningRate, warmup } from "./schedules.js";

export interface TrainerOptions {
  /**
   * The SAE to train, or several that are to see the same batches: each then has a `name`, may have its own `hook`,
   * `targetHook` and `seed`, and is written to a folder of its name. What is missing in it and in `training` has
   * `parseConfig`'s defaults.
   */
  readonly sae: SaeTrainingConfig | readonly SaeTrainingConfig[];
  readonly training: TrainingConfig;
  /** Remains the caller's to dispose. Trainers that share one share its rows: each needs its own to see all of them. */
  readonly source: ActivationSource;
  readonly device: Device;
  /**
   * Folder for `sae/`, `metrics.jsonl`, `config.json` and `checkpoints/` (of several SAEs: `NAME/sae/` and
   * `NAME/metrics.jsonl`); without it nothing is written.
   */
  readonly output?: string | undefined;
  /** Continue the run in `output` from its newest checkpoint, or start it when there is none yet. */
  readonly resume?: boolean | undefined;
  /** Saved with the SAEs, besides what the source says of its origin and the hooks that a configuration names. */
  readonly metadata?: SaeMetadata | undefined;
  /** What `output/config.json` records; by default `sae` and `training`. */
  readonly runConfig?: object | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Those, and what else a run's configuration holds: `{ ...config, device, source }`. */
const optionNames: OptionNames<TrainerOptions & RunConfig> = {
  sae: true,
  training: true,
  source: true,
  device: true,
  output: true,
  resume: true,
  metadata: true,
  runConfig: true,
  signal: true,
  data: true,
  threads: true,
  precision: true,
};

/** What is logged of one SAE's step, and written as a line of metrics.jsonl. */
export interface TrainingProgress extends StepMeasures {
  /** Which SAE; where there is one only, it need not have a name. */
  readonly name?: string;
  /** Steps finished. */
  readonly step: number;
  /** Tokens trained on. */
  readonly tokens: number;
  readonly learningRate: number;
  /** Steps without effect so far, because something in them was not finite (`onNonFinite`). */
  readonly skippedSteps: number;
}

/** The device works on one step while the next waits; more would only delay an abort and take memory. */
const stepsAhead = 2;

export class Trainer {
  readonly #options: TrainerOptions;
  readonly #trainings: readonly SaeTraining[];
  /** On the output folder, from `create` to the end of `run`. */
  readonly #lock: FolderLock | undefined;
  #step: number;
  #tokens: number;
  #savedStep: number | undefined;
  #skippedSteps: number;
  /** Failures since the last step that succeeded; of rollbacks: since the last checkpoint. */
  #failures = 0;
  #state: "ready" | "running" | "ended" = "ready";

  private constructor(
    options: TrainerOptions,
    { trainings, checkpoint, lock }: TrainerStart & { readonly lock: FolderLock | undefined },
  ) {
    this.#options = options;
    this.#trainings = trainings;
    this.#lock = lock;
    this.#step = checkpoint?.step ?? 0;
    this.#tokens = checkpoint?.tokens ?? 0;
    this.#skippedSteps = checkpoint?.skippedSteps ?? 0;
    this.#savedStep = checkpoint?.step;
  }

  /**
   * Prepares a run: new SAEs (or `sae.init`), with the input scale and the geometric median measured on the source's
   * first activations where the configuration asks for them; or the state of the newest checkpoint, with `resume`.
   *
   * From here to the end of `run`, or to `dispose`, no other run can be started or resumed in `output`.
   *
   * @throws MonosemError ERR_CONFIG for mistakes in `sae` and `training`, as `parseConfig`; when source, `init` or
   *   checkpoint do not fit the configuration, when `output` holds something already and `resume` is not set, or when
   *   another run is at work there; ERR_INVALID_ARGUMENT for another argument that is not what it must be, and for a source
   *   that gives what is no tensor; ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH or ERR_DEVICE_MISMATCH for one that gives other
   *   tensors than it promises; ERR_FORMAT when every checkpoint is damaged; those of `Sae.load` for `init`; ERR_IO.
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    checkTrainerOptions(options);
    return await Trainer.#create({ ...options, ...checkedSections(options, "Trainer.create") });
  }

  static async #create(options: TrainerOptions): Promise<Trainer> {
    const { output, resume = false, signal } = options;
    const each = saeOptions(options);
    const lock = output === undefined ? undefined : await prepareOutput(output, resume, signal);
    try {
      return new Trainer(options, { ...(await beginOrResume(options, each)), lock });
    } catch (error) {
      lock?.release();
      throw error;
    }
  }

  /** The SAE, the first of several; in the scale of the activations once `run` has ended, in the scaled one until then. */
  get sae(): Sae {
    return this.#trainings[0]!.sae;
  }

  /** The SAEs, in the order of the configuration. */
  get saes(): readonly Sae[] {
    return this.#trainings.map(({ sae }) => sae);
  }

  /** Steps finished so far. */
  get step(): number {
    return this.#step;
  }

  /**
   * Trains, yielding what is logged every `logEvery` steps and at the last one: of several SAEs one after the other.
   * Ends with a checkpoint and the SAEs in `output`; the SAEs, which are smaller, are written also where the file system
   * refuses that checkpoint. Can be called once.
   *
   * A step is never interrupted, but the wait for its activations is: when the signal fires, a checkpoint is written,
   * then ERR_ABORTED is thrown. A consumer that leaves the loop early leaves the run as it is at its last checkpoint.
   *
   * @throws MonosemError ERR_ABORTED; ERR_NON_FINITE naming the step in which activations, the loss or a gradient stopped
   *   being numbers, unless `onNonFinite` has another answer; ERR_CONFIG when the activations end before the last step;
   *   ERR_INVALID_ARGUMENT for a signal that is none; as `create` for a source that gives other things than it promises;
   *   ERR_IO when the file system refuses.
   */
  async *run(options: { signal?: AbortSignal } = {}): AsyncGenerator<TrainingProgress, void, undefined> {
    checkOptions("trainer.run", options, { signal: true });
    const { signal } = options;
    checkSignal("trainer.run", signal);
    if (this.#state !== "ready") throw new MonosemError("ERR_INVALID_ARGUMENT", "a trainer runs once; create another");
    this.#state = "running";
    const { training, output } = this.#options;
    const { steps, checkpointEvery } = training;
    let logs: MetricsLog[] = [];
    let lastRefused: MonosemError | undefined;
    const queued: Promise<void>[] = [];
    const settled = async (): Promise<void> => {
      while (queued.length > 0) await queued.shift();
    };
    try {
      logs = await this.#openLogs();
      while (this.#step < steps) {
        try {
          if (signal?.aborted) {
            await settled();
            await this.#checkpoint(logs);
            const where = output === undefined ? "" : `; continue with resume from ${output}`;
            throw new MonosemError("ERR_ABORTED", `training was aborted after step ${this.#step}${where}`, {
              cause: signal.reason,
            });
          }
          for (const progress of await this.#trainStep(isLogged(this.#step + 1, training), queued, signal)) {
            await logs[named(this.#options.sae).findIndex(({ name }) => name === progress.name)]?.append(progress);
            yield progress;
          }
          while (queued.length >= stepsAhead) await queued.shift();
          if (this.#step % checkpointEvery === 0 || this.#step === steps) {
            await settled();
            await this.#checkpoint(logs).catch((error: unknown) => {
              if (this.#step < steps || !(error instanceof MonosemError) || error.code !== "ERR_IO") throw error;
              lastRefused = error;
            });
          }
        } catch (error) {
          await this.#recover(error, queued);
          if (training.onNonFinite === "rollback") {
            for (const log of logs) await log.close();
            logs = await this.#openLogs(); // without the lines of the steps that are taken back
          }
        }
      }
      await this.#lock?.requireHeld();
      const written: string[] = [];
      for (const [i, { name }] of named(this.#options.sae).entries()) {
        this.#trainings[i]!.finish();
        if (output === undefined) continue;
        const folder = join(output, name ?? "", "sae");
        await this.saes[i]!.save(folder);
        written.push(folder);
      }
      this.#state = "ended";
      if (lastRefused !== undefined) {
        const text = `${lastRefused.message}: the run cannot go on from its last step, but what it trained is in ${written.join(", ")}`;
        throw new MonosemError("ERR_IO", text, { cause: lastRefused });
      }
    } finally {
      try {
        for (const log of logs) await log.close();
      } finally {
        this.#lock?.release();
      }
    }
  }

  /** Frees the optimizers' state, and the output folder for other runs. The SAEs remain, for their user to dispose. */
  dispose(): void {
    this.#lock?.release();
    for (const training of this.#trainings) training.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** One step of every SAE, enqueued; what is logged of it, when it is. None, if the signal fires before its batch is there. */
  async #trainStep(
    logged: boolean,
    queued: Promise<void>[],
    signal: AbortSignal | undefined,
  ): Promise<TrainingProgress[]> {
    const { source, sae, training } = this.#options;
    const step = this.#step;
    const place = {
      step,
      learningRate: learningRate(training, step, training.steps),
      sparsityScale: warmup(step, training.l1WarmupSteps),
      logged,
    };
    using batch = await this.#nextBatch(source, training.batchSize, signal);
    if (batch === undefined) return [];
    this.#step = step + 1;
    this.#tokens += batch.shape[0]!;
    const all: TrainingProgress[] = [];
    const work: Promise<void>[] = [];
    const failures: unknown[] = [];
    for (const [i, { name }] of named(sae).entries()) {
      const label = { ...(name === undefined ? {} : { name }), step: this.#step };
      try {
        const measures = await this.#namingStep(() => this.#trainings[i]!.step(batch, place), label);
        if (measures !== undefined) {
          const { loss, losses, ...rest } = measures;
          const { learningRate: rate } = place;
          const skippedSteps = this.#skippedSteps;
          all.push({ ...label, tokens: this.#tokens, loss, losses, ...rest, learningRate: rate, skippedSteps });
        }
      } catch (error) {
        if (!isNonFinite(error)) throw error;
        failures.push(error); // the other SAEs take the step all the same
      }
      work.push(this.#queuedWork(label));
    }
    queued.push(this.#whole(work, failures.length > 0));
    if (failures.length > 0) throw failures[0];
    return all;
  }

  /** Undefined: the signal fired. */
  async #nextBatch(
    source: ActivationSource,
    batchSize: number,
    signal: AbortSignal | undefined,
  ): Promise<Tensor | undefined> {
    const { device } = this.#options;
    const batch = await nextBatch(source, batchSize, device, signal).catch((error: unknown) => {
      if (!signal?.aborted || !isAborted(error)) throw error;
      return "aborted" as const;
    });
    if (batch === "aborted") return undefined;
    if (batch === undefined) {
      throw new MonosemError(
        "ERR_CONFIG",
        `the activations ended after ${this.#tokens} tokens, step ${this.#step} of ${this.#options.training.steps}: ` +
          "ask for fewer steps, or give more activations",
      );
    }
    return batch;
  }

  /** Settles when the device has done what is queued so far; rejects when a step of it failed. */
  #queuedWork(place: Place): Promise<void> {
    const done = this.#namingStep(() => this.#options.device.synchronize(), place);
    done.catch(() => undefined); // it is awaited steps later; until then its failure is not unhandled
    return done;
  }

  /**
   * The work of one step, of all SAEs: settles when all of it has, so that a bad batch is one failure, not one per SAE.
   *
   * @param reported - that the step failed is known already
   */
  #whole(work: readonly Promise<void>[], reported: boolean): Promise<void> {
    const done = Promise.allSettled(work).then((results) => {
      const reasons = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
      const [failure] = reasons.filter((reason) => !(reported && isNonFinite(reason)));
      if (failure !== undefined) throw failure;
      if (!reported && this.#options.training.onNonFinite !== "rollback") this.#failures = 0;
    });
    done.catch(() => undefined);
    return done;
  }

  /** After a failure: what `onNonFinite` says, or the failure again. */
  async #recover(error: unknown, queued: Promise<void>[]): Promise<void> {
    const { training, output } = this.#options;
    const { onNonFinite: policy = "stop", checkpointEvery } = training;
    if (!isNonFinite(error)) throw error;
    if (policy === "stop") throw await this.#explained(error);
    this.#failures++;
    this.#skippedSteps++;
    if (this.#failures > badStepsInARow) {
      const since = policy === "skip" ? "in a row" : "since the last checkpoint";
      throw await this.#explained(error, `onNonFinite "${policy}" gave up after ${this.#failures} bad steps ${since}`);
    }
    if (policy === "skip") return; // a failed step changes no weights
    for (const work of queued.splice(0)) await work.catch(() => undefined);
    const checkpoint = output === undefined ? undefined : await readLatestCheckpoint(checkpointsIn(output));
    if (checkpoint === undefined) {
      const reason =
        output === undefined ? "a run without output writes none" : `the first is that of step ${checkpointEvery}`;
      throw await this.#explained(error, `onNonFinite "rollback" had no checkpoint to go back to: ${reason}`);
    }
    for (const [i, state] of statesIn(checkpoint, this.#options).entries()) {
      this.#trainings[i]!.restore(state, checkpoint.tokens);
    }
    this.#step = checkpoint.step;
    this.#tokens = checkpoint.tokens;
  }

  /** Says of a failure for NaN or infinity in which step of which SAE it was; what failed is its cause. */
  async #namingStep<T>(work: () => Promise<T>, { name, step }: Place): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isNonFinite(error)) throw error;
      const message = `training${name === undefined ? "" : ` of ${name}`} stopped being finite at step ${step}`;
      throw new MonosemError("ERR_NON_FINITE", message, { cause: error });
    }
  }

  /**
   * The failure that ends a run, with the activations that were to blame: a row among the last batches that the source
   * finds to be bad. (A run that goes on does not take the time to look.)
   */
  async #explained({ message, cause }: MonosemError, end?: string): Promise<MonosemError> {
    const { source, training } = this.#options;
    const rows = (stepsAhead + 1) * training.batchSize;
    const where = await source.findNonFinite?.(rows).catch(() => undefined); // the failure to report is the other one
    const reasons: string[] = [];
    if (where !== undefined) {
      reasons.push(`: ${where} holds NaN or infinity`);
    } else if (cause instanceof MonosemError) {
      const found = `${cause.message.replace(/\.$/, "")} (x is the batch of that step)`;
      const clip = training.clipGradNorm === null ? " or clip the gradient" : "";
      reasons.push(`: ${found}. If the activations are finite, lower the learning rate${clip}`);
    }
    if (end !== undefined) reasons.push(`; ${end}`);
    return new MonosemError("ERR_NON_FINITE", [message, ...reasons].join(""), { cause });
  }

  async #openLogs(): Promise<MetricsLog[]> {
    const { output, sae, training } = this.#options;
    if (output === undefined) return [];
    const { steps, logEvery } = training;
    const logs: MetricsLog[] = [];
    for (const { name } of named(sae)) {
      const path = join(output, name ?? "", "metrics.jsonl");
      logs.push(await MetricsLog.open(path, { step: this.#step, steps, logEvery }));
    }
    return logs;
  }

  async #checkpoint(logs: readonly MetricsLog[]): Promise<void> {
    const { output, source, sae } = this.#options;
    if (output === undefined || this.#savedStep === this.#step) return;
    const arrays: Record<string, CheckpointArray> = {};
    const inputScales: Record<string, SaeTrainingState["inputScales"]> = {};
    for (const [i, { name }] of named(sae).entries()) {
      const label = name === undefined ? {} : { name };
      const state = await this.#namingStep(() => this.#trainings[i]!.save(), { ...label, step: this.#step });
      for (const [key, array] of Object.entries(state.arrays)) arrays[`${prefixOf(name)}${key}`] = array;
      inputScales[name ?? ""] = state.inputScales;
    }
    await this.#lock?.requireHeld();
    for (const log of logs) await log.flush(); // lines up to a checkpoint must survive whatever the checkpoint survives
    await writeCheckpoint(checkpointsIn(output), {
      step: this.#step,
      tokens: this.#tokens,
      skippedSteps: this.#skippedSteps,
      inputScales,
      configuration: sharedConfiguration(this.#options),
      arrays,
      source: await source.saveState(),
    });
    this.#savedStep = this.#step;
    this.#failures = 0;
  }
}

/** What `checkedSections` does not look at. */
function checkTrainerOptions(options: TrainerOptions): void {
  const what = "Trainer.create";
  checkOptions(what, options, optionNames);
  const { device, source, output, resume, metadata, runConfig, signal } = options;
  if (!(device instanceof Device)) refuseArgument(`${what}: device`, "a Device (await Device.open())", device);
  checkSource(`${what}: source`, source);
  if (output !== undefined) checkText(`${what}: output`, "the path of a folder", output);
  if (resume !== undefined) checkBoolean(`${what}: resume`, resume);
  for (const [name, value] of Object.entries({ metadata, runConfig })) {
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    if (value !== undefined && !isObject) refuseArgument(`${what}: ${name}`, "an object", value);
  }
  checkSignal(what, signal);
}

interface Place {
  readonly name?: string;
  readonly step: number;
}

function isNonFinite(error: unknown): error is MonosemError {
  return error instanceof MonosemError && error.code === "ERR_NON_FINITE";
}

/** The configurations, by name where there are several. */
function named(
  sae: TrainerOptions["sae"],
): readonly { readonly name: string | undefined; readonly config: SaeTrainingConfig }[] {
  if (!isList(sae)) return [{ name: undefined, config: sae }];
  return sae.map((config) => ({ name: config.name, config }));
}

function isList(sae: TrainerOptions["sae"]): sae is readonly SaeTrainingConfig[] {
  return Array.isArray(sae);
}

function prefixOf(name: string | undefined): string {
  return name === undefined ? "" : `${name}/`;
}

/** What each SAE's training is made with. */
function saeOptions({ sae, training, source, device, metadata }: TrainerOptions): readonly SaeTrainingOptions[] {
  const all = named(sae);
  if (isList(sae)) {
    const names = new Set(all.map(({ name }) => name));
    if (names.size < all.length || names.has(undefined) || all.length === 0) {
      throw new MonosemError("ERR_CONFIG", "several SAEs are trained together only if each has a name of its own");
    }
    for (const [index, { name }] of all.entries()) {
      const problem = nameProblem(name!);
      if (problem !== undefined) throw new MonosemError("ERR_CONFIG", `sae.${index}.name "${name}" ${problem}`);
    }
  }
  return all.map(({ config }, index) => {
    const path = saePath(sae, index);
    const columns = columnsOf(config, source, path);
    const several = columns.input.length > 1 ? { hookWidths: columns.input.map(({ width }) => width) } : {};
    return {
      config: { ...config, ...several },
      path,
      columns,
      adam: training,
      steps: training.steps,
      seed: config.seed ?? training.seed,
      metadata: metadataOf(config, columns, { ...source.metadata, ...metadata }),
      device,
    };
  });
}

/** With the hooks that an SAE names, and those of a crosscoder. */
function metadataOf(
  { hook, targetHook }: SaeTrainingConfig,
  { input }: SaeColumns,
  metadata: SaeMetadata,
): SaeMetadata {
  const several = input.length > 1;
  if (hook === undefined && targetHook === undefined && !several) return metadata;
  const hooks = several
    ? { hookName: undefined, hookNames: input.map(({ name }, i) => name ?? String(i)) }
    : hook === undefined
      ? {}
      : { hookName: String(hook) };
  return { ...metadata, ...hooks, ...(targetHook === undefined ? {} : { hookNameOut: targetHook }) };
}

function checkpointsIn(output: string): string {
  return join(output, "checkpoints");
}

/**
 * Makes the folder of a run, takes it for this process, and removes what a killed one left half-written.
 *
 * @throws MonosemError ERR_CONFIG when it holds something already and `resume` is not set, or something that is no run, or
 *   when another process works there; ERR_IO
 */
export async function prepareOutput(
  output: string,
  resume: boolean,
  signal: AbortSignal | undefined,
): Promise<FolderLock> {
  await makeDirectory(output);
  const lock = await FolderLock.acquire(output, { what: "the output folder", signal });
  try {
    await requireFolderForRun(output, resume);
    await removeTemporaries(output);
    return lock;
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function requireFolderForRun(output: string, resume: boolean): Promise<void> {
  const all = await readdir(output).catch((error: Error) => {
    throw new MonosemError("ERR_IO", `cannot use the output folder ${output}: ${error.message}`, { cause: error });
  });
  const names = all.filter((name) => name !== folderLockFile);
  const isRun = names.includes("config.json") || names.includes("checkpoints");
  const other = names.find((name) => !name.startsWith(".")); // what begins so may be a killed run's temporary file
  if (resume && !isRun && other !== undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the output folder ${output} holds no run that could be resumed, but other files (${other}): choose another`,
    );
  }
  if (!resume && names.length > 0) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the output folder ${output} is not empty: resume the run in it, remove it, or choose another`,
    );
  }
}

interface TrainerStart {
  readonly trainings: readonly SaeTraining[];
  readonly checkpoint: Checkpoint | undefined;
}

/** The start of a new run, or of one that continues; its folder says how it was configured from here on. */
async function beginOrResume(options: TrainerOptions, each: readonly SaeTrainingOptions[]): Promise<TrainerStart> {
  const { sae, training, output, resume = false } = options;
  const checkpoint = output !== undefined && resume ? await readLatestCheckpoint(checkpointsIn(output)) : undefined;
  const trainings = checkpoint ? await resumed(options, each, checkpoint) : await begun(options, each);
  if (output !== undefined) {
    const record = options.runConfig ?? { sae, training };
    // first: a folder without it is not taken for a run
    await writeFileAtomically(join(output, "config.json"), `${JSON.stringify(record, null, 2)}\n`);
    for (const { name } of named(sae)) {
      if (name === undefined) continue;
      await makeDirectory(join(output, name));
      await removeTemporaries(join(output, name));
    }
  }
  return { trainings, checkpoint };
}

/** The start of a new run. */
async function begun(
  { source, training, device, signal }: TrainerOptions,
  each: readonly SaeTrainingOptions[],
): Promise<readonly SaeTraining[]> {
  const scaled = each.filter(({ config }) => config.normalizeActivations === "expected-average-only-in");
  const sample = each.some(({ config }) => config.bDecInit === "geometric-median" && config.init === undefined);
  using measured =
    scaled.length > 0 || sample
      ? await measureInputs(source, device, {
          batchSize: training.batchSize,
          columns: scaled.flatMap(({ columns }) => [...columns.input, ...columns.target]),
          sample,
          skipNonFinite: training.onNonFinite === "skip" || training.onNonFinite === "rollback",
          signal,
        })
      : undefined;
  const trainings: SaeTraining[] = [];
  for (const options of each) trainings.push(await SaeTraining.begin(options, measured));
  return trainings;
}

/** The start of a run that continues from a checkpoint. */
async function resumed(
  options: TrainerOptions,
  each: readonly SaeTrainingOptions[],
  checkpoint: Checkpoint,
): Promise<readonly SaeTraining[]> {
  const { source, output } = options;
  const difference = firstDifference(
    { precision: "float32", ...(checkpoint.configuration as object) }, // before it was recorded, there was no other
    sharedConfiguration(options),
    "",
  );
  if (difference !== undefined) {
    const way = difference.startsWith("training.steps ")
      ? `, on which its learning rates depend: to train on, start another run from its SAE, with sae.init=${join(output!, "sae")} and another output`
      : "";
    throw new MonosemError(
      "ERR_CONFIG",
      `cannot resume ${output}: its run was started with another ${difference}${way}`,
    );
  }
  if (checkpoint.step > options.training.steps) {
    throw new MonosemError(
      "ERR_CONFIG",
      `cannot resume ${output}: it is at step ${checkpoint.step} already, past the ${options.training.steps} asked for`,
    );
  }
  const states = statesIn(checkpoint, options);
  const trainings = each.map((one, i) => SaeTraining.resume(one, states[i]!, checkpoint.tokens));
  await source.restoreState(checkpoint.source);
  return trainings;
}

/** The checkpoint's state of every SAE, in the order of the configuration. */
function statesIn(checkpoint: Checkpoint, { sae }: TrainerOptions): readonly SaeTrainingState[] {
  return named(sae).map(({ name }) => {
    const prefix = prefixOf(name);
    const own = Object.entries(checkpoint.arrays).filter(([key]) => key.startsWith(prefix));
    const inputScales = checkpoint.inputScales[name ?? ""];
    if (inputScales === undefined) {
      throw new MonosemError("ERR_FORMAT", `the checkpoint of step ${checkpoint.step} has no SAE "${name}"`);
    }
    return { arrays: Object.fromEntries(own.map(([key, array]) => [key.slice(prefix.length), array])), inputScales };
  });
}

/**
 * What must be the same for a resumed run to continue bit for bit. The number of steps may grow, unless the learning
 * rate depends on it; logging, checkpointing and the answer to failures are free.
 */
function sharedConfiguration({ sae, training, device }: TrainerOptions): Json {
  const { steps, logEvery: _, checkpointEvery: __, onNonFinite: ___, ...shared } = training;
  const dependsOnSteps = training.lrSchedule !== "constant" || training.lrDecaySteps > 0;
  const withoutInit = ({ init: _, ...rest }: SaeTrainingConfig): object => rest;
  return {
    sae: isList(sae) ? sae.map(withoutInit) : withoutInit(sae),
    training: dependsOnSteps ? { ...shared, steps } : shared,
    precision: device.precision,
  } as unknown as Json;
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
