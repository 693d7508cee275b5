import { MonosemError } from "../errors.js";
import { native } from "./addon.js";
import type { Device } from "./device.js";
import { Operands } from "./operands.js";
import type { Tensor } from "./tensor.js";

/**
 * A counter-based generator of random numbers (Philox 4x32-10; Salmon et al. 2011): element i of a draw depends on the
 * seed and `offset` + i alone. Its whole state is `seed` and `offset`, so that it can be saved and continued; every draw
 * advances `offset` by the number of elements.
 */
export class RandomGenerator {
  readonly seed: number;
  /** The number of the next draw. */
  offset: number;

  /** @throws {MonosemError} ERR_INVALID_ARGUMENT unless both are integers from 0 to 2^53 - 1. */
  constructor(seed: number, offset = 0) {
    for (const [name, value] of [
      ["seed", seed],
      ["offset", offset],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < 0) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `RandomGenerator: ${name} must be an integer from 0 to 2^53 - 1, found ${String(value)}`,
        );
      }
    }
    this.seed = seed;
    this.offset = offset;
  }

  /**
   * Fills an f32 tensor with numbers uniform in [low, high).
   *
   * @throws {MonosemError} As kernels do.
   */
  uniform(tensor: Tensor, low: number, high: number): void {
    const call = new Operands(tensor.device, "uniform");
    const handle = call.tensor("tensor", tensor, ["...elements"]);
    native.randomUniform(
      call.native,
      handle,
      this.seed,
      this.#advance(call, tensor.size),
      call.number("low", low),
      call.number("high", high),
    );
  }

  /**
   * Fills an f32 tensor with normally distributed numbers of mean 0.
   *
   * @throws {MonosemError} As kernels do.
   */
  normal(tensor: Tensor, standardDeviation = 1): void {
    const call = new Operands(tensor.device, "normal");
    const handle = call.tensor("tensor", tensor, ["...elements"]);
    call.number("standardDeviation", standardDeviation, 0);
    native.randomNormal(call.native, handle, this.seed, this.#advance(call, tensor.size), standardDeviation);
  }

  /**
   * A new tensor, i32 [size], with a uniformly random permutation of 0 ... size - 1.
   *
   * @throws {MonosemError} As kernels do.
   */
  permutation(device: Device, size: number): Tensor {
    const call = new Operands(device, "permutation");
    if (call.integer("size", size) > 2 ** 31 - 1) call.fail("ERR_INVALID_ARGUMENT", "size must be below 2^31");
    const out = call.output([size], "i32");
    native.randomPermutation(call.native, out.handle, this.seed, this.#advance(call, size));
    return out.tensor;
  }

  #advance(call: Operands, elements: number): number {
    const offset = call.integer("the generator's offset", this.offset);
    this.offset = call.integer("the generator's offset", offset + elements);
    return offset;
  }
}
