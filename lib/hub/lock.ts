import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MonosemError, throwIfAborted } from "../errors.js";
import { makeDirectory } from "../formats/makeDirectory.js";

const pollMilliseconds = 200;

/**
 * Runs `work` while no other process runs something under the same lock, and waits for that. A lock whose holder died is
 * free after ten seconds.
 *
 * @param options.unless - asked before every try: when true, nothing is left to do
 * @param work - its signal fires with `options.signal`, and if the lock is lost, which a process that was suspended finds
 * @throws MonosemError ERR_ABORTED; ERR_IO when the lock cannot be made or is lost
 */
export async function withLock(
  path: string,
  options: { readonly signal?: AbortSignal | undefined; readonly unless: () => Promise<boolean> },
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { lock } = (await import("proper-lockfile")).default;
  const lost = new AbortController();
  await makeDirectory(dirname(path));
  let release: (() => Promise<void>) | undefined;
  while (release === undefined) {
    throwIfAborted(options.signal, "the wait for another process's download");
    if (await options.unless()) return;
    try {
      release = await lock(path, { realpath: false, onCompromised: (error) => lost.abort(error) });
    } catch (error) {
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

function lockError(path: string, cause: unknown): MonosemError {
  return new MonosemError("ERR_IO", `cannot hold the lock ${path}: ${(cause as Error).message}`, { cause });
}
