/**
 * A lock on a folder that one process works in for minutes or days: a hidden file in it that names the process.
 *
 * On the same machine, whether the holder still runs says whether the lock counts, so that what a killed process left is
 * free at once, and a process that was suspended for hours keeps its own. The processes of other machines that share the
 * folder cannot be asked: their lock counts as long as its time of change moves on.
 */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, futimesSync, openSync, readFileSync, readlinkSync, unlinkSync, writeSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { MonosemError, throwIfAborted } from "../errors.js";
import { ioError } from "./atomicFile.js";
import { isRunning, startOf } from "./processes.js";

/** The lock's name in the folder; who lists the folder overlooks it. */
export const folderLockFile = ".monosem.lock";

const beatMilliseconds = 2000;
/** Several beats: one may be late while its process is busy. */
const watchMilliseconds = 10_000;
/** Somebody may be faster each time, but hardly so often. */
const attempts = 10;

const holderSchema = z.object({
  pid: z.int().positive(),
  /** See {@link startOf}. */
  start: z.string().optional(),
  host: z.string(),
  /** Which of the machine's runs since it was switched on, and which numbering of processes: of containers, each has its own. */
  boot: z.string().optional(),
  numbering: z.string().optional(),
  since: z.string(),
});

type Holder = z.infer<typeof holderSchema>;

interface FolderLockOptions {
  /** Stands before the folder's name in the message of a refusal, such as "the output folder". */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
}

/** Held from `acquire` until `release`, or the end of the process. */
export class FolderLock {
  #path: string;
  readonly #what: string;
  readonly #content: string;
  readonly #descriptor: number;
  readonly #beat: NodeJS.Timeout;
  #released = false;

  private constructor(path: string, what: string, content: string, descriptor: number) {
    this.#path = path;
    this.#what = what;
    this.#content = content;
    this.#descriptor = descriptor;
    this.#beat = setInterval(() => this.#touch(), beatMilliseconds);
    this.#beat.unref();
  }

  /**
   * Waits only where the lock may be of another machine: ten seconds, for a sign of life.
   *
   * @throws MonosemError ERR_CONFIG when another process, or something else in this one, holds the lock, saying which;
   *   ERR_ABORTED; ERR_IO where the folder does not take the file
   */
  static async acquire(folder: string, { what, signal }: FolderLockOptions): Promise<FolderLock> {
    const name = `${what} ${folder}`;
    try {
      return await FolderLock.#take(folder, folderLockFile, { what: name, signal });
    } catch (error) {
      if (error instanceof MonosemError) throw error;
      throwIfAborted(signal, `the wait for ${name}`);
      const { message } = ioError(`cannot lock ${name} against other processes`, error);
      throw new MonosemError("ERR_IO", `${message}; the folder must be one that files can be made in`, {
        cause: error,
      });
    }
  }

  static async #take(folder: string, file: string, options: FolderLockOptions): Promise<FolderLock> {
    const path = join(folder, file);
    const { what, signal } = options;
    for (let attempt = 0; attempt < attempts; attempt++) {
      throwIfAborted(signal, `the wait for ${what}`);
      const lock = FolderLock.#make(path, what);
      if (lock !== undefined) return lock;
      const found = await contentOf(path);
      if (found === undefined) continue; // released at this moment
      if (!(await isAbandoned(path, found, signal))) throw inUse(what, path, holderIn(found.text));
      // Several may find that at once. Only who has this lock beside it may replace one with that content.
      const claim = await FolderLock.#take(folder, claimFile(file, found.text), options);
      if (await claim.#replaces(path, found)) return claim;
    }
    throw new Error(`${path} comes and goes`);
  }

  /** Gives up where the abandoned lock is no longer there: somebody else has been faster. */
  async #replaces(path: string, abandoned: LockContent): Promise<boolean> {
    try {
      if (isSame(await contentOf(path), abandoned)) {
        await rename(this.#path, path);
        this.#path = path;
        return true;
      }
    } catch (error) {
      this.release();
      throw error;
    }
    this.release();
    return false;
  }

  /** Undefined where there is one. */
  static #make(path: string, what: string): FolderLock | undefined {
    let descriptor: number;
    try {
      descriptor = openSync(path, "wx");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return undefined;
      throw error;
    }
    const own: Holder = { ...thisProcess(), since: new Date().toISOString() };
    const content = `${JSON.stringify({ ...own, nonce: randomBytes(8).toString("hex") })}\n`;
    try {
      writeSync(descriptor, content);
    } catch (error) {
      closeSync(descriptor);
      unlinkSync(path);
      throw error;
    }
    const lock = new FolderLock(path, what, content, descriptor);
    if (held.size === 0) process.once("exit", releaseAll);
    held.add(lock);
    return lock;
  }

  /**
   * Before something is written that must not mix with another process's.
   *
   * @throws MonosemError ERR_IO when the lock is gone, and by that perhaps another process at work: somebody removed the
   *   file, or another machine saw no sign of life and took it over
   */
  async requireHeld(): Promise<void> {
    const text = await contentOf(this.#path).then((found) => found?.text);
    if (text === this.#content) return;
    const other = text === undefined ? "it was removed" : `it is of ${processText(holderIn(text))} now`;
    throw new MonosemError(
      "ERR_IO",
      `${this.#what} is no longer locked by this process, whose lock ${this.#path} must not be touched (${other}): ` +
        "see what else works there, then go on with the last that was saved",
    );
  }

  /** Idempotent. Never throws: it runs on failure paths, and what stays of a process that ended counts for nothing. */
  release(): void {
    if (this.#released) return;
    clearInterval(this.#beat);
    try {
      if (readFileSync(this.#path, "utf8") === this.#content) unlinkSync(this.#path);
    } catch (error) {
      // Anything but its absence: once more when the process ends.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return;
    }
    this.#released = true;
    held.delete(this);
    closeSync(this.#descriptor);
    if (held.size === 0) process.off("exit", releaseAll);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /** By the descriptor: should the file be another's by now, its time is the other's concern. */
  #touch(): void {
    try {
      const now = new Date();
      futimesSync(this.#descriptor, now, now);
    } catch {
      // Where times cannot be set, other machines will not see it; `requireHeld` tells when they act on that.
    }
  }
}

/** Of this process. */
const held = new Set<FolderLock>();

function releaseAll(): void {
  for (const lock of [...held]) lock.release();
}

interface LockContent {
  readonly text: string;
  readonly changed: number;
}

/** Opened each time: only that makes a network file system ask its server. */
async function contentOf(path: string): Promise<LockContent | undefined> {
  try {
    const file = await open(path, "r");
    try {
      const { mtimeMs: changed } = await file.stat();
      return { text: await file.readFile("utf8"), changed };
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw ioError(`cannot read the lock ${path}`, error);
  }
}

async function isAbandoned(path: string, found: LockContent, signal: AbortSignal | undefined): Promise<boolean> {
  const holder = holderIn(found.text);
  const { host, boot, numbering } = thisProcess();
  if (holder !== undefined && holder.host === host && holder.boot === boot && holder.numbering === numbering) {
    return !(isRunning(holder.pid) && startOf(holder.pid) === holder.start);
  }
  // Of another machine, or of a process that died before it had written its name.
  await delay(watchMilliseconds, undefined, { signal });
  const now = await contentOf(path);
  return isSame(now, found);
}

function isSame(now: LockContent | undefined, before: LockContent): boolean {
  return now?.text === before.text && now.changed === before.changed;
}

/** Named as a temporary, so that `removeTemporaries` sweeps it, should its holder be killed in the moment between. */
function claimFile(file: string, content: string): string {
  return `${folderLockFile}.0.${createHash("sha256").update(`${file}\0${content}`).digest("hex").slice(0, 12)}.tmp`;
}

function thisProcess(): Omit<Holder, "since"> {
  return {
    pid: process.pid,
    start: startOf(process.pid),
    host: hostname(),
    boot: ifTold(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    numbering: ifTold(() => readlinkSync("/proc/self/ns/pid")),
  };
}

/** What Linux alone tells. */
function ifTold(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function holderIn(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return undefined; // of a process that is writing it, or died while it did
  }
}

function inUse(name: string, path: string, holder: Holder | undefined): MonosemError {
  const since = holder === undefined ? "" : ` since ${holder.since}`;
  const advice =
    holder?.pid === process.pid
      ? "end what works there first (dispose its trainer)"
      : `wait for its end, stop it, or choose another folder (should nothing work there, remove ${path})`;
  return new MonosemError("ERR_CONFIG", `${name} is in use by ${processText(holder)}${since}: ${advice}`);
}

function processText(holder: Holder | undefined): string {
  if (holder === undefined) return "another process";
  return holder.pid === process.pid ? "this process itself" : `process ${holder.pid} on ${holder.host}`;
}
