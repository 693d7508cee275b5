import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import type { ModelConfig } from "./modelConfig.js";

/** One tensor of keys or values, seen in the two shapes in which kernels want it. */
interface CachedTensor {
  readonly rows: Tensor; // [batch, capacity, nKeyValueHeads * dHead]
  readonly heads: Tensor; // [batch, capacity, nKeyValueHeads, dHead]
}

/**
 * The keys and values of the positions that a batch of sequences has behind it, on the device, so that a pass over the
 * next position need not compute the earlier ones again.
 */
export class KeyValueCache {
  readonly batch: number;
  readonly capacity: number;
  /** Positions filled so far. */
  positions = 0;
  readonly #keys: readonly CachedTensor[];
  readonly #values: readonly CachedTensor[];
  readonly #config: ModelConfig;

  constructor(config: ModelConfig, device: Device, batch: number, capacity: number) {
    this.batch = batch;
    this.capacity = capacity;
    this.#config = config;
    const allocate = (): CachedTensor => {
      const { nKeyValueHeads, dHead } = config;
      const rows = device.zeros([batch, capacity, nKeyValueHeads * dHead]);
      return { rows, heads: rows.reshape([batch, capacity, nKeyValueHeads, dHead]) };
    };
    this.#keys = Array.from({ length: config.nLayers }, allocate);
    this.#values = Array.from({ length: config.nLayers }, allocate);
  }

  /**
   * Stores a layer's keys and values, [batch, positions, nKeyValueHeads, dHead], behind those of the earlier positions. The
   * positions count as filled only after `advance`, when every layer has stored its own.
   *
   * @returns all keys and values of the layer, [batch, capacity, nKeyValueHeads, dHead]; they belong to the cache
   */
  append(layer: number, keys: Tensor, values: Tensor): { keys: Tensor; values: Tensor } {
    return { keys: this.#append(this.#keys[layer]!, keys), values: this.#append(this.#values[layer]!, values) };
  }

  advance(positions: number): void {
    this.positions += positions;
  }

  dispose(): void {
    for (const { rows, heads } of [...this.#keys, ...this.#values]) {
      rows.dispose();
      heads.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #append(cached: CachedTensor, fresh: Tensor): Tensor {
    using rows = fresh.reshape([this.batch, fresh.shape[1]!, this.#config.nKeyValueHeads * this.#config.dHead]);
    rows.device.kernels.appendPositions(rows, cached.rows, this.positions);
    return cached.heads;
  }
}
