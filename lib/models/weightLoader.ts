/**
 * From the tensors of a checkpoint to the weights of a model, checked on the way.
 *
 * Matrices that a checkpoint holds in bf16 stay bf16 on the device; everything else becomes f32.
 */
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { LinearWeights, NormWeights } from "./modelWeights.js";

/** A matrix in host memory, f32 or the bits of bf16. */
export interface HostMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array | Uint16Array;
}

/** [columns, rows] */
export function transposed({ rows, columns, data }: HostMatrix): HostMatrix {
  const out = data instanceof Uint16Array ? new Uint16Array(data.length) : new Float32Array(data.length);
  // By squares, so that reads and writes stay in cache.
  const side = 32;
  for (let r0 = 0; r0 < rows; r0 += side) {
    for (let c0 = 0; c0 < columns; c0 += side) {
      for (let r = r0; r < Math.min(rows, r0 + side); r++) {
        for (let c = c0; c < Math.min(columns, c0 + side); c++) out[c * rows + r] = data[r * columns + c]!;
      }
    }
  }
  return { rows: columns, columns: rows, data: out };
}

/** `count` rows from `first` on. */
export function slicedRows({ columns, data }: HostMatrix, first: number, count: number): HostMatrix {
  return { rows: count, columns, data: data.subarray(first * columns, (first + count) * columns) };
}

/** The place of the first NaN or infinity, -1 where there is none. A plain loop: it goes over every weight. */
function firstNonFinite(values: Float32Array | Uint16Array): number {
  const bits = values instanceof Uint16Array;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (bits ? (value & 0x7f80) === 0x7f80 : value - value !== 0) return i;
  }
  return -1;
}

export class WeightLoader {
  readonly #checkpoint: Checkpoint;
  readonly #device: Device;
  readonly #used = new Set<string>();
  readonly #tensors: Tensor[] = [];

  constructor(checkpoint: Checkpoint, device: Device) {
    this.#checkpoint = checkpoint;
    this.#device = device;
  }

  /** What the checkpoint's tensors take on the device, at most. */
  get bytesOnDevice(): number {
    let bytes = 0;
    for (const { dtype, shape } of this.#checkpoint.entries.values()) {
      const elements = shape.reduce((product, length) => product * length, 1);
      bytes += elements * (dtype === "BF16" && shape.length === 2 ? 2 : 4);
    }
    return bytes;
  }

  /** What the largest tensor takes beside that while it is read: its bytes, and f32 numbers where it becomes those. */
  get bytesWhileReading(): number {
    const sizes = Array.from(this.#checkpoint.entries.values(), ({ dtype, shape, byteLength }) => {
      const stays = dtype === "F32" || (dtype === "BF16" && shape.length === 2);
      return byteLength + (stays ? 0 : 4 * shape.reduce((product, length) => product * length, 1));
    });
    return Math.max(0, ...sizes);
  }

  has(name: string): boolean {
    return this.#checkpoint.entries.has(name);
  }

  /** A matrix [rows, columns] in host memory, as it stands in the checkpoint but for f16, which becomes f32. */
  async read(name: string, rows: number, columns: number, layout?: string): Promise<HostMatrix> {
    const shape = [rows, columns];
    this.#check(name, shape, layout);
    if (this.#checkpoint.entries.get(name)!.dtype !== "BF16") {
      return { rows, columns, data: await this.values(name, shape, layout) };
    }
    const data = (await this.#checkpoint.read(name)).data as Uint16Array;
    const bad = firstNonFinite(data);
    if (bad >= 0) this.#refuseNonFinite(name, (data[bad]! & 0x7f) === 0 ? Number.POSITIVE_INFINITY : Number.NaN, bad);
    return { rows, columns, data };
  }

  upload({ rows, columns, data }: HostMatrix): Tensor {
    return this.#keep(this.#device.tensor(data, [rows, columns], data instanceof Uint16Array ? "bf16" : "f32"));
  }

  uploadVector(values: Float32Array): Tensor {
    return this.#keep(this.#device.tensor(values, [values.length]));
  }

  /** A matrix [rows, columns], f32 or bf16. */
  async matrix(name: string, rows: number, columns: number): Promise<Tensor> {
    return this.upload(await this.read(name, rows, columns));
  }

  /** f32 [width]; `plus` is added to every element. */
  async vector(name: string, width: number, plus = 0): Promise<Tensor> {
    const values = await this.values(name, [width]);
    if (plus !== 0) for (let i = 0; i < width; i++) values[i]! += plus;
    return this.uploadVector(values);
  }

  /** `NAME.weight` [outputs, inputs] and, where there is one, `NAME.bias`. */
  async linear(name: string, outputs: number, inputs: number, bias: boolean): Promise<LinearWeights> {
    const weights = await this.matrix(`${name}.weight`, outputs, inputs);
    return bias ? { weights, bias: await this.vector(`${name}.bias`, outputs) } : { weights };
  }

  /** `NAME.weight` and `NAME.bias` of a LayerNorm. */
  async layerNorm(name: string, width: number): Promise<NormWeights> {
    return { weight: await this.vector(`${name}.weight`, width), bias: await this.vector(`${name}.bias`, width) };
  }

  /** `NAME.weight` of an RMSNorm, which some families store less 1. */
  async rmsNorm(name: string, width: number, plus = 0): Promise<NormWeights> {
    return { weight: await this.vector(`${name}.weight`, width, plus) };
  }

  /** A tensor's values as f32, all finite. */
  async values(name: string, shape: readonly number[], layout?: string): Promise<Float32Array> {
    this.#check(name, shape, layout);
    const values = await this.#checkpoint.readFloat32(name);
    const bad = firstNonFinite(values);
    if (bad >= 0) this.#refuseNonFinite(name, values[bad]!, bad);
    return values;
  }

  /** Frees what was uploaded, where loading failed. */
  disposeAll(): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }

  /**
   * The unembedding: `name`, or where config.json ties the two, the embedding. A checkpoint may then store it twice; if
   * the two differ, config.json is wrong about them.
   */
  async unembedding(name: string, embeddingName: string, embedding: Tensor, tied: boolean): Promise<LinearWeights> {
    const [rows, columns] = embedding.shape as [number, number];
    if (!tied) return { weights: await this.matrix(name, rows, columns) };
    if (this.has(name)) {
      this.#used.add(name);
      const [a, b] = [await this.#checkpoint.read(embeddingName), await this.#checkpoint.read(name)];
      if (a.dtype !== b.dtype || a.data.length !== b.data.length || a.data.some((value, i) => value !== b.data[i])) {
        throw new MonosemError(
          "ERR_FORMAT",
          `${this.#checkpoint.pathOf(name)} holds a ${JSON.stringify(name)} that differs from the embedding, but ` +
            'config.json ties the two; set "tie_word_embeddings" to false to use it',
        );
      }
    }
    return { weights: embedding };
  }

  /** Refuses tensors that nothing has asked for, but for those whose names match `buffers`. */
  refuseUnknown(family: string, buffers?: RegExp): void {
    const unknown = [...this.#checkpoint.entries.keys()].filter(
      (name) => !this.#used.has(name) && !(buffers?.test(name) ?? false),
    );
    if (unknown.length === 0) return;
    const shown = unknown.slice(0, 5).map((name) => JSON.stringify(name));
    if (unknown.length > shown.length) shown.push(`${unknown.length - shown.length} more`);
    throw new MonosemError(
      "ERR_FORMAT",
      `${this.#checkpoint.pathOf(unknown[0]!)} holds tensors that a ${family} of this config.json does not have: ` +
        shown.join(", "),
    );
  }

  #keep(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }

  #check(name: string, shape: readonly number[], layout?: string): void {
    const entry = this.#checkpoint.entries.get(name);
    if (entry === undefined) {
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `tensor ${JSON.stringify(name)} of ${this.#checkpoint.pathOf(name)} is missing; expected shape [${shape.join(", ")}]`,
      );
    }
    if (entry.shape.length !== shape.length || entry.shape.some((length, i) => length !== shape[i])) {
      const expected = `[${shape.join(", ")}]${layout === undefined ? "" : ` (${layout})`}`;
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${this.#where(name)} has shape [${entry.shape.join(", ")}], but config.json asks for ${expected}`,
      );
    }
    this.#used.add(name);
  }

  #refuseNonFinite(name: string, value: number, element: number): never {
    throw new MonosemError("ERR_NON_FINITE", `${this.#where(name)} holds ${value} at element ${element}`);
  }

  #where(name: string): string {
    return `tensor ${JSON.stringify(name)} of ${this.#checkpoint.pathOf(name)}`;
  }
}
