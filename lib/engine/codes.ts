import { MonosemError } from "../errors.js";
import { type NativeCodes, type NativeEntryValues, type NativeFeatureSet, native } from "./addon.js";
import type { Device } from "./device.js";

let codesHandleOf: (codes: Codes, what: string) => NativeCodes;
let entryValuesHandleOf: (values: EntryValues, what: string) => NativeEntryValues;
let featureSetHandleOf: (set: FeatureSet, what: string) => NativeFeatureSet;

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
 * The selected entries of a batch: a ragged [rows, dSae] matrix of (feature, pre-activation, value), ordered by row and
 * by feature within a row. Made by {@link Kernels.encode}; how many entries there are is known when that has run.
 */
export class Codes {
  readonly device: Device;
  /** Rows of the batch. */
  readonly rows: number;
  /** Features of the dictionary. */
  readonly dSae: number;
  #handle: NativeCodes | undefined;

  static {
    codesHandleOf = (codes, what) => {
      if (codes.#handle === undefined) {
        throw new MonosemError("ERR_DISPOSED", `${what} (codes [${codes.rows}, ${codes.dSae}]) was disposed`);
      }
      return codes.#handle;
    };
  }

  /** @internal */
  constructor(device: Device, rows: number, dSae: number, handle: NativeCodes) {
    this.device = device;
    this.rows = rows;
    this.dSae = dSae;
    this.#handle = handle;
  }

  /** Whether this handle was given back. */
  get disposed(): boolean {
    return this.#handle === undefined;
  }

  /**
   * A copy of the content. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<CodesContent> {
    const [rowOffsets, features, preActivations, values] = await native.readCodes(
      codesHandleOf(this, "read: these codes"),
    );
    return { rowOffsets, features, preActivations, values };
  }

  /** Gives the handle back. Queued work that uses the codes still completes; a second call does nothing. */
  dispose(): void {
    if (this.#handle === undefined) return;
    native.disposeHandle(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** One f32 for each entry of {@link codes}, in their order: for example the gradient of each value. */
export class EntryValues {
  /** The codes whose entries these belong to; it may be disposed before. */
  readonly codes: Codes;
  #handle: NativeEntryValues | undefined;

  static {
    entryValuesHandleOf = (values, what) => {
      if (values.#handle === undefined) throw new MonosemError("ERR_DISPOSED", `${what} (entry values) was disposed`);
      return values.#handle;
    };
  }

  /** @internal */
  constructor(codes: Codes, handle: NativeEntryValues) {
    this.codes = codes;
    this.#handle = handle;
  }

  /** Whether this handle was given back. */
  get disposed(): boolean {
    return this.#handle === undefined;
  }

  /**
   * A copy of the values, f32 [entries]. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<Float32Array> {
    const [values] = await native.readEntryValues(entryValuesHandleOf(this, "read: these entry values"));
    return values;
  }

  /** Gives the handle back. Queued work that uses the values still completes; a second call does nothing. */
  dispose(): void {
    if (this.#handle === undefined) return;
    native.disposeHandle(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A subset of the features of a dictionary, for example those that have not fired for long. */
export class FeatureSet {
  readonly device: Device;
  /** Features of the dictionary, not of the set. */
  readonly dSae: number;
  #handle: NativeFeatureSet | undefined;

  static {
    featureSetHandleOf = (set, what) => {
      if (set.#handle === undefined) throw new MonosemError("ERR_DISPOSED", `${what} (a feature set) was disposed`);
      return set.#handle;
    };
  }

  /** @internal */
  constructor(device: Device, dSae: number, handle: NativeFeatureSet) {
    this.device = device;
    this.dSae = dSae;
    this.#handle = handle;
  }

  /** Whether this handle was given back. */
  get disposed(): boolean {
    return this.#handle === undefined;
  }

  /**
   * The features of the set, ascending. Waits for all work queued before.
   *
   * @throws {MonosemError} (rejects) As {@link Tensor.read}.
   */
  async read(): Promise<Uint32Array> {
    const [indices] = await native.readFeatureSet(featureSetHandleOf(this, "read: this feature set"));
    return indices;
  }

  /** Gives the handle back. Queued work that uses the set still completes; a second call does nothing. */
  dispose(): void {
    if (this.#handle === undefined) return;
    native.disposeHandle(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`. */
export function codesHandle(codes: Codes, what: string): NativeCodes {
  return codesHandleOf(codes, what);
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`. */
export function entryValuesHandle(values: EntryValues, what: string): NativeEntryValues {
  return entryValuesHandleOf(values, what);
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`. */
export function featureSetHandle(set: FeatureSet, what: string): NativeFeatureSet {
  return featureSetHandleOf(set, what);
}
