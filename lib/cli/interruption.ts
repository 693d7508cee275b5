/** Exit status of a program that Ctrl-C ended: 128 + SIGINT. */
export const INTERRUPTED = 130;

/**
 * Runs `work` with a signal that fires at the first Ctrl-C (or SIGTERM), so that it can save what it has and end
 * cleanly; a second one ends the process at once.
 */
export async function withInterruption<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const controller = new AbortController();
  const interrupt = (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    process.stderr.write("\nstopping; press Ctrl-C again to stop at once\n");
    controller.abort();
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}
