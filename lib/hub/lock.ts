import { rmdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MonosemError, throwIfAborted } from "../errors.js";
import { makeDirectory } from "../formats/makeDirectory.js";

const pollMilliseconds = 200;
/** The holder sets the lock's time anew twice in this time. */
const staleMilliseconds = 10_000;
const patienceMilliseconds = 3000;

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Asked before every try: when true, nothing is left to do. */
  readonly unless: () => Promise<boolean>;
  /** Told once, when another process has been waited for for some seconds, with the lock that it holds. */
  readonly onWaiting?: ((lock: string) => void) | undefined;
}

/**
 * Runs `work` while no other process runs something under the same lock, and waits for that. A lock whose holder died is
 * free after ten seconds.
 *
 * @param work - its signal fires with `options.signal`, and if the lock is lost, which a process that was suspended finds
 * @throws MonosemError ERR_ABORTED; ERR_IO when the lock cannot be made or is lost
 */
export async function withLock(
  path: string,
  options: LockOptions,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { lock } = (await import("proper-lockfile")).default;
  const lost = new AbortController();
  await makeDirectory(dirname(path));
  const other = new OthersLock(`${path}.lock`, options.onWaiting);
  let release: (() => Promise<void>) | undefined;
  while (release === undefined) {
    throwIfAborted(options.signal, "the wait for another process's download");
    if (await options.unless()) return;
    try {
      release = await lock(path, {
        realpath: false,
        lockfilePath: other.path,
        stale: staleMilliseconds,
        onCompromised: (error) => lost.abort(error),
      });
    } catch (error) {
      await other.look();
      if ((error as NodeJS.ErrnoException).code !== "ELOCKED") throw lockError(path, error);
      await delay(pollMilliseconds);
    }
  }
  try {
    if (await options.unless()) return;
    await work(options.signal === undefined ? lost.signal : AbortSignal.any([options.signal, lost.signal]));
  } catch (error) {
    throw lost.signal.aborted ? lockError(path, lost.signal.reason) : error;
  } finally {
    // What is lost cannot be released, and need not be.
    await release().catch(() => undefined);
  }
}

/** A lock that another process holds, as far as can be seen while it is waited for. */
class OthersLock {
  readonly path: string;
  readonly #onWaiting: LockOptions["onWaiting"];
  readonly #since = performance.now();
  #told = false;
  #changed: number | undefined;
  #seen = 0;

  constructor(path: string, onWaiting: LockOptions["onWaiting"]) {
    this.path = path;
    this.#onWaiting = onWaiting;
  }

  /**
   * Takes the lock away where its holder gives no sign of life. proper-lockfile does, too, but by the clock: a time in the
   * future, of a machine whose clock is ahead or was, never grows old.
   *
   * @throws MonosemError ERR_IO where something else has its name
   */
  async look(): Promise<void> {
    const found = await stat(this.path).catch(() => undefined);
    if (found === undefined) return;
    if (!found.isDirectory()) {
      throw new MonosemError(
        "ERR_IO",
        `${this.path} is not the folder that a lock on a download is: remove it, unless another program has made it for a purpose`,
      );
    }
    const now = performance.now();
    if (found.mtimeMs !== this.#changed) [this.#changed, this.#seen] = [found.mtimeMs, now];
    // Somebody else may do the same at this moment.
    if (now - this.#seen > staleMilliseconds) await rmdir(this.path).catch(() => undefined);
    if (this.#told || now - this.#since < patienceMilliseconds) return;
    this.#told = true;
    this.#onWaiting?.(this.path);
  }
}

function lockError(path: string, cause: unknown): MonosemError {
  return new MonosemError("ERR_IO", `cannot hold the lock ${path}: ${(cause as Error).message}`, { cause });
}
