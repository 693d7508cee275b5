/** Exit status of a program that Ctrl-C ended: 128 + SIGINT. */
export const INTERRUPTED = 130;

/** Signals so close are one request: whoever ends a group of processes reaches one below npx twice, npx passing it on. */
const SAME_REQUEST_MILLISECONDS = 500;

/**
 * Runs `work` with a signal that fires at the first Ctrl-C (or SIGTERM), so that it can save what it has and end
 * cleanly; another Ctrl-C ends the process at once, another SIGTERM says nothing new.
 */
export async function withInterruption<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const controller = new AbortController();
  let requested: number | undefined;
  const interrupt = (signal: NodeJS.Signals): void => {
    const now = performance.now();
    if (requested === undefined) {
      requested = now;
      process.stderr.write("\nstopping; press Ctrl-C again to stop at once\n");
      controller.abort();
    } else if (signal === "SIGINT" && now - requested > SAME_REQUEST_MILLISECONDS) {
      process.exit(INTERRUPTED);
    }
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
