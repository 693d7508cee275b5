import { type NativeCodes, type NativeEntryValues, type NativeFeatureSet, native } from "./addon.js";
import type { Device } from "./device.js";
import { Handle, nativeHandle } from "./handle.js";

/** The content of {@link Codes} in host memory. */
export interface CodesContent {
  /** Length rows + 1: the entries of row r are those from rowOffsets[r] to rowOffsets[r + 1]. */
  readonly rowOffsets: Float64Array;
  /** Length entries; ascending within a row. */
  readonly features: Uint32Array;
  /** Length entries. */
  readonly preActivations: Float32Array;
  /** Length entries; 0 where an entry was selected without being active. */
  readonly values: Float32Array;
}

/**
 * @internal Where the entries of codes stand, as an identity: codes with the same places have the same number of entries
 * per row and the same features, though their pre-activations and values may differ.
 */
export type Places = symbol;

/** @internal The places of codes that hold an entry for every feature of every row. */
export function everyPlace(rows: number, dSae: number): Places {
  return Symbol.for(`monosem: every place of [${rows}, ${dSae}]`);
}

/**
 * The selected entries of a batch: a ragged [rows, dSae] matrix of (feature, pre-activation, value), ordered by row and
 * by feature within a row. Made by {@link Kernels.encode}; how many entries there are is known when that has run.
 */
export class Codes extends Handle<NativeCodes> {
  readonly device: Device;
  /** Rows of the batch. */
  readonly rows: number;
  /** Features of the dictionary. */
  readonly dSae: number;
  /** @internal */
  readonly places: Places;

  /** @internal Without `places`, they are unlike those of any other codes. */
  constructor(device: Device, rows: number, dSae: number, handle: NativeCodes, places: Places = Symbol("places")) {
    super(handle);
    this.device = device;
    this.rows = rows;
    this.dSae = dSae;
    this.places = places;
  }

  /** @internal */
  override describe(): string {
    return `codes [${this.rows}, ${this.dSae}]`;
  }

  /**
   * A copy of the content. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<CodesContent> {
    const [rowOffsets, features, preActivations, values] = await native.readCodes(
      nativeHandle(this, "read: these codes"),
    );
    return { rowOffsets, features, preActivations, values };
  }
}

/**
 * One f32 for each entry of codes, in their order: for example the gradient of each value. They may be used with every
 * codes that have their entries at the same places: those that they were made for, and what {@link Kernels.withValues}
 * makes of these.
 */
export class EntryValues extends Handle<NativeEntryValues> {
  /** The codes that these were made for; it may be disposed before. */
  readonly codes: Codes;

  /** @internal */
  constructor(codes: Codes, handle: NativeEntryValues) {
    super(handle);
    this.codes = codes;
  }

  /** @internal */
  override describe(): string {
    return "entry values";
  }

  /**
   * A copy of the values, f32 [entries]. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<Float32Array> {
    const [values] = await native.readEntryValues(nativeHandle(this, "read: these entry values"));
    return values;
  }
}

/** A subset of the features of a dictionary, for example those that have not fired for long. */
export class FeatureSet extends Handle<NativeFeatureSet> {
  readonly device: Device;
  /** Features of the dictionary, not of the set. */
  readonly dSae: number;

  /** @internal */
  constructor(device: Device, dSae: number, handle: NativeFeatureSet) {
    super(handle);
    this.device = device;
    this.dSae = dSae;
  }

  /** @internal */
  override describe(): string {
    return "a feature set";
  }

  /**
   * The features of the set, ascending. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<Uint32Array> {
    const [indices] = await native.readFeatureSet(nativeHandle(this, "read: this feature set"));
    return indices;
  }
}
