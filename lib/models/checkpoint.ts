/**
 * The tensors of a Hugging Face checkpoint: one file model.safetensors, or several that model.safetensors.index.json
 * names. Tensors are read one by one, when they are asked for.
 */
import { basename, join } from "node:path";
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { type SafetensorsArray, type SafetensorsEntry, SafetensorsFile } from "../formats/safetensors.js";
import { quotedValue } from "../schemaMessages.js";
import { readJsonObjectIfPresent } from "./jsonFile.js";

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

export class Checkpoint {
  /** By name. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;
  readonly #files: readonly SafetensorsFile[];
  readonly #directory: string;

  private constructor(directory: string, files: readonly SafetensorsFile[]) {
    this.#directory = directory;
    this.#files = files;
    const entries = new Map<string, SafetensorsEntry>();
    const fileOf = new Map<string, SafetensorsFile>();
    for (const file of files) {
      for (const [name, entry] of file.entries) {
        const other = fileOf.get(name);
        if (other !== undefined) {
          throw new MonosemError(
            "ERR_FORMAT",
            `tensor ${JSON.stringify(name)} stands in ${other.path} and in ${file.path}; it must stand in one of them`,
          );
        }
        entries.set(name, entry);
        fileOf.set(name, file);
      }
    }
    this.entries = entries;
    this.#fileOf = fileOf;
  }

  /**
   * Opens the files of a checkpoint and checks their headers.
   *
   * @throws MonosemError ERR_NOT_FOUND when a file is missing, ERR_FORMAT for a malformed file, an index that names files
   *   outside the folder or tensors that its files do not hold, or a tensor that two files hold
   */
  static async open(directory: string): Promise<Checkpoint> {
    const indexPath = join(directory, "model.safetensors.index.json");
    const index = await readJsonObjectIfPresent(indexPath);
    if (index === undefined)
      return new Checkpoint(directory, [await openWeights(join(directory, "model.safetensors"))]);
    const parsed = indexSchema.safeParse(index);
    if (!parsed.success) {
      throw new MonosemError("ERR_FORMAT", `${indexPath} must have a "weight_map" from tensors to files`);
    }
    const weightMap = parsed.data.weight_map;
    const names = [...new Set(Object.values(weightMap))].sort();
    const outside = names.find((name) => basename(name) !== name || name === "" || name === "..");
    if (outside !== undefined) {
      throw new MonosemError("ERR_FORMAT", `${indexPath} names ${quotedValue(outside)}, which is no file beside it`);
    }
    const files: SafetensorsFile[] = [];
    try {
      for (const name of names) files.push(await SafetensorsFile.open(join(directory, name)));
      const checkpoint = new Checkpoint(directory, files);
      const missing = Object.keys(weightMap).find((name) => !checkpoint.entries.has(name));
      if (missing !== undefined) {
        const where = `${indexPath} has tensor ${quotedValue(missing)} in ${quotedValue(weightMap[missing])}`;
        throw new MonosemError("ERR_FORMAT", `${where}, but that file does not hold it`);
      }
      return checkpoint;
    } catch (error) {
      await Promise.all(files.map((file) => file.close()));
      throw error;
    }
  }

  get paths(): readonly string[] {
    return this.#files.map(({ path }) => path);
  }

  /** Where a tensor stands, for messages; the folder where no file has it. */
  pathOf(name: string): string {
    return this.#fileOf.get(name)?.path ?? (this.#files.length === 1 ? this.#files[0]!.path : this.#directory);
  }

  /**
   * Reads a tensor as it stands in its file.
   *
   * @throws MonosemError ERR_NOT_FOUND for an unknown name, otherwise as `SafetensorsFile.read`
   */
  async read(name: string): Promise<SafetensorsArray> {
    return await this.#file(name).read(name);
  }

  /** As `read`, converted to f32. */
  async readFloat32(name: string): Promise<Float32Array> {
    return await this.#file(name).readFloat32(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#files.map((file) => file.close()));
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file === undefined) {
      throw new MonosemError("ERR_NOT_FOUND", `${this.#directory} has no tensor ${JSON.stringify(name)}`);
    }
    return file;
  }
}

async function openWeights(path: string): Promise<SafetensorsFile> {
  try {
    return await SafetensorsFile.open(path);
  } catch (error) {
    if (error instanceof MonosemError && error.code === "ERR_NOT_FOUND") {
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `${path} does not exist, nor model.safetensors.index.json beside it; a checkpoint in another format ` +
          "(pytorch_model.bin) has to be saved as safetensors first",
        { cause: error },
      );
    }
    throw error;
  }
}
