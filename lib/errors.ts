/** What went wrong, as a stable string: programs branch on it, the message is for people. */
export type ErrorCode =
  // raised by the engine (native/engine/error.h)
  | "ERR_INVALID_ARGUMENT"
  | "ERR_SHAPE_MISMATCH"
  | "ERR_DTYPE_MISMATCH"
  | "ERR_DEVICE_MISMATCH"
  | "ERR_DISPOSED"
  | "ERR_OUT_OF_MEMORY"
  | "ERR_NON_FINITE"
  | "ERR_NOT_COMPUTED"
  | "ERR_UNSUPPORTED"
  | "ERR_DEVICE_LOST" // a GPU has failed; the CPU can still be used
  | "ERR_INTERNAL"
  // raised by the library
  | "ERR_ABORTED" // an AbortSignal fired
  | "ERR_CONFIG" // a configuration that cannot be used
  | "ERR_FORMAT" // a malformed or inconsistent file
  | "ERR_NOT_FOUND" // a missing file, tensor, hook point or option
  | "ERR_IO" // the file system refused
  | "ERR_BUDGET" // the cap on tokens or cost leaves no room for the next request to a judge
  // raised by downloads; ERR_NETWORK and ERR_ACCESS_DENIED also by judges' servers
  | "ERR_OFFLINE" // HF_HUB_OFFLINE is set, and what is needed is not in the cache
  | "ERR_NETWORK" // the server cannot be reached, fails again and again, or does not speak the protocol
  | "ERR_ACCESS_DENIED" // a private or gated repository, or a token or key that is not valid
  | "ERR_RATE_LIMITED" // too many requests; the message says when to come back
  | "ERR_INTEGRITY"; // other bytes than the repository says: wrong length or wrong hash

/**
 * The one error class of monosem. The message names the thing, what was expected, what was found and what to do;
 * `cause` holds the underlying error where there is one.
 */
export class MonosemError extends Error {
  override readonly name = "MonosemError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** @throws MonosemError ERR_ABORTED, "`what` was aborted", once the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw abortError(signal, what);
}

/** The result of some work, which goes on by itself if the signal fires before: then as `throwIfAborted`. */
export async function untilAborted<Result>(
  work: Promise<Result>,
  signal: AbortSignal | undefined,
  what: string,
): Promise<Result> {
  if (signal === undefined) return await work;
  throwIfAborted(signal, what);
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortError(signal, what));
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Whether the error says that a signal has fired. */
export function isAborted(error: unknown): error is MonosemError {
  return error instanceof MonosemError && error.code === "ERR_ABORTED";
}

function abortError(signal: AbortSignal, what: string): MonosemError {
  return new MonosemError("ERR_ABORTED", `${what} was aborted`, { cause: signal.reason });
}
