/** A shuffling buffer of a language model's activations. */
import { checkOptions, checkSignal, type OptionNames, refuseArgument } from "../checkArguments.js";
import type { Device } from "../engine/device.js";
import { RandomGenerator } from "../engine/random.js";
import { requireMemory } from "../engine/requireMemory.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted, untilAborted } from "../errors.js";
import type { ContextPosition } from "./contexts.js";
import { checkHarvest, Harvest, type HarvestedRows, type HarvestOptions, harvestOptionNames } from "./harvest.js";
import { type InputSamples, requireSameInputs, sampleInputs } from "./inputSamples.js";
import type { ActivationHook, ActivationSource, Json, SourceState } from "./source.js";
import { Turns } from "./turns.js";

export interface ModelActivationOptions extends HarvestOptions {
  /** Activation vectors that are mixed with one another: the buffer takes bufferTokens * dIn * 4 bytes on the device. */
  readonly bufferTokens: number;
  /** Of the shuffling. */
  readonly seed: number;
}

const optionNames: OptionNames<ModelActivationOptions> = { ...harvestOptionNames, bufferTokens: true, seed: true };

/** So many passes wait for the device at most, while the buffer is waited for. */
const passesAhead = 4;

/** In messages. */
const what = "collecting activations";

/** The files. */
interface Inputs {
  readonly model: InputSamples;
  readonly corpus: InputSamples;
}

/** The first activation vector that is not in the buffer yet. */
interface Cursor {
  /** Where the forward pass that it comes from begins. */
  readonly position: ContextPosition;
  /** Its row in that pass. */
  readonly row: number;
}

/** A full buffer. */
interface Filling {
  /** f32 [bufferTokens, dIn], on the device. */
  readonly rows: Tensor;
  /** The order in which they are served, of which the first half is. */
  readonly order: Int32Array;
}

/**
 * Runs a model over a corpus, endlessly, and serves its activations shuffled.
 *
 * The buffer is filled and shuffled; when half of it has been served, the served half is replaced by new activations and
 * everything is shuffled again, so that a vector waits in the buffer for a random number of refills (the mixing buffer of
 * SAELens and dictionary_learning). The activations stay on the device. While one half is served, the passes for the next
 * refill are queued in step with it; at most half a buffer of new activations waits.
 *
 * What is served depends on the options alone, not on when things happen.
 */
export class ActivationBuffer implements ActivationSource {
  readonly dIn: number;
  readonly hooks: readonly ActivationHook[];
  readonly metadata: Readonly<Record<string, Json>>;
  readonly #options: ModelActivationOptions;
  readonly #device: Device;
  readonly #harvest: Harvest;
  readonly #half: number;
  #random: RandomGenerator;
  #filling: Filling | undefined;
  #served = 0;
  #cursor: Cursor;
  /** Passes that are not, or not wholly, in the buffer; the first one from `#cursor.row` on. */
  #waiting: HarvestedRows[] = [];
  #ahead: Promise<void> | undefined;
  #passFailure: unknown;
  /** Rows that may wait by now. */
  #aheadGoal = 0;
  readonly #turns = new Turns();
  /** Of when the buffer was made. */
  readonly #inputs: Inputs;
  #disposed = false;

  private constructor(options: ModelActivationOptions, harvest: Harvest, inputs: Inputs) {
    this.#options = options;
    this.#inputs = inputs;
    this.#device = options.model.device;
    this.#harvest = harvest;
    this.dIn = harvest.dIn;
    this.hooks = harvest.hooks;
    this.metadata = harvest.metadata;
    this.#half = Math.ceil(options.bufferTokens / 2);
    this.#random = new RandomGenerator(options.seed);
    this.#cursor = { position: harvest.position, row: 0 };
  }

  /**
   * Checks the options and reads the beginning of the corpus; the buffer is filled when the first batch is asked for.
   *
   * @throws MonosemError as Harvest and its `next`; ERR_INVALID_ARGUMENT for a seed that is none, and for options that do not
   *   exist; ERR_CONFIG for a buffer of fewer than two tokens; ERR_OUT_OF_MEMORY for
   *   one that does not fit the device's memory
   */
  static async create(options: ModelActivationOptions): Promise<ActivationBuffer> {
    checkOptions("ActivationBuffer.create", options, optionNames);
    const { bufferTokens, seed, ...harvesting } = options;
    checkHarvest("ActivationBuffer.create", harvesting);
    if (!Number.isSafeInteger(seed) || seed < 0) {
      refuseArgument("ActivationBuffer.create: seed", "an integer from 0 to 2^53 - 1", seed);
    }
    if (!Number.isSafeInteger(bufferTokens) || bufferTokens < 2) {
      throw new MonosemError("ERR_CONFIG", `bufferTokens must be an integer of at least 2, not ${bufferTokens}`);
    }
    const harvest = new Harvest({ ...harvesting, repeat: true });
    requireMemory(options.model.device, {
      what: `the ${bufferTokens} activations of the buffer`,
      bytes: 4 * bufferTokens * harvest.dIn,
      advice: "use a smaller bufferTokens",
    });
    const buffer = new ActivationBuffer(options, harvest, {
      model: await sampleInputs(options.model.files ?? []),
      corpus: await sampleInputs(options.corpus.files),
    });
    await buffer.#harvestOnce();
    return buffer;
  }

  /**
   * The next activation vectors, f32 [batchSize, dIn]; never undefined.
   *
   * @throws MonosemError as Harvest's `next`; ERR_INVALID_ARGUMENT for a batch size that is no positive integer;
   *   ERR_ABORTED, after which serving can go on; ERR_DISPOSED, also when it is disposed before the rows are there
   */
  async next(batchSize: number, signal?: AbortSignal): Promise<Tensor> {
    this.#requireAlive();
    if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
      refuseArgument("ActivationBuffer.next: batchSize", "a positive integer", batchSize);
    }
    checkSignal("ActivationBuffer.next", signal);
    return await this.#turns.take(() => this.#next(batchSize, signal), signal, what);
  }

  async #next(batchSize: number, signal: AbortSignal | undefined): Promise<Tensor> {
    this.#requireAlive();
    throwIfAborted(signal, what);
    await this.#fill(signal);
    const begin = { filling: this.#filling, served: this.#served };
    if (this.#served + batchSize <= this.#half) return this.#serve(batchSize);
    const batch = this.#device.empty([batchSize, this.dIn]);
    try {
      for (let done = 0; done < batchSize; ) {
        // What was taken since the last refill can be given back; after another one, the batch is finished.
        await this.#fill(this.#filling === begin.filling ? signal : undefined);
        const rows = Math.min(batchSize - done, this.#half - this.#served);
        using part = this.#serve(rows);
        this.#device.kernels.copyRows(part, batch, done);
        done += rows;
      }
      return batch;
    } catch (error) {
      batch.dispose();
      if (this.#filling === begin.filling) this.#served = begin.served;
      throw error;
    }
  }

  /** Everything: the buffer's content, its order, the random generator, and the place in the corpus. */
  async saveState(): Promise<SourceState> {
    return await this.#turns.take(() => this.#saveState());
  }

  async #saveState(): Promise<SourceState> {
    this.#requireAlive();
    const state: Json = {
      ...this.#identity(),
      randomOffset: this.#random.offset,
      served: this.#served,
      position: { ...this.#cursor.position },
      row: this.#cursor.row,
      inputs: { model: this.#inputs.model.hashes, corpus: this.#inputs.corpus.hashes },
    };
    if (this.#filling === undefined) return { state, tensors: {} };
    const { rows, order } = this.#filling;
    return {
      state,
      tensors: {
        rows: { shape: rows.shape, data: await rows.readFloat32() },
        order: { shape: [order.length], data: order },
      },
    };
  }

  /** @throws MonosemError ERR_CONFIG when the state was saved with other options or files; ERR_FORMAT for a damaged state */
  async restoreState(saved: SourceState): Promise<void> {
    await this.#turns.take(() => this.#restoreState(saved));
  }

  async #restoreState({ state, tensors }: SourceState): Promise<void> {
    this.#requireAlive();
    const saved = (typeof state === "object" && state !== null ? state : {}) as Record<string, Json>;
    for (const [key, value] of Object.entries(this.#identity())) {
      if (saved[key] !== value) {
        throw new MonosemError(
          "ERR_CONFIG",
          `the saved state belongs to other activations: its ${key} is ${JSON.stringify(saved[key])}, not ${value}`,
        );
      }
    }
    const inputs = (saved.inputs ?? {}) as Record<string, Json>;
    requireSameInputs(inputs.model, this.#inputs.model);
    requireSameInputs(inputs.corpus, this.#inputs.corpus);
    const { position, row, served, randomOffset } = parseProgress(saved);
    const { rows, order } = tensors;
    const { bufferTokens, seed } = this.#options;
    if ((rows === undefined) !== (order === undefined)) throw damaged("half of the buffer is missing");
    if (rows !== undefined && order !== undefined) {
      const size = bufferTokens * this.dIn;
      if (!(rows.data instanceof Float32Array) || rows.data.length !== size) throw damaged("the rows do not fit");
      if (!(order.data instanceof Int32Array) || !isPermutation(order.data, bufferTokens)) {
        throw damaged("the order is no permutation of the rows");
      }
    }
    if (served > this.#half) throw damaged(`${served} rows of a buffer of ${bufferTokens} were served`);
    await this.#forget();
    if (rows?.data instanceof Float32Array && order?.data instanceof Int32Array) {
      this.#filling = { rows: this.#device.tensor(rows.data, [bufferTokens, this.dIn]), order: order.data.slice() };
    }
    this.#random = new RandomGenerator(seed, randomOffset);
    this.#served = served;
    this.#cursor = { position, row };
    this.#harvest.seek(position);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#aheadGoal = 0;
    // Whoever waits for activations first hears that there will be none.
    void this.#turns.take(() => this.#forget());
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #identity(): Record<string, string | number | boolean> {
    const { model, hook, corpus, contextSize, prependBos, excludeSpecialTokens, bufferTokens, seed } = this.#options;
    const text = { corpus: corpus.fingerprint, contextSize, prependBos, excludeSpecialTokens };
    const passes = { batchPrompts: this.#harvest.batchPrompts };
    return {
      source: "model",
      model: model.config.name,
      hook: [hook].flat().join(" "),
      dIn: this.dIn,
      ...text,
      ...passes,
      bufferTokens,
      seed,
    };
  }

  /** Gives up what is in memory, after the pass that is being queued. */
  async #forget(): Promise<void> {
    this.#aheadGoal = 0;
    await this.#ahead;
    this.#passFailure = undefined;
    for (const { activations } of this.#waiting) activations.dispose();
    this.#waiting = [];
    this.#filling?.rows.dispose();
    this.#filling = undefined;
  }

  #serve(rows: number): Tensor {
    this.#requireAlive();
    const { rows: all, order } = this.#filling!;
    using indices = this.#device.tensor(order.slice(this.#served, this.#served + rows), [rows]);
    const batch = this.#device.kernels.gatherRows(all, indices);
    this.#served += rows;
    // One batch ahead of what has been served: the whole refill waits when it is needed.
    this.#aheadGoal = Math.min(this.#half, this.#served + rows);
    this.#runAhead();
    return batch;
  }

  /** Fills the buffer, or refills and shuffles it when half of it has been served. */
  async #fill(signal: AbortSignal | undefined): Promise<void> {
    const before = this.#filling;
    if (before !== undefined && this.#served < this.#half) return;
    const { bufferTokens } = this.#options;
    const needed = before === undefined ? bufferTokens : this.#half;
    await this.#collect(needed, signal);
    using permutation = this.#random.permutation(this.#device, bufferTokens);
    const order = (await permutation.read()) as Int32Array;
    const rows = before?.rows ?? this.#device.empty([bufferTokens, this.dIn]);
    if (before !== undefined) {
      const { kernels } = this.#device;
      using kept = this.#device.tensor(before.order.slice(this.#half), [bufferTokens - this.#half]);
      using keptRows = kernels.gatherRows(rows, kept);
      kernels.copyRows(keptRows, rows, 0);
    }
    this.#moveWaiting(rows, bufferTokens - needed);
    this.#filling = { rows, order };
    this.#served = 0;
  }

  /** Waits until at least `rows` new activation vectors are there. An abort has few passes to wait for. */
  async #collect(rows: number, signal: AbortSignal | undefined): Promise<void> {
    const queued: Promise<void>[] = [];
    for (;;) {
      await untilAborted(this.#ahead ?? Promise.resolve(), signal, what);
      this.#requireAlive();
      const isEnough = this.#rowsWaiting() >= rows;
      if (isEnough) await untilAborted(Promise.all(queued), signal, what);
      if (this.#passFailure !== undefined) {
        const failure = this.#passFailure;
        this.#passFailure = undefined;
        throw failure;
      }
      if (isEnough) return;
      await this.#harvestOnce(signal);
      queued.push(this.#device.synchronize().catch((error: unknown) => this.#noteFailure(error)));
      if (queued.length > passesAhead) await queued.shift();
    }
  }

  /** Of a pass; reported when the rows are needed. */
  #noteFailure(error: unknown): void {
    this.#passFailure ??= error;
  }

  /** Moves waiting activations into `into`, from row `firstRow` to its end. */
  #moveWaiting(into: Tensor, firstRow: number): void {
    const { kernels } = this.#device;
    const end = into.shape[0]!;
    while (firstRow < end) {
      const pass = this.#waiting[0]!;
      const { row } = this.#cursor;
      const taken = Math.min(pass.rows - row, end - firstRow);
      using part = kernels.sliceRows(pass.activations, row, taken);
      kernels.copyRows(part, into, firstRow);
      firstRow += taken;
      if (row + taken < pass.rows) {
        this.#cursor = { position: this.#cursor.position, row: row + taken };
      } else {
        pass.activations.dispose();
        this.#waiting.shift();
        this.#cursor = { position: pass.end, row: 0 };
      }
    }
  }

  #rowsWaiting(): number {
    return this.#waiting.reduce((sum, { rows }) => sum + rows, 0) - this.#cursor.row;
  }

  async #harvestOnce(signal?: AbortSignal): Promise<void> {
    this.#waiting.push((await this.#harvest.next(signal))!);
  }

  /** Queues passes until the goal is reached, one after the other, beside whatever else happens. */
  #runAhead(): void {
    if (this.#ahead !== undefined || this.#rowsWaiting() >= this.#aheadGoal) return;
    this.#ahead = (async () => {
      try {
        while (this.#rowsWaiting() < this.#aheadGoal) await this.#harvestOnce();
      } catch (error) {
        this.#noteFailure(error);
      } finally {
        this.#ahead = undefined;
      }
    })();
  }

  #requireAlive(): void {
    if (this.#disposed) throw new MonosemError("ERR_DISPOSED", "this activation buffer was disposed");
  }
}

function parseProgress(saved: Readonly<Record<string, Json>>): Cursor & { served: number; randomOffset: number } {
  const count = (holder: unknown, key: string): number => {
    const value = typeof holder === "object" && holder !== null ? (holder as Record<string, unknown>)[key] : undefined;
    if (!Number.isSafeInteger(value) || (value as number) < 0) throw damaged(`${key} is ${JSON.stringify(value)}`);
    return value as number;
  };
  const { position } = saved;
  const [epoch, document] = [count(position, "epoch"), count(position, "document")];
  const [piece, token] = [count(position, "piece"), count(position, "token")];
  return {
    position: { epoch, document, piece, token },
    row: count(saved, "row"),
    served: count(saved, "served"),
    randomOffset: count(saved, "randomOffset"),
  };
}

function isPermutation(order: Int32Array, size: number): boolean {
  const seen = new Uint8Array(size);
  for (const row of order) if (row >= 0 && row < size) seen[row] = 1;
  return order.length === size && seen.every((found) => found === 1);
}

function damaged(reason: string): MonosemError {
  return new MonosemError("ERR_FORMAT", `the saved state of the activation buffer is damaged: ${reason}`);
}
