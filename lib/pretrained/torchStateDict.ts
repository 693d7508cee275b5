import { MonosemError } from "../errors.js";
import type { SafetensorsArray, TensorFile } from "../formats/tensorArray.js";
import { TorchArchive, TorchTensor, type TorchValue } from "../formats/torchArchive.js";
import { shapeOf } from "./publishedFormat.js";

/** A PyTorch file that holds a dictionary of tensors, and perhaps plain values, by name. */
export class TorchStateDict implements TensorFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TorchTensor>;
  /** What is no tensor. */
  readonly values: ReadonlyMap<string, TorchValue>;
  readonly #archive: TorchArchive;

  private constructor(archive: TorchArchive, members: readonly (readonly [string, TorchValue])[]) {
    this.path = archive.path;
    const isTensor = (member: readonly [string, TorchValue]): member is readonly [string, TorchTensor] =>
      member[1] instanceof TorchTensor;
    this.entries = new Map(members.filter(isTensor));
    this.values = new Map(members.filter((member) => !isTensor(member)));
    this.#archive = archive;
  }

  /** @throws MonosemError as `TorchArchive.open`; ERR_FORMAT when it is no dictionary by name */
  static async open(path: string): Promise<TorchStateDict> {
    const archive = await TorchArchive.open(path);
    const { value } = archive;
    const members = value instanceof Map ? [...(value as ReadonlyMap<string | number, TorchValue>)] : [];
    const named = members.filter((member): member is [string, TorchValue] => typeof member[0] === "string");
    if (members.length === 0 || named.length < members.length) {
      await archive.close();
      throw new MonosemError("ERR_FORMAT", `${path} holds no dictionary of tensors by name`);
    }
    return new TorchStateDict(archive, named);
  }

  async read(name: string): Promise<SafetensorsArray> {
    shapeOf(this, name);
    return await this.#archive.read(this.entries.get(name)!);
  }

  /** Whether it has all of these tensors. */
  has(...names: readonly string[]): boolean {
    return names.every((name) => this.entries.has(name));
  }

  /**
   * A number that was saved as one, or as a tensor of one element; undefined when there is none of that name.
   *
   * @throws MonosemError ERR_FORMAT when it is something else
   */
  async number(name: string): Promise<number | undefined> {
    const value = this.values.get(name);
    if (typeof value === "number") return value;
    const tensor = this.entries.get(name);
    if (value === undefined && tensor === undefined) return undefined;
    const { dtype, data } = tensor === undefined ? { dtype: undefined, data: [] } : await this.read(name);
    if (data.length !== 1 || dtype === "F16" || dtype === "BF16") {
      throw new MonosemError("ERR_FORMAT", `${this.path}: ${name} is no number`);
    }
    return Number(data[0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#archive.close();
  }
}
