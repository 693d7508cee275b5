/** NumPy's `.npz` archives: a zip of one `.npy` file per array, as `numpy.savez` and `savez_compressed` write them. */
import { MonosemError } from "../errors.js";
import type { ByteSource } from "./fileBytes.js";
import { FileBytes } from "./fileBytes.js";
import { maximumNpyHeaderBytes, type NpyHeader, parseNpyHeader } from "./npy.js";
import { quote } from "./safetensorsHeader.js";
import { dataView, rowMajor, type SafetensorsArray, type TensorFile } from "./tensorArray.js";
import { ZipArchive } from "./zip.js";

const suffix = ".npy";

/** An open archive, whose arrays are read when they are asked for. */
export class NpzFile implements TensorFile {
  readonly path: string;
  /** By name, without `.npy`. */
  readonly entries: ReadonlyMap<string, NpyHeader>;
  readonly #archive: ZipArchive;

  private constructor(archive: ZipArchive, entries: ReadonlyMap<string, NpyHeader>) {
    this.path = archive.path;
    this.entries = entries;
    this.#archive = archive;
  }

  /**
   * Opens an archive and reads the headers of its arrays.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_FORMAT when it or an array in it is malformed,
   *   ERR_UNSUPPORTED for elements that are no plain numbers, ERR_IO
   */
  static async open(path: string): Promise<NpzFile> {
    const bytes = await FileBytes.open(path);
    try {
      return await NpzFile.from(bytes);
    } catch (error) {
      await bytes.close();
      throw error;
    }
  }

  /** As `open`, of bytes that are at hand. */
  static async from(source: ByteSource): Promise<NpzFile> {
    const archive = await ZipArchive.open(source);
    const entries = new Map<string, NpyHeader>();
    for (const { name, byteLength } of archive.entries.values()) {
      if (!name.endsWith(suffix)) {
        throw new MonosemError("ERR_FORMAT", `${source.path} is not an .npz archive: it holds ${quote(name)}`);
      }
      const start = await archive.readStart(name, maximumNpyHeaderBytes + 12);
      const what = `${source.path}: ${quote(name)}`;
      entries.set(name.slice(0, -suffix.length), parseNpyHeader(start, byteLength, what));
    }
    return new NpzFile(archive, entries);
  }

  async read(name: string): Promise<SafetensorsArray> {
    const bytes = await this.#archive.read(`${name}${suffix}`);
    const { dtype, shape, fortranOrder, dataPosition } = this.entries.get(name)!;
    const data = dataView(dtype, bytes.subarray(dataPosition));
    if (!fortranOrder) return { dtype, shape, data };
    let size = 1;
    const strides = shape.map((dimension) => {
      const stride = size;
      size *= dimension;
      return stride;
    });
    return { dtype, shape, data: rowMajor(data, shape, strides) };
  }

  async close(): Promise<void> {
    await this.#archive.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
