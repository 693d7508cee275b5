import { MonosemError } from "../errors.js";
import {
  headerLengthBytes,
  parseHeader,
  readHeaderLength,
  type SafetensorsEntry,
} from "../formats/safetensorsHeader.js";
import { dataView, type SafetensorsArray } from "../formats/tensorArray.js";
import type { HubConnection } from "./connection.js";
import type { RemoteFile } from "./repository.js";

/** A file that a server without ranges may send whole. */
const smallFileBytes = 2 ** 20;

/** A safetensors file on the hub, of which the header and single tensors are read without a download of the whole. */
export class RemoteSafetensors {
  readonly file: RemoteFile;
  /** By name, in the order of their bytes in the file. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #connection: HubConnection;

  private constructor(
    file: RemoteFile,
    header: Pick<RemoteSafetensors, "entries" | "metadata">,
    connection: HubConnection,
  ) {
    this.file = file;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.#connection = connection;
  }

  /**
   * Reads the header, checked as that of a file on the disk.
   *
   * @throws MonosemError ERR_FORMAT for a malformed file, and as `readRange`
   */
  static async open(file: RemoteFile, connection: HubConnection): Promise<RemoteSafetensors> {
    const path = `${file.repository}/${file.name}`;
    const prefix = await readRange(file, 0, Math.min(headerLengthBytes, file.bytes), connection);
    const length = readHeaderLength(prefix, file.bytes, path);
    const header = await readRange(file, headerLengthBytes, length, connection);
    return new RemoteSafetensors(file, parseHeader(header, file.bytes, path), connection);
  }

  /**
   * Reads one tensor.
   *
   * @throws MonosemError ERR_NOT_FOUND for an unknown name, and as `readRange`
   */
  async read(name: string): Promise<SafetensorsArray> {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      const path = `${this.file.repository}/${this.file.name}`;
      throw new MonosemError("ERR_NOT_FOUND", `${path} has no tensor ${name}: ${[...this.entries.keys()].join(", ")}`);
    }
    const bytes = await readRange(this.file, entry.byteOffset, entry.byteLength, this.#connection);
    return { dtype: entry.dtype, shape: entry.shape, data: dataView(entry.dtype, bytes) };
  }
}

/**
 * Some bytes of a file on the hub, in memory.
 *
 * @throws MonosemError ERR_NETWORK for a server that does not send the range asked for, and as `HubConnection.getWhole`
 */
export async function readRange(
  file: RemoteFile,
  offset: number,
  length: number,
  connection: HubConnection,
): Promise<Uint8Array<ArrayBuffer>> {
  if (length === 0) return new Uint8Array(0);
  const what = `${file.repository}/${file.name}`;
  const range = `bytes=${offset}-${offset + length - 1}`;
  const mostBytes = Math.max(length, smallFileBytes);
  const { response, body } = await connection.getWhole(file.url, { what, headers: { range }, mostBytes });
  if (response.status === 206 && body.length === length) return new Uint8Array(body);
  // A server that does not know ranges sends the whole; that is well for small files, and others are cut off before.
  if (response.status === 200 && body.length === file.bytes)
    return new Uint8Array(body.subarray(offset, offset + length));
  throw new MonosemError(
    "ERR_NETWORK",
    `${what}: asked for ${range}, the server sent ${body.length} bytes with status ${response.status}`,
  );
}
