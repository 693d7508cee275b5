import { type ErrorCode, MonosemError } from "../errors.js";
import {
  type DType,
  type NativeBlockWidths,
  type NativeCodes,
  type NativeDevice,
  type NativeEntryValues,
  type NativeFeatureSet,
  type NativeKeptGradient,
  type NativeTensor,
  native,
} from "./addon.js";
import { Codes, EntryValues, FeatureSet } from "./codes.js";
import { type Device, deviceHandle } from "./device.js";
import { nativeHandle } from "./handle.js";
import { KeptGradient } from "./keptGradient.js";
import { shapeText, shareMemory, Tensor } from "./tensor.js";

/**
 * A dimension that an operand must have: a number, or a name that stands for the same size wherever it occurs in the
 * call. A first name that opens with "..." stands for any number of leading dimensions together.
 */
export type Dimension = number | string;

/** The size of a dimension, and the operand that gave it: named only where another one contradicts it. */
interface BoundSize {
  readonly size: number;
  readonly name: string;
  readonly shape: readonly number[];
}

/**
 * Checks the operands of one kernel call: live, on the call's device, of the right dtype, and of shapes that agree.
 * The first operand with a named dimension gives it its size; the error of a later one says where that came from.
 */
export class Operands {
  readonly device: Device;
  readonly native: NativeDevice;
  readonly #kernel: string;
  readonly #sizes = new Map<string, BoundSize>();

  constructor(device: Device, kernel: string) {
    this.device = device;
    this.native = deviceHandle(device, kernel);
    this.#kernel = kernel;
  }

  /** A tensor of the given dimensions and dtype. */
  tensor(name: string, tensor: Tensor, dimensions: readonly Dimension[], dtype: DType = "f32"): NativeTensor {
    if (!(tensor instanceof Tensor))
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be a Tensor, found ${typeName(tensor)}`);
    const handle = nativeHandle(tensor, `${this.#kernel}: ${name}`);
    this.#requireDevice(name, tensor.device);
    if (tensor.dtype !== dtype) {
      this.fail("ERR_DTYPE_MISMATCH", `${name} must be ${dtype}, found ${tensor.dtype} ${shapeText(tensor.shape)}`);
    }
    this.#bind(name, tensor.shape, dimensions);
    return handle;
  }

  optionalTensor(
    name: string,
    tensor: Tensor | undefined,
    dimensions: readonly Dimension[],
    dtype: DType = "f32",
  ): NativeTensor | null {
    return tensor === undefined ? null : this.tensor(name, tensor, dimensions, dtype);
  }

  /** Codes, whose sizes stand for "rows" and "dSae" of the call or the names given. */
  codes(name: string, codes: Codes, rows = "rows", dSae = "dSae"): NativeCodes {
    if (!(codes instanceof Codes)) this.fail("ERR_INVALID_ARGUMENT", `${name} must be Codes, found ${typeName(codes)}`);
    const handle = nativeHandle(codes, `${this.#kernel}: ${name}`);
    this.#requireDevice(name, codes.device);
    this.#bind(name, [codes.rows, codes.dSae], [rows, dSae]);
    return handle;
  }

  /** Entry values, of codes that have the same places as these where codes are given. */
  entryValues(name: string, values: EntryValues, codes?: Codes): NativeEntryValues {
    if (!(values instanceof EntryValues)) {
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be EntryValues, found ${typeName(values)}`);
    }
    const handle = nativeHandle(values, `${this.#kernel}: ${name}`);
    this.#requireDevice(name, values.codes.device);
    if (codes !== undefined && values.codes.places !== codes.places) {
      this.fail(
        "ERR_SHAPE_MISMATCH",
        `${name} belongs to ${values.codes.describe()} with their entries at other places than the ${codes.describe()} it is used with`,
      );
    }
    return handle;
  }

  optionalEntryValues(name: string, values: EntryValues | undefined, codes: Codes): NativeEntryValues | null {
    return values === undefined ? null : this.entryValues(name, values, codes);
  }

  featureSet(name: string, set: FeatureSet | undefined): NativeFeatureSet | null {
    if (set === undefined) return null;
    if (!(set instanceof FeatureSet))
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be a FeatureSet, found ${typeName(set)}`);
    const handle = nativeHandle(set, `${this.#kernel}: ${name}`);
    this.#requireDevice(name, set.device);
    this.#bind(name, [set.dSae], ["dSae"]);
    return handle;
  }

  /** The kept gradient of exactly this gradient and these weights. */
  keptGradient(
    name: string,
    kept: KeptGradient | undefined,
    gradient: object,
    weights: Tensor,
  ): NativeKeptGradient | null {
    if (kept === undefined) return null;
    if (!(kept instanceof KeptGradient)) {
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be a KeptGradient, found ${typeName(kept)}`);
    }
    const handle = nativeHandle(kept, `${this.#kernel}: ${name}`);
    if (kept.gradient !== gradient || kept.weights !== weights) {
      this.fail("ERR_INVALID_ARGUMENT", `${name} was kept from another gradient or of other weights`);
    }
    return handle;
  }

  /** The size of a named dimension that an operand has given. */
  size(dimension: string): number {
    const known = this.#sizes.get(dimension);
    if (known === undefined) this.fail("ERR_INTERNAL", `no operand gave the size of ${dimension}`);
    return known.size;
  }

  /** A finite number, not below `minimum` where one is given. */
  number(name: string, value: number, minimum: number = Number.NEGATIVE_INFINITY): number {
    if (typeof value !== "number" || !Number.isFinite(value) || value < minimum) {
      const bound = minimum === Number.NEGATIVE_INFINITY ? "" : ` >= ${minimum}`;
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be a finite number${bound}, found ${String(value)}`);
    }
    return value;
  }

  /** An integer from `minimum` to 2^53 - 1. */
  integer(name: string, value: number, minimum = 0): number {
    if (!Number.isSafeInteger(value) || value < minimum) {
      this.fail("ERR_INVALID_ARGUMENT", `${name} must be an integer >= ${minimum}, found ${String(value)}`);
    }
    return value;
  }

  /** Widths of consecutive blocks that together make up the named dimension; none given: it is one block. */
  blockWidths(name: string, widths: readonly number[] | undefined, dimension: string): NativeBlockWidths {
    if (widths === undefined) return [0];
    let sum = 0;
    for (const [i, width] of widths.entries()) sum += this.integer(`${name}[${i}]`, width, 1);
    if (sum !== this.size(dimension)) {
      this.fail(
        "ERR_SHAPE_MISMATCH",
        `${name} [${widths.join(", ")}] must add up to ${dimension} = ${this.size(dimension)}; found ${sum}`,
      );
    }
    return [widths.length, ...widths];
  }

  /** A new tensor for the result. */
  output(shape: readonly number[], dtype: DType = "f32"): { readonly tensor: Tensor; readonly handle: NativeTensor } {
    const handle = native.emptyTensor(this.native, dtype, shape);
    return { tensor: new Tensor(this.device, handle, dtype, shape), handle };
  }

  /** `out` if the caller gave one, which must then have this shape; else a new tensor. */
  outputOr(
    out: Tensor | undefined,
    shape: readonly number[],
  ): { readonly tensor: Tensor; readonly handle: NativeTensor } {
    if (out === undefined) return this.output(shape);
    return { tensor: out, handle: this.tensor("out", out, shape) };
  }

  /** Operands that the kernel cannot take as the same memory. */
  requireDistinct(name: string, tensor: Tensor, otherName: string, other: Tensor | undefined): void {
    if (other !== undefined && shareMemory(tensor, other)) {
      this.fail("ERR_INVALID_ARGUMENT", `${name} and ${otherName} must not share memory`);
    }
  }

  fail(code: ErrorCode, message: string): never {
    throw new MonosemError(code, `${this.#kernel}: ${message}`);
  }

  #requireDevice(name: string, device: Device): void {
    if (device !== this.device) {
      const where = device.name === this.device.name ? `another device "${device.name}"` : `device "${device.name}"`;
      this.fail("ERR_DEVICE_MISMATCH", `${name} lives on ${where}; the kernel runs on "${this.device.name}"`);
    }
  }

  #bind(name: string, shape: readonly number[], dimensions: readonly Dimension[]): void {
    const first = dimensions[0];
    const leading = typeof first === "string" && first.startsWith("...");
    if (leading ? shape.length < dimensions.length - 1 : shape.length !== dimensions.length) {
      this.#mismatch(name, shape, dimensions);
    }
    const offset = shape.length - dimensions.length;
    for (let d = dimensions.length - 1; d >= 0; d--) {
      const dimension = dimensions[d]!;
      let size: number;
      if (d === 0 && leading) {
        size = 1;
        for (let s = 0; s <= offset; s++) size *= shape[s]!;
      } else {
        size = shape[d + offset]!;
      }
      if (typeof dimension === "number") {
        if (size !== dimension) this.#mismatch(name, shape, dimensions);
        continue;
      }
      const key = d === 0 && leading ? dimension.slice(3) : dimension;
      const known = this.#sizes.get(key);
      if (known === undefined) this.#sizes.set(key, { size, name, shape });
      else if (known.size !== size) this.#mismatch(name, shape, dimensions);
    }
  }

  #mismatch(name: string, shape: readonly number[], dimensions: readonly Dimension[]): never {
    const known = dimensions
      .map((dimension) => (typeof dimension === "string" ? dimension.replace("...", "") : undefined))
      .filter((dimension) => dimension !== undefined && this.#sizes.has(dimension))
      .map((dimension) => {
        const { size, name, shape } = this.#sizes.get(dimension!)!;
        return `${dimension} = ${size} as in ${name} ${shapeText(shape)}`;
      });
    this.fail(
      "ERR_SHAPE_MISMATCH",
      `${name} must be ${shapeText(dimensions)}${known.length > 0 ? ` with ${known.join(", ")}` : ""}; found ${shapeText(shape)}`,
    );
  }
}

function typeName(value: unknown): string {
  return value === null || typeof value !== "object" ? String(value) : (value.constructor?.name ?? "an object");
}
