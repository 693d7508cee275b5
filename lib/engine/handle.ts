import { MonosemError } from "../errors.js";
import { type NativeResult, native } from "./addon.js";

let nativeOf: <Native extends NativeResult>(handle: Handle<Native>, what: string) => Native;

/**
 * A share of something in a device's memory: a tensor, codes, and the like. Give it back with {@link dispose} or
 * `using`; the garbage collector does so too, but late.
 */
export abstract class Handle<Native extends NativeResult> {
  #native: Native | undefined;

  static {
    nativeOf = (handle, what) => {
      // An object that has only the prototype has no private members.
      if (!(#native in handle)) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `${what} was not made by a Device: expected one from its methods`,
        );
      }
      if (handle.#native === undefined)
        throw new MonosemError("ERR_DISPOSED", `${what} (${handle.describe()}) was disposed`);
      return handle.#native;
    };
  }

  /** @internal */
  constructor(handle: Native) {
    this.#native = handle;
  }

  /** @internal What an error calls it, for example "codes [4096, 768]". */
  abstract describe(): string;

  /** Whether this handle was given back. */
  get disposed(): boolean {
    return this.#native === undefined;
  }

  /** Gives the handle back. Queued work that uses it still completes; a second call does nothing. */
  dispose(): void {
    if (this.#native === undefined) return;
    native.disposeHandle(this.#native);
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal The native handle; throws ERR_DISPOSED, naming `what`. */
export function nativeHandle<Native extends NativeResult>(handle: Handle<Native>, what: string): Native {
  return nativeOf(handle, what);
}
