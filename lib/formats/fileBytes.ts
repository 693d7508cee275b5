/** Random access to the bytes of a file, for parsers that check before they read. */
import { constants } from "node:buffer";
import { type FileHandle, open, stat } from "node:fs/promises";
import { MonosemError } from "../errors.js";

/** Bytes that a parser reads pieces of. */
export interface ByteSource {
  /** For messages. */
  readonly path: string;
  readonly byteLength: number;
  /**
   * Reads `length` bytes from `position`; both lie within `byteLength`.
   *
   * @throws MonosemError ERR_DISPOSED after `close`, ERR_FORMAT when the file shrank, ERR_OUT_OF_MEMORY, ERR_IO
   */
  read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Longest single read: the system takes at most 2^31 - 1 bytes at once. */
const transferBytes = 2 ** 30;

/** An open file. */
export class FileBytes implements ByteSource {
  readonly path: string;
  readonly byteLength: number;
  readonly #handle: FileHandle;
  #closed = false;

  private constructor(path: string, byteLength: number, handle: FileHandle) {
    this.path = path;
    this.byteLength = byteLength;
    this.#handle = handle;
  }

  /** @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it is no regular file or cannot be read */
  static async open(path: string): Promise<FileBytes> {
    try {
      // Asked before opening: opening a pipe would wait for a writer.
      if (!(await stat(path)).isFile()) throw new MonosemError("ERR_IO", `${path} is not a regular file`);
      const handle = await open(path, "r");
      try {
        return new FileBytes(path, (await handle.stat()).size, handle);
      } catch (error) {
        await handle.close();
        throw error;
      }
    } catch (error) {
      if (error instanceof MonosemError) throw error;
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        throw new MonosemError("ERR_NOT_FOUND", `there is no file ${path}`, { cause: error });
      }
      throw ioError("read", path, error);
    }
  }

  async read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    requireArray(length, this.path);
    return new Uint8Array(await this.readBuffer(position, length));
  }

  /** As `read`, of any length: arrays of wider elements than bytes can be longer than an array of bytes. */
  async readBuffer(position: number, length: number): Promise<ArrayBuffer> {
    if (this.#closed) throw new MonosemError("ERR_DISPOSED", `${this.path} was closed: open it once more to read it`);
    const buffer = allocateBuffer(length, this.path);
    let filled = 0;
    while (filled < length) {
      const piece = new Uint8Array(buffer, filled, Math.min(transferBytes, length - filled));
      let bytesRead: number;
      try {
        ({ bytesRead } = await this.#handle.read(piece, 0, piece.length, position + filled));
      } catch (error) {
        throw ioError("read", this.path, error);
      }
      if (bytesRead === 0) {
        const end = position + filled;
        throw new MonosemError("ERR_FORMAT", `${this.path} was truncated while it was open: it ends at ${end}`);
      }
      filled += bytesRead;
    }
    return buffer;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#handle.close();
  }
}

/** @throws MonosemError ERR_OUT_OF_MEMORY */
export function allocate(byteLength: number, path: string): Uint8Array<ArrayBuffer> {
  requireArray(byteLength, path);
  return new Uint8Array(allocateBuffer(byteLength, path));
}

/**
 * Refuses what no typed array can hold, before anything is allocated.
 *
 * @throws MonosemError ERR_OUT_OF_MEMORY
 */
export function requireArray(elements: number, path: string): void {
  if (elements <= constants.MAX_LENGTH) return;
  throw new MonosemError(
    "ERR_OUT_OF_MEMORY",
    `${elements} elements to read from ${path} at once are more than an array of Node ${process.version} holds (${constants.MAX_LENGTH})`,
  );
}

function allocateBuffer(byteLength: number, path: string): ArrayBuffer {
  try {
    return new ArrayBuffer(byteLength);
  } catch (cause) {
    throw new MonosemError("ERR_OUT_OF_MEMORY", `${byteLength} bytes to read from ${path} do not fit into memory`, {
      cause,
    });
  }
}

export function ioError(verb: "read" | "write", path: string, error: unknown): MonosemError {
  const reason = error instanceof Error ? error.message : String(error);
  return new MonosemError("ERR_IO", `cannot ${verb} ${path}: ${reason}`, { cause: error });
}
