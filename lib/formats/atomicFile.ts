/**
 * Files and folders that appear whole or not at all, whatever interrupts the writing: the content is built under a
 * temporary name in the same directory, flushed to the disk, and renamed into place.
 */
import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { MonosemError } from "../errors.js";
import { isTaken } from "./exists.js";
import { isRunning } from "./processes.js";

/** Content of a file: text (UTF-8), bytes, or a function that writes to the open file. */
export type FileContent = string | Uint8Array | ((handle: FileHandle) => Promise<void>);

/**
 * Writes `path`, replacing a file of that name only when the new one is complete and on the disk.
 *
 * A kill at any moment leaves the previous file or the new one, and at worst a hidden `.name.*.tmp` beside it.
 * On failure the temporary is removed.
 *
 * @throws MonosemError ERR_IO naming the path, with the system's error as cause. Errors of a content function that are
 *   already MonosemErrors pass unchanged.
 */
export async function writeFileAtomically(path: string, content: FileContent): Promise<void> {
  const file = await AtomicFile.create(path);
  try {
    if (typeof content === "function") await content(file.handle);
    else await file.handle.writeFile(content);
    await file.commit();
  } catch (error) {
    await file.abort();
    throw ioError(`cannot write ${path}`, error);
  }
}

/** A file being written under a temporary name, for writers whose content comes piece by piece. */
export class AtomicFile {
  readonly path: string;
  readonly handle: FileHandle;
  readonly #temporary: string;
  #open = true;

  private constructor(path: string, temporary: string, handle: FileHandle) {
    this.path = path;
    this.#temporary = temporary;
    this.handle = handle;
  }

  /** @throws MonosemError ERR_IO when the temporary cannot be made, for example because the directory is missing. */
  static async create(path: string): Promise<AtomicFile> {
    const temporary = temporaryName(path);
    try {
      return new AtomicFile(path, temporary, await open(temporary, "wx"));
    } catch (error) {
      throw ioError(`cannot write ${path}`, error);
    }
  }

  /** Flushes the file, gives it its name, and flushes the directory. */
  async commit(): Promise<void> {
    try {
      await this.handle.sync();
      this.#open = false;
      await this.handle.close();
      await rename(this.#temporary, this.path);
      await syncDirectory(dirname(this.path));
    } catch (error) {
      throw ioError(`cannot write ${this.path}`, error);
    }
  }

  /** Closes and removes the temporary; nothing happens when it was committed. Never throws: it runs on failure paths. */
  async abort(): Promise<void> {
    if (this.#open) {
      this.#open = false;
      await this.handle.close().catch(() => undefined);
    }
    await rm(this.#temporary, { force: true }).catch(() => undefined);
  }
}

/**
 * Builds the folder `path`: `fill` writes its files into a temporary directory beside it, which is flushed and renamed
 * into place. An existing folder of that name is replaced as a whole.
 *
 * No system call exchanges two folders on every platform, so a replaced folder is first renamed to `.name.previous`; a
 * kill between the two renames leaves it there, and the next write to `path` puts it back before it starts.
 *
 * @throws MonosemError ERR_IO naming the path; errors of `fill` that are already MonosemErrors pass unchanged. The
 *   previous folder is then in place, untouched.
 */
export async function writeDirectoryAtomically(
  path: string,
  fill: (temporaryDirectory: string) => Promise<void>,
): Promise<void> {
  const target = resolve(path);
  const parent = dirname(target);
  const previous = join(parent, `.${basename(target)}.previous`);
  const temporary = temporaryName(target);
  try {
    if (!(await isTaken(target)) && (await isTaken(previous))) await rename(previous, target);
    await mkdir(temporary);
    await fill(temporary);
    await syncTree(temporary);
    if (await isTaken(target)) {
      await rm(previous, { recursive: true, force: true });
      await rename(target, previous);
      try {
        await rename(temporary, target);
      } catch (error) {
        await rename(previous, target);
        throw error;
      }
    } else {
      await rename(temporary, target);
    }
    await syncDirectory(parent);
    await rm(previous, { recursive: true, force: true });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(`cannot write the folder ${path}`, error);
  }
}

/** Two files that mean something only together. */
export interface FilePair {
  /** What readers open first: without it, they refuse the other. */
  readonly key: string;
  readonly other: string;
}

/**
 * Replaces two files of a folder that mean something only together, and leaves its other files alone. `fill` writes both
 * into a temporary folder inside; then the old key is taken away before the other file changes, and the new one comes last:
 * a kill at any moment leaves the old pair, the new one, or no key, which readers refuse; never halves of both.
 *
 * What killed writers left in the folder is removed.
 *
 * @throws MonosemError ERR_IO naming the folder; errors of `fill` that are already MonosemErrors pass unchanged. The old
 *   pair is then in place, unless the file system refused the very last renaming.
 */
export async function replacePairOfFiles(
  directory: string,
  { key, other }: FilePair,
  fill: (temporaryDirectory: string) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(join(directory, key));
  const previousKey = join(temporary, `previous-${key}`);
  try {
    for (const name of await readdir(directory)) {
      if (isDeadTemporary(name)) await rm(join(directory, name), { recursive: true, force: true });
    }
    await mkdir(temporary);
    await fill(temporary);
    await syncTree(temporary);
    const replaced = await isTaken(join(directory, key));
    if (replaced) {
      await rename(join(directory, key), previousKey);
      await syncDirectory(directory);
    }
    try {
      await rename(join(temporary, other), join(directory, other));
    } catch (error) {
      if (replaced) await rename(previousKey, join(directory, key));
      throw error;
    }
    await syncDirectory(directory);
    await rename(join(temporary, key), join(directory, key));
    await syncDirectory(directory);
    await rm(temporary, { recursive: true, force: true });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(`cannot write into the folder ${directory}`, error);
  }
}

/**
 * Removes the temporaries that killed writers left in a directory; a directory that is missing has none. Only for one that
 * no other process writes to.
 *
 * @throws MonosemError ERR_IO
 */
export async function removeTemporaries(directory: string): Promise<void> {
  try {
    for (const name of (await isTaken(directory)) ? await readdir(directory) : []) {
      if (temporaryPattern.test(name)) await rm(join(directory, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw ioError(`cannot clear ${directory} of unfinished files`, error);
  }
}

const temporaryPattern = /^\..+\.(\d+)\.[0-9a-f]{12}\.tmp$/;

/** Whether a name is that of a temporary whose writer has ended without removing it. */
export function isDeadTemporary(name: string): boolean {
  const pid = temporaryPattern.exec(name)?.[1];
  return pid !== undefined && !isRunning(Number(pid));
}

/** A hidden name beside `path` that no other writer has, and that `removeTemporaries` knows. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(6).toString("hex")}.tmp`);
}

async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      await syncTree(path);
    } else if (entry.isFile()) {
      const handle = await open(path, "r+");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
  }
  await syncDirectory(directory);
}

/** Makes a rename durable. Windows neither needs this nor can open a directory for it. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** An error of the file system as a MonosemError ERR_IO that begins with `what`; one that is typed already stays. */
export function ioError(what: string, error: unknown): MonosemError {
  if (error instanceof MonosemError) return error;
  const { message, syscall } = error instanceof Error ? (error as NodeJS.ErrnoException) : { message: String(error) };
  // "ENOENT: no such file or directory, open '/the/temporary'": the call names what nobody asked for; the cause has it.
  const reason = syscall === undefined ? message : message.split(`, ${syscall}`)[0];
  return new MonosemError("ERR_IO", `${what}: ${reason}`, { cause: error });
}
