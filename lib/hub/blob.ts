/**
 * The download of one file's content. It grows under a name of its own beside the place where it belongs, continues there
 * after whatever broke it off, and gets its final name when its length and its hash are those that the repository says.
 */
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { MonosemError, throwIfAborted } from "../errors.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import type { RepositoryCache } from "./cache.js";
import { attempts, type HubConnection, reasonOf } from "./connection.js";
import { withLock } from "./lock.js";
import { contentHash, type RemoteFile } from "./repository.js";

export interface BlobOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the file that are on the disk. */
  readonly onBytes?: (bytes: number) => void;
  /** See `LockOptions`. */
  readonly onWaiting?: ((lock: string) => void) | undefined;
}

type TransferOptions = Required<Pick<BlobOptions, "signal" | "onBytes">>;

/**
 * Sees to it that the content of a file is in the cache. Processes that want the same one at the same time wait for one
 * of them to download it.
 *
 * @throws MonosemError ERR_INTEGRITY when the server sends other bytes than the repository says; ERR_IO when the disk is
 *   full or refuses; as `HubConnection.get`
 */
export async function ensureBlob(
  file: RemoteFile,
  cache: RepositoryCache,
  connection: HubConnection,
  { signal, onBytes, onWaiting }: BlobOptions = {},
): Promise<void> {
  const path = cache.blobPath(file.hash);
  const present = async (): Promise<boolean> => (await lengthOf(path)) === file.bytes;
  if (!(await present())) {
    await makeDirectory(dirname(path));
    await withLock(cache.lockPath(file.hash), { signal, unless: present, onWaiting }, (locked) =>
      download(file, path, connection, { signal: locked, onBytes: onBytes ?? (() => undefined) }),
    );
  }
  onBytes?.(file.bytes);
}

async function download(
  file: RemoteFile,
  path: string,
  connection: HubConnection,
  options: TransferOptions,
): Promise<void> {
  const partial = `${path}.partial`;
  try {
    await requireSpace(file, dirname(path), (await lengthOf(partial)) ?? 0);
    const continued = ((await lengthOf(partial)) ?? 0) > 0;
    let sound = await transfer(file, partial, connection, options);
    // What an earlier process left may be what is wrong, after a power failure for instance: once more from the start.
    if (!sound && continued) sound = await transfer(file, partial, connection, options);
    if (!sound) {
      throw new MonosemError(
        "ERR_INTEGRITY",
        `${nameOf(file)}: what ${new URL(file.url).origin} sends has another hash than the repository says (${file.hash}); nothing of it was kept`,
      );
    }
    await rename(partial, path);
  } catch (error) {
    throw asError(error, file, path);
  }
}

/** @returns whether the whole file, on the disk now, has the right hash; if not, it is gone again. */
async function transfer(
  file: RemoteFile,
  partial: string,
  connection: HubConnection,
  { signal, onBytes }: TransferOptions,
): Promise<boolean> {
  // "a" makes the file where it is missing and keeps what is there
  await (await open(partial, "a")).close();
  const handle = await open(partial, "r+");
  try {
    const content = await PartialContent.of(file, partial, handle);
    onBytes(content.bytes);
    for (let failures = 0; content.bytes < file.bytes; ) {
      throwIfAborted(signal, `the download of ${nameOf(file)}`);
      const before = content.bytes;
      const reason = await receive(file, content, connection, { signal, onBytes });
      if (content.bytes === file.bytes) break;
      throwIfAborted(signal, `the download of ${nameOf(file)}`);
      failures = content.bytes > before ? 1 : failures + 1;
      if (failures === attempts) {
        const stopped = `stopped at byte ${content.bytes} of ${file.bytes}`;
        throw new MonosemError("ERR_NETWORK", `${nameOf(file)}: ${stopped}, ${attempts} times: ${reason}`);
      }
      await connection.pause(failures - 1);
    }
    await handle.sync();
    const sound = content.digest() === file.hash;
    if (!sound) await rm(partial);
    return sound;
  } finally {
    await handle.close();
  }
}

/** One request for what is missing, as far as it gets; says why it got no further. */
async function receive(
  file: RemoteFile,
  content: PartialContent,
  connection: HubConnection,
  { onBytes }: TransferOptions,
): Promise<string> {
  const from = content.bytes;
  const headers = from === 0 ? {} : { range: `bytes=${from}-` };
  const response = await connection.get(file.url, { what: nameOf(file), headers, alsoAccept: [416] });
  try {
    const said = totalLength(response);
    if (said !== undefined && said !== file.bytes) {
      const origin = new URL(file.url).origin;
      const message = `${nameOf(file)} has ${file.bytes} bytes by the repository, but ${origin} has ${said}`;
      throw new MonosemError("ERR_INTEGRITY", message);
    }
    if (response.status === 416) return "the server refuses to continue there";
    if (from > 0 && !beginsAt(response, from)) await content.restart();
    for await (const chunk of response.body ?? []) {
      if (content.bytes + chunk.length > file.bytes) {
        const message = `${nameOf(file)}: more than the ${file.bytes} bytes that the repository says arrive`;
        throw new MonosemError("ERR_INTEGRITY", message);
      }
      await content.append(chunk);
      onBytes(content.bytes);
    }
    return "the connection ended early";
  } catch (error) {
    if (error instanceof MonosemError || isFromDisk(error)) throw error;
    return reasonOf(error);
  } finally {
    // Ends the connection where its body was not read to the end.
    await response.body?.cancel().catch(() => undefined);
  }
}

/** The bytes of a file that are on the disk, and their hash. */
class PartialContent {
  readonly #file: RemoteFile;
  readonly #handle: FileHandle;
  #hash: ReturnType<typeof contentHash>;
  #bytes = 0;

  private constructor(file: RemoteFile, handle: FileHandle) {
    this.#file = file;
    this.#handle = handle;
    this.#hash = contentHash(file);
  }

  static async of(file: RemoteFile, path: string, handle: FileHandle): Promise<PartialContent> {
    const content = new PartialContent(file, handle);
    const { size } = await handle.stat();
    if (size > file.bytes) await handle.truncate(0);
    else if (size > 0) {
      for await (const chunk of createReadStream(path, { end: size - 1 })) content.#count(chunk as Buffer);
    }
    return content;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await this.#handle.write(chunk, done, chunk.length - done, this.#bytes + done);
      done += bytesWritten;
    }
    this.#count(chunk);
  }

  async restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.#bytes = 0;
    this.#hash = contentHash(this.#file);
  }

  digest(): string {
    return this.#hash.digest("hex");
  }

  #count(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }
}

/** The length of the whole file, where an answer tells. */
function totalLength({ status, headers }: Response): number | undefined {
  const text =
    status === 200
      ? headers.get("content-encoding") === null && headers.get("content-length")
      : /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1];
  return text ? Number(text) : undefined;
}

function beginsAt({ status, headers }: Response, from: number): boolean {
  return status === 206 && (headers.get("content-range") ?? "").startsWith(`bytes ${from}-`);
}

async function requireSpace(file: RemoteFile, directory: string, present: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const [needed, free] = [file.bytes - present, bavail * bsize];
  if (needed <= free) return;
  const message = `${nameOf(file)} needs ${needed} more bytes, but ${directory} has room for ${free}; HF_HUB_CACHE names another place`;
  throw new MonosemError("ERR_IO", message);
}

async function lengthOf(path: string): Promise<number | undefined> {
  return await stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
}

function nameOf({ repository, name }: RemoteFile): string {
  return `${repository}/${name}`;
}

function isFromDisk(error: unknown): boolean {
  const { syscall } = error as NodeJS.ErrnoException;
  return syscall === "write" || syscall === "ftruncate";
}

function asError(error: unknown, file: RemoteFile, path: string): MonosemError {
  if (error instanceof MonosemError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const reason = code === "ENOSPC" ? `the disk of ${dirname(path)} is full; what has arrived is kept` : message;
  return new MonosemError("ERR_IO", `cannot keep ${nameOf(file)}: ${reason}`, { cause: error });
}
