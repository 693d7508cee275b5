/** Activations from safetensors files as a source of training batches. */
import { setImmediate as otherWork } from "node:timers/promises";
import {
  checkBoolean,
  checkNames,
  checkOptions,
  checkSignal,
  checkText,
  type OptionNames,
  refuseArgument,
} from "../checkArguments.js";
import { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted, untilAborted } from "../errors.js";
import { ActivationShards, type RowRange, type StoredRows } from "./activationShards.js";
import { type InputSamples, requireSameInputs, sampleInputs } from "./inputSamples.js";
import { keyedPermutation } from "./permutation.js";
import type { ActivationHook, ActivationSource, Json, SourceState } from "./source.js";
import { Turns } from "./turns.js";

export interface StoredActivationsOptions {
  /**
   * Name of the tensor in the files, or of several whose rows are to lie side by side. Default: what the manifest says,
   * or "activations".
   */
  readonly tensor?: string | readonly string[] | undefined;
  /** Random order, another in each epoch; otherwise the order of the files. */
  readonly shuffle: boolean;
  /** Of the random order. */
  readonly seed: number;
  /**
   * Host memory for shuffling, in bytes; default 1 GiB. Activations that fit are permuted as a whole. Larger ones are
   * read in runs of about 1 MiB of consecutive rows, in random order; half of the memory is filled with such runs and
   * the rows in it permuted, while the other half is served.
   */
  readonly shuffleMemoryBytes?: number | undefined;
}

const optionNames: OptionNames<StoredActivationsOptions> = {
  tensor: true,
  shuffle: true,
  seed: true,
  shuffleMemoryBytes: true,
};

const defaultShuffleMemoryBytes = 2 ** 30;

/** In messages. */
const what = "reading activations";

/** Of consecutive rows, when not everything fits into memory: long enough for a disk to read them at full speed. */
const runBytes = 2 ** 20;

/** Rows in memory in the order of the files, and the order in which they are served. */
interface Group {
  readonly data: StoredRows;
  readonly order: Uint32Array;
}

/** What part of an epoch a group is. */
interface GroupPlan {
  /** Place of its first row in the epoch. */
  readonly firstRow: number;
  readonly rows: number;
  readonly ranges: readonly RowRange[];
}

interface Prepared {
  readonly firstRow: number;
  readonly rows: number;
  readonly data: Promise<StoredRows>;
}

/**
 * Batches of rows from a safetensors file, or from a folder of shards (see ActivationShards.open).
 *
 * The rows form an endless stream: epoch after epoch, each row once per epoch, and every batch is full, so that a batch
 * may begin in one epoch and end in the next. Without shuffling, batches are consecutive rows of the files, in order,
 * beginning again at the first row after the last one. The rows of a batch depend on the files, the options and the
 * number of rows served before alone. The next batch is read while the device works on the last one.
 *
 * Its files are open until it is disposed: node warns of files that are left to the garbage collector.
 */
export class StoredActivations implements ActivationSource {
  readonly dIn: number;
  /** The tensors. */
  readonly hooks: readonly ActivationHook[];
  readonly metadata: Readonly<Record<string, Json>>;
  /** Rows in an epoch. */
  readonly rows: number;
  readonly #device: Device;
  readonly #shards: ActivationShards;
  /** Of the files when they were opened. */
  readonly #inputs: InputSamples;
  readonly #shuffle: boolean;
  readonly #seed: number;
  readonly #rowsPerGroup: number;
  readonly #ranges: readonly RowRange[];
  /** Everything, when it fits. */
  #everything: Promise<StoredRows> | undefined;
  #plans: { readonly epoch: number; readonly plans: Promise<readonly GroupPlan[]> } | undefined;
  readonly #groups = new Map<string, Promise<Group>>();
  #served = 0;
  #prepared: Prepared | undefined;
  readonly #turns = new Turns();
  #disposed = false;

  private constructor(
    shards: ActivationShards,
    inputs: InputSamples,
    device: Device,
    options: StoredActivationsOptions,
  ) {
    this.#inputs = inputs;
    const { shuffle, seed, shuffleMemoryBytes = defaultShuffleMemoryBytes } = options;
    this.#device = device;
    this.#shards = shards;
    this.dIn = shards.dIn;
    this.hooks = shards.tensors;
    this.metadata = shards.metadata;
    this.rows = shards.rows;
    this.#shuffle = shuffle;
    this.#seed = seed;
    const { rowBytes } = shards;
    const rowsInMemory = Math.max(2, Math.floor(shuffleMemoryBytes / rowBytes));
    const fits = shards.rows <= rowsInMemory;
    this.#rowsPerGroup = fits ? shards.rows : Math.floor(rowsInMemory / 2);
    const rowsPerRange = Math.max(1, Math.min(Math.floor(runBytes / rowBytes), Math.ceil(this.#rowsPerGroup / 8)));
    this.#ranges = shards.ranges(rowsPerRange);
  }

  /**
   * Opens stored activations. The headers of all files are checked here.
   *
   * @throws MonosemError as ActivationShards.open; ERR_CONFIG for activations without any row; ERR_INVALID_ARGUMENT for
   *   arguments that are not what they must be, and for options that do not exist
   */
  static async open(path: string, device: Device, options: StoredActivationsOptions): Promise<StoredActivations> {
    checkArguments(path, device, options);
    const shards = await ActivationShards.open(path, options.tensor);
    if (shards.rows === 0) {
      await shards.close();
      const names = shards.tensors.map(({ name }) => JSON.stringify(name)).join(", ");
      throw new MonosemError("ERR_CONFIG", `${path} has no rows under ${names}`);
    }
    try {
      return new StoredActivations(shards, await sampleInputs(shards.paths), device, options);
    } catch (error) {
      await shards.close();
      throw error;
    }
  }

  /**
   * The next rows, f32 [batchSize, dIn]; never undefined.
   *
   * @throws MonosemError ERR_ABORTED; ERR_INVALID_ARGUMENT for a batch size that is no positive integer; ERR_FORMAT or
   *   ERR_IO when a file was changed or cannot be read; ERR_DISPOSED, also when it is disposed before the rows are there
   */
  async next(batchSize: number, signal?: AbortSignal): Promise<Tensor> {
    this.#requireAlive();
    if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
      refuseArgument("StoredActivations.next: batchSize", "a positive integer", batchSize);
    }
    checkSignal("StoredActivations.next", signal);
    return await this.#turns.take(() => this.#serve(batchSize, signal), signal, what);
  }

  async #serve(batchSize: number, signal: AbortSignal | undefined): Promise<Tensor> {
    this.#requireAlive();
    throwIfAborted(signal, what);
    const firstRow = this.#served;
    const { data } = this.#prepare(firstRow, batchSize);
    let rows: StoredRows;
    try {
      rows = await untilAborted(data, signal, what);
    } catch (error) {
      // After an abort the reading goes on, for whoever asks next.
      if (!signal?.aborted) this.#prepared = undefined;
      throw error;
    }
    this.#requireAlive();
    this.#served = firstRow + batchSize;
    this.#prepare(this.#served, batchSize);
    return await this.#upload(rows, batchSize);
  }

  /** Rows as a tensor on the device, f32, copied piece by piece, so that the event loop turns in between. */
  async #upload(data: StoredRows, rows: number): Promise<Tensor> {
    const { dIn } = this;
    const { dtype, rowsPerTurn } = this.#shards;
    const { kernels } = this.#device;
    const batch = this.#device.empty([rows, dIn]);
    for (let row = 0; row < rows; row += rowsPerTurn) {
      if (row > 0) await otherWork();
      const count = Math.min(rowsPerTurn, rows - row);
      const piece = data.subarray(row * dIn, (row + count) * dIn);
      if (piece instanceof Float32Array) {
        using tensor = this.#device.tensor(piece, [count, dIn]);
        kernels.copyRows(tensor, batch, row);
      } else {
        using narrow = this.#device.tensor(piece, [count, dIn], dtype === "F16" ? "f16" : "bf16");
        using tensor = kernels.toFloat32(narrow);
        kernels.copyRows(tensor, batch, row);
      }
    }
    return batch;
  }

  /** Reads those rows again. */
  async findNonFinite(rows: number): Promise<string | undefined> {
    return await this.#turns.take(() => this.#findNonFinite(rows));
  }

  async #findNonFinite(rows: number): Promise<string | undefined> {
    this.#requireAlive();
    const count = Math.min(rows, this.#served);
    const firstRow = this.#served - count;
    const data = await this.#assemble(firstRow, count);
    const exponent = this.#shards.dtype === "F16" ? 0x7c00 : 0x7f80;
    const isNumber = data instanceof Float32Array ? Number.isFinite : (bits: number) => (bits & exponent) !== exponent;
    const found = data.findIndex((value) => !isNumber(value));
    if (found === -1) return undefined;
    return this.#shards.describeRow(await this.#rowServed(firstRow + Math.floor(found / this.dIn)));
  }

  /** The row of the files that stands at a place of the stream. */
  async #rowServed(place: number): Promise<number> {
    const [epoch, inEpoch] = [Math.floor(place / this.rows), place % this.rows];
    if (!this.#shuffle) return inEpoch;
    const plans = await this.#plan(epoch);
    const index = plans.findLastIndex(({ firstRow }) => firstRow <= inEpoch);
    const plan = plans[index]!;
    const { order } = await this.#group(epoch, index, plan);
    let row = order[inEpoch - plan.firstRow]!;
    const range = plan.ranges.find(({ rows }) => {
      if (row < rows) return true;
      row -= rows;
      return false;
    });
    return range!.firstRow + row;
  }

  /** The place in the stream; of the files there are samples in the state, by which others are told from them. */
  async saveState(): Promise<SourceState> {
    return await this.#turns.take(async () => ({
      state: { ...this.#identity(), served: this.#served, inputs: this.#inputs.hashes },
      tensors: {},
    }));
  }

  /** @throws MonosemError ERR_CONFIG when the state was saved from other files or with other options */
  async restoreState({ state }: SourceState): Promise<void> {
    const saved = (typeof state === "object" && state !== null ? state : {}) as Record<string, Json>;
    for (const [key, value] of Object.entries(this.#identity())) {
      if (saved[key] !== value) {
        throw new MonosemError(
          "ERR_CONFIG",
          `the saved state belongs to other activations: its ${key} is ${JSON.stringify(saved[key])}, not ${value}`,
        );
      }
    }
    requireSameInputs(saved.inputs, this.#inputs);
    const { served } = saved;
    if (!Number.isSafeInteger(served) || (served as number) < 0) {
      throw new MonosemError("ERR_FORMAT", `the saved state of stored activations has no row count: ${served}`);
    }
    await this.#turns.take(async () => {
      this.#served = served as number;
      this.#prepared = undefined;
    });
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    // Reading ahead ends first: a file that is closed under a read would be an error that nobody hears.
    const reading = [this.#prepared?.data, this.#everything, ...this.#groups.values()];
    void this.#turns.take(() => Promise.allSettled(reading).then(() => this.#shards.close()));
    this.#groups.clear();
    this.#everything = undefined;
    this.#prepared = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #requireAlive(): void {
    if (this.#disposed) throw new MonosemError("ERR_DISPOSED", "these stored activations were disposed");
  }

  #identity(): Record<string, string | number | boolean> {
    const { rows, dIn, dtype } = this.#shards;
    const order = this.#shuffle ? { seed: this.#seed, rowsPerGroup: this.#rowsPerGroup } : {};
    return { source: "stored", rows, dIn, dtype, shuffle: this.#shuffle, ...order };
  }

  /** Begins to read rows of the stream, unless that was begun before. */
  #prepare(firstRow: number, rows: number): Prepared {
    if (this.#prepared?.firstRow !== firstRow || this.#prepared.rows !== rows) {
      const data = this.#assemble(firstRow, rows);
      data.catch(() => undefined); // the error is the business of whoever awaits the rows
      this.#prepared = { firstRow, rows, data };
    }
    return this.#prepared;
  }

  async #assemble(firstRow: number, rows: number): Promise<StoredRows> {
    const batch = this.#shards.allocate(rows);
    let done = 0;
    while (done < rows) {
      const epoch = Math.floor((firstRow + done) / this.rows);
      const place = (firstRow + done) % this.rows;
      const available = Math.min(rows - done, this.rows - place);
      if (this.#shuffle) {
        done += await this.#gather(epoch, place, available, batch, done);
      } else {
        await this.#shards.read({ firstRow: place, rows: available }, batch, done);
        done += available;
      }
    }
    return batch;
  }

  /** Copies shuffled rows of an epoch, at most as many as one group has from there on; returns how many. */
  async #gather(epoch: number, place: number, rows: number, into: StoredRows, intoRow: number): Promise<number> {
    const plans = await this.#plan(epoch);
    const index = plans.findLastIndex((plan) => plan.firstRow <= place);
    const plan = plans[index]!;
    const { data, order } = await this.#group(epoch, index, plan);
    if (index + 1 < plans.length) void this.#group(epoch, index + 1, plans[index + 1]!);
    const from = place - plan.firstRow;
    const taken = Math.min(rows, plan.rows - from);
    const { dIn } = this;
    const { rowsPerTurn } = this.#shards;
    for (let i = 0; i < taken; i++) {
      const row = order[from + i]!;
      into.set(data.subarray(row * dIn, (row + 1) * dIn), (intoRow + i) * dIn);
      if ((i + 1) % rowsPerTurn === 0) await otherWork();
    }
    return taken;
  }

  /** Which runs of rows make up which group of an epoch. */
  #plan(epoch: number): Promise<readonly GroupPlan[]> {
    if (this.#plans?.epoch !== epoch) this.#plans = { epoch, plans: this.#makePlans(epoch) };
    return this.#plans.plans;
  }

  async #makePlans(epoch: number): Promise<readonly GroupPlan[]> {
    if (this.#rowsPerGroup === this.rows) return [{ firstRow: 0, rows: this.rows, ranges: this.#ranges }];
    const plans: GroupPlan[] = [];
    let ranges: RowRange[] = [];
    let rows = 0;
    let firstRow = 0;
    const finish = (): void => {
      if (rows > 0) plans.push({ firstRow, rows, ranges });
      firstRow += rows;
      ranges = [];
      rows = 0;
    };
    for (const index of await keyedPermutation(this.#ranges.length, [this.#seed, epoch, 0])) {
      const range = this.#ranges[index]!;
      if (rows + range.rows > this.#rowsPerGroup) finish();
      ranges.push(range);
      rows += range.rows;
    }
    finish();
    return plans;
  }

  /** A group with its rows permuted; loading it makes the ones before the last forgotten. */
  #group(epoch: number, index: number, plan: GroupPlan): Promise<Group> {
    const key = `${epoch}:${index}`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = this.#loadGroup(epoch, index, plan);
      group.catch(() => this.#groups.delete(key));
      this.#groups.set(key, group);
      for (const other of this.#groups.keys()) {
        if (this.#groups.size <= 2) break;
        if (other !== key) this.#groups.delete(other);
      }
    }
    return group;
  }

  async #loadGroup(epoch: number, index: number, { rows, ranges }: GroupPlan): Promise<Group> {
    const order = await keyedPermutation(rows, [this.#seed, epoch, index + 1]);
    if (rows < this.rows) return { data: await this.#readRanges(rows, ranges), order };
    this.#everything ??= this.#readRanges(rows, ranges);
    try {
      return { data: await this.#everything, order };
    } catch (error) {
      this.#everything = undefined;
      throw error;
    }
  }

  async #readRanges(rows: number, ranges: readonly RowRange[]): Promise<StoredRows> {
    const data = this.#shards.allocate(rows);
    let row = 0;
    for (const range of ranges) {
      this.#requireAlive();
      await this.#shards.read(range, data, row);
      row += range.rows;
    }
    return data;
  }
}

function checkArguments(path: string, device: Device, options: StoredActivationsOptions): void {
  const what = "StoredActivations.open";
  checkText(`${what}: path`, "a file or a folder", path);
  if (!(device instanceof Device)) refuseArgument(`${what}: device`, "a Device (await Device.open())", device);
  checkOptions(what, options, optionNames);
  const { tensor, shuffle, seed, shuffleMemoryBytes: memory } = options;
  if (tensor !== undefined) checkNames(`${what}: tensor`, "the name of a tensor, or a list of names", tensor);
  checkBoolean(`${what}: shuffle`, shuffle);
  if (!Number.isSafeInteger(seed) || seed < 0) {
    refuseArgument(`${what}: seed`, "an integer from 0 to 2^53 - 1", seed);
  }
  if (memory !== undefined && !(typeof memory === "number" && memory > 0)) {
    refuseArgument(`${what}: shuffleMemoryBytes`, "a positive number of bytes", memory);
  }
}
