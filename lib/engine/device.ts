import { availableParallelism } from "node:os";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import { type DType, type MemoryUse, type NativeDevice, native, type TypedArray } from "./addon.js";
import { Kernels } from "./kernels.js";
import { dtypeOfArray, requireArray, requireDTypeName, requireShape, Tensor } from "./tensor.js";

export type { MemoryUse } from "./addon.js";

/** What a device can be opened by; "auto" takes the best that this machine and build offer. */
export type DeviceName = "auto" | "cpu" | `cuda:${number}`;

export interface DeviceOptions {
  /** Threads of the CPU's kernels. Results do not depend on it. Default: all cores that the process may use. */
  readonly threads?: number | undefined;
  /**
   * How a GPU multiplies matrices; sums are float32 in all of them. "float32": as on the CPU. "tf32", "bfloat16": of
   * factors rounded to 10 or 8 bits, several times as fast; in "bfloat16" the rows that decoders and gradients gather are
   * rounded as well. The CPU always computes in float32. Default: "float32".
   */
  readonly precision?: Precision | undefined;
  /** Where cuBLAS is, a file or its folder, if neither the system's loader nor CUDA_HOME knows. */
  readonly cublasPath?: string | undefined;
  /** The most bytes that live and kept memory may come to; beyond it work fails with ERR_OUT_OF_MEMORY. Default: none. */
  readonly memoryLimitBytes?: number | undefined;
}

export const precisions = ["float32", "tf32", "bfloat16"] as const;
export type Precision = (typeof precisions)[number];

const optionNames: OptionNames<DeviceOptions> = {
  threads: true,
  precision: true,
  cublasPath: true,
  memoryLimitBytes: true,
};

let nativeOf: (device: Device, what: string) => NativeDevice;

/**
 * A device: memory, and a queue that runs kernels one after another on its own thread, while JavaScript goes on.
 *
 * Calls check their arguments, enqueue and return. When queued work fails, its error (which names the kernel and the
 * shapes) rejects the next read or {@link synchronize}. What was to be made from its results is not computed either, and
 * a kernel that would have changed an existing tensor from them leaves it as it was; all other work goes on. A GPU finds
 * some failures (NaN in what is encoded, say) when later kernels are queued already: steps leave weights and moments as
 * they were all the same, while other tensors and sums that were to be made from the results are then NaN or of no meaning.
 * The process stays alive for pending reads only, not for queued work that nobody waits for.
 */
export class Device {
  /** "cpu" or "cuda:N" */
  readonly name: string;
  /** Why it is this device. */
  readonly reason: string;
  /** What it runs on, for example "avx2, 2 threads" or "NVIDIA H100, tf32". */
  readonly description: string;
  /** How it multiplies; see {@link DeviceOptions.precision}. */
  readonly precision: Precision;
  readonly kernels: Kernels;
  readonly #native: NativeDevice;
  #closing: Promise<void> | undefined;

  static {
    nativeOf = (device, what) => {
      if (device.closed) throw new MonosemError("ERR_DISPOSED", `${what}: the device was closed`);
      return device.#native;
    };
  }

  private constructor(name: string, reason: string, precision: Precision, handle: NativeDevice) {
    this.name = name;
    this.reason = reason;
    this.precision = precision;
    this.description = native.describeDevice(handle);
    this.#native = handle;
    this.kernels = new Kernels(this);
  }

  /**
   * Opens a device. "auto" falls back to the CPU, with the reason in {@link reason}; a device asked for by name is
   * opened or refused. The CPU's instruction set is chosen at run time; the environment variable MONOSEM_ISA overrides
   * it, MONOSEM_CUDA_LIBRARY the file of the CUDA backend.
   *
   * @throws {MonosemError} (rejects) ERR_UNSUPPORTED, naming what is missing, when this build or machine has no such
   * device or instruction set; ERR_OUT_OF_MEMORY when a GPU has none left; ERR_INVALID_ARGUMENT for unknown names and options out of range.
   */
  static async open(name: DeviceName = "auto", options: DeviceOptions = {}): Promise<Device> {
    checkOptions("Device.open", options, optionNames);
    const { threads = availableParallelism(), memoryLimitBytes = 0, precision = "float32", cublasPath = "" } = options;
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `Device.open: threads must be an integer from 1 to 1024, found ${threads}`,
      );
    }
    if (options.memoryLimitBytes !== undefined && !(Number.isSafeInteger(memoryLimitBytes) && memoryLimitBytes > 0)) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `Device.open: memoryLimitBytes must be a positive integer, found ${memoryLimitBytes}`,
      );
    }
    if (!precisions.includes(precision)) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `Device.open: precision must be one of ${precisions.join(", ")}, found "${String(precision)}"`,
      );
    }
    const openCpu = (reason: string): Device =>
      new Device("cpu", reason, "float32", native.openCpuDevice(threads, memoryLimitBytes));
    const openCuda = (ordinal: number, reason: string): Device => {
      const handle = native.openCudaDevice(ordinal, precision, cublasPath, memoryLimitBytes);
      return new Device(`cuda:${ordinal}`, reason, precision, handle);
    };
    if (name === "cpu") return openCpu("asked for");
    if (name === "auto") {
      try {
        return openCuda(0, "a GPU was found");
      } catch (error) {
        return openCpu((error as Error).message);
      }
    }
    const cuda = /^cuda:(\d{1,3})$/.exec(name);
    if (cuda !== null) {
      try {
        return openCuda(Number(cuda[1]), "asked for");
      } catch (error) {
        const { code, message } = error as MonosemError;
        throw new MonosemError(
          code,
          `Device.open: ${name} cannot be opened: ${message}. Use "cpu" or "auto" to do without.`,
          {
            cause: error,
          },
        );
      }
    }
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `Device.open: unknown device "${String(name)}"; expected "auto", "cpu" or "cuda:N"`,
    );
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * A tensor with a copy of `data`, made at the call. The dtype follows from the array's class; a `Uint16Array` holds
   * bits of f16 or bf16 and needs it said.
   *
   * @throws {MonosemError} ERR_SHAPE_MISMATCH when `data` is shorter or longer than the shape (a transferred array has
   * length 0), ERR_DTYPE_MISMATCH, ERR_OUT_OF_MEMORY, ERR_INVALID_ARGUMENT, ERR_DISPOSED.
   */
  tensor(data: TypedArray, shape: readonly number[], dtype?: DType): Tensor {
    const handle = nativeOf(this, "tensor");
    requireShape("tensor", shape);
    if (dtype !== undefined) requireDTypeName("tensor", dtype);
    const type = dtype ?? dtypeOfArray("tensor", data);
    requireArray("tensor", data, type, shape);
    return new Tensor(this, native.tensorFromHost(handle, type, shape, data), type, shape);
  }

  /**
   * A tensor without content: reading it before a kernel wrote it is ERR_NOT_COMPUTED. It takes no memory until then.
   *
   * @throws {MonosemError} ERR_INVALID_ARGUMENT, ERR_DTYPE_MISMATCH, ERR_DISPOSED.
   */
  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const handle = nativeOf(this, "empty");
    requireShape("empty", shape);
    requireDTypeName("empty", dtype);
    return new Tensor(this, native.emptyTensor(handle, dtype, shape), dtype, shape);
  }

  /**
   * A tensor of zeros.
   *
   * @throws {MonosemError} ERR_INVALID_ARGUMENT, ERR_DTYPE_MISMATCH, ERR_DISPOSED.
   */
  zeros(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const handle = nativeOf(this, "zeros");
    requireShape("zeros", shape);
    requireDTypeName("zeros", dtype);
    return new Tensor(this, native.zeroTensor(handle, dtype, shape), dtype, shape);
  }

  /**
   * Resolves when all work queued so far is done.
   *
   * @throws {MonosemError} (rejects) The error of queued work that failed since the last read or synchronisation.
   */
  async synchronize(): Promise<void> {
    await native.synchronize(nativeOf(this, "synchronize"));
  }

  /** Bytes of device memory, exact: live, most ever live, kept for reuse, and the limit (0: none). */
  memory(): MemoryUse {
    return native.deviceMemory(nativeOf(this, "memory"));
  }

  /** Sets `peakBytes` to what is live now. */
  resetPeakMemory(): void {
    native.resetPeakMemory(nativeOf(this, "resetPeakMemory"));
  }

  /** Gives memory that is kept for reuse back to the system. */
  releaseCachedMemory(): void {
    native.releaseCachedMemory(nativeOf(this, "releaseCachedMemory"));
  }

  /**
   * Waits for the work queued before, then ends the device's threads. From the call on the device takes no more work;
   * its tensors can only be disposed. Further calls return the same promise.
   *
   * @throws {MonosemError} (rejects) The error of queued work that failed since the last read or synchronisation; the
   * device is closed all the same.
   */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      try {
        await native.synchronize(this.#native);
      } finally {
        // A read of codes queues its second part when the first one is done: that may be waiting still. What fails now
        // is told to whoever reads.
        await native.synchronize(this.#native).catch(() => undefined);
        native.closeDevice(this.#native);
      }
    })();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`, once the device is closed. */
export function deviceHandle(device: Device, what: string): NativeDevice {
  return nativeOf(device, what);
}
