import { MonosemError } from "../errors.js";
import { type DType, type NativeTensor, native, type TypedArray } from "./addon.js";
import type { Device } from "./device.js";
import { Handle, nativeHandle } from "./handle.js";

export type { DType, TypedArray } from "./addon.js";

/** The most dimensions that a tensor can have. */
const MAXIMUM_RANK = 8;

/** The array class that holds a dtype's elements. */
const ARRAYS = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  u32: Uint32Array,
  f64: Float64Array,
} as const;

let memoryOf: (tensor: Tensor) => object;

/**
 * An array of numbers in a device's memory, row-major, of fixed shape and dtype. Made by {@link Device.tensor},
 * {@link Device.empty}, {@link Device.zeros} and by kernels.
 *
 * A tensor is a handle: kernels that produce it are queued, and its memory is allocated when the first of them runs.
 * Give it back with {@link dispose} or `using`; the garbage collector does so too, but late.
 */
export class Tensor extends Handle<NativeTensor> {
  /** Where it lives. */
  readonly device: Device;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** The identity of the memory, shared by reshapes. */
  readonly #memory: object;

  static {
    memoryOf = (tensor) => tensor.#memory;
  }

  /** @internal */
  constructor(device: Device, handle: NativeTensor, dtype: DType, shape: readonly number[], memory: object = {}) {
    super(handle);
    this.device = device;
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.size = elementsOf(shape);
    this.#memory = memory;
  }

  /** @internal */
  override describe(): string {
    return `a tensor ${this.dtype} ${shapeText(this.shape)}`;
  }

  /**
   * A copy of the content in a new array of the dtype's class (f16 and bf16: their bits in a `Uint16Array`). Waits for
   * all work queued before.
   *
   * @throws {MonosemError} (rejects) The error of queued work that failed since the last read or synchronisation;
   * ERR_NOT_COMPUTED when nothing has written the tensor; ERR_DISPOSED.
   */
  async read(): Promise<TypedArray> {
    return native.readTensor(nativeHandle(this, "read: this tensor"));
  }

  /**
   * {@link read} for f32 tensors.
   *
   * @throws {MonosemError} (rejects) ERR_DTYPE_MISMATCH for another dtype; otherwise as {@link read}.
   */
  async readFloat32(): Promise<Float32Array> {
    requireDType("readFloat32", this, "f32");
    return (await this.read()) as Float32Array;
  }

  /**
   * The one element of a tensor of size 1.
   *
   * @throws {MonosemError} (rejects) ERR_SHAPE_MISMATCH for another size, ERR_DTYPE_MISMATCH for f16 and bf16;
   * otherwise as {@link read}.
   */
  async readScalar(): Promise<number> {
    if (this.size !== 1) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `readScalar: expected a tensor of size 1, found ${shapeText(this.shape)}`,
      );
    }
    if (this.dtype === "f16" || this.dtype === "bf16") {
      throw new MonosemError(
        "ERR_DTYPE_MISMATCH",
        `readScalar: the tensor is ${this.dtype}; convert it with toFloat32`,
      );
    }
    return (await this.read())[0]!;
  }

  /**
   * Overwrites the content, in the order of queued work. `data` is copied at the call.
   *
   * @throws {MonosemError} ERR_DTYPE_MISMATCH, ERR_SHAPE_MISMATCH when the array's class or length is another (a
   * transferred array has length 0), ERR_OUT_OF_MEMORY, ERR_DISPOSED.
   */
  write(data: TypedArray): void {
    const handle = nativeHandle(this, "write: this tensor");
    requireArray("write", data, this.dtype, this.shape);
    native.writeTensor(handle, data);
  }

  /**
   * Another handle on the same memory. Both are to be disposed; the memory goes with the last one.
   *
   * @throws {MonosemError} ERR_SHAPE_MISMATCH when the number of elements differs, ERR_DISPOSED.
   */
  reshape(shape: readonly number[]): Tensor {
    const handle = nativeHandle(this, "reshape: this tensor");
    requireShape("reshape", shape);
    if (elementsOf(shape) !== this.size) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `reshape: ${shapeText(shape)} has ${elementsOf(shape)} elements, the tensor ${shapeText(this.shape)} has ${this.size}`,
      );
    }
    return new Tensor(this.device, native.reshapeTensor(handle, shape), this.dtype, shape, this.#memory);
  }
}

/** @internal Whether two tensors share memory. */
export function shareMemory(a: Tensor, b: Tensor): boolean {
  return memoryOf(a) === memoryOf(b);
}

/** @internal "[4096, 768]" */
export function shapeText(shape: readonly unknown[]): string {
  return `[${shape.join(", ")}]`;
}

/** @internal Number of elements of a shape. */
export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** @internal Throws ERR_INVALID_ARGUMENT unless `shape` is one. */
export function requireShape(what: string, shape: readonly number[]): void {
  const valid =
    Array.isArray(shape) &&
    shape.length <= MAXIMUM_RANK &&
    shape.every((size) => Number.isSafeInteger(size) && size >= 0) &&
    Number.isSafeInteger(elementsOf(shape) * 8);
  if (!valid) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `${what}: expected a shape of at most ${MAXIMUM_RANK} sizes >= 0, found ${Array.isArray(shape) ? shapeText(shape) : String(shape)}`,
    );
  }
}

/** @internal Throws ERR_DTYPE_MISMATCH unless the tensor has that dtype. */
export function requireDType(what: string, tensor: Tensor, dtype: DType): void {
  if (tensor.dtype !== dtype) {
    throw new MonosemError(
      "ERR_DTYPE_MISMATCH",
      `${what}: expected a tensor of dtype ${dtype}, found ${tensor.dtype} ${shapeText(tensor.shape)}`,
    );
  }
}

/** @internal Throws unless `data` is an array of the dtype's class with as many elements as the shape. */
export function requireArray(what: string, data: TypedArray, dtype: DType, shape: readonly number[]): void {
  const ArrayClass = ARRAYS[dtype];
  if (!(data instanceof ArrayClass)) {
    const found = (data as object | undefined)?.constructor?.name ?? String(data);
    throw new MonosemError("ERR_DTYPE_MISMATCH", `${what}: dtype ${dtype} takes a ${ArrayClass.name}, found ${found}`);
  }
  const expected = elementsOf(shape);
  if (data.length !== expected) {
    const detached = data.length === 0 && data.byteOffset === 0 ? " (a transferred array has none)" : "";
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `${what}: shape ${shapeText(shape)} needs ${expected} elements, the array has ${data.length}${detached}`,
    );
  }
}

/** @internal The dtype that an array stands for unless one is given. */
export function dtypeOfArray(what: string, data: TypedArray): DType {
  if (data instanceof Float32Array) return "f32";
  if (data instanceof Float64Array) return "f64";
  if (data instanceof Int32Array) return "i32";
  if (data instanceof Uint32Array) return "u32";
  if ((data as unknown) instanceof Uint16Array) {
    throw new MonosemError("ERR_DTYPE_MISMATCH", `${what}: a Uint16Array needs a dtype, "f16" or "bf16"`);
  }
  const found = (data as object | undefined)?.constructor?.name ?? String(data);
  throw new MonosemError(
    "ERR_DTYPE_MISMATCH",
    `${what}: expected a Float32Array, Float64Array, Int32Array, Uint32Array or Uint16Array, found ${found}`,
  );
}

/** @internal Throws ERR_DTYPE_MISMATCH unless `dtype` names one. */
export function requireDTypeName(what: string, dtype: DType): void {
  if (!Object.hasOwn(ARRAYS, dtype)) {
    throw new MonosemError(
      "ERR_DTYPE_MISMATCH",
      `${what}: "${String(dtype)}" is not a dtype; there are ${Object.keys(ARRAYS).join(", ")}`,
    );
  }
}
